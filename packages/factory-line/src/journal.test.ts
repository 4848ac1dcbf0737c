import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { createManufacturer } from './authority.ts'
import { openJournal } from './journal.ts'
import type { NewUnit } from './journal-room.ts'

test('settling a unit reads who it is and nothing of its certificate', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'line-'))
  const { issuing: signer } = await createManufacturer(folder, 'Example', { now: () => 1000 })
  const algorithm = 'ecdsa-sha256'
  const random = (length: number) => new Uint8Array(length)
  const journal = openJournal({ folder, signer, algorithm, station: 'one', sku: null, random })
  try {
    const unit: NewUnit = {
      serial: 'A-1',
      spkiSha256: '0'.repeat(64),
      groups: [],
      keyOrigin: 'device',
      toBeSigned: new Uint8Array(9),
    }
    const { index, durable } = journal.reserve(unit, 1000)
    await durable
    await journal.issued({ serial: 'A-1', index }, new Uint8Array(70).fill(1), 1001)
    // Whoever read the line of the signature would come upon this.
    const file = join(folder, 'journal.jsonl')
    const fd = openSync(file, 'r+')
    const text = readFileSync(file, 'utf8')
    writeSync(fd, '?', text.lastIndexOf('\n', text.indexOf('"kind":"issued"')) + 1)
    closeSync(fd)
    expect(() => journal.bySerial('A-1')).toThrow(SyntaxError)
    await journal.fate({ kind: 'good', serial: 'A-1', step: 'readback', cause: 'certificate' }, 1002)
    expect(journal.tally()).toMatchObject({ issued: 0, good: 1 })
    await expect(journal.fate({ kind: 'good', serial: 'B-1', step: 'readback', cause: '' }, 1003)).rejects.toMatchObject({
      code: 'serial_unknown',
    })
  } finally {
    journal.close()
    rmSync(folder, { recursive: true })
  }
})
