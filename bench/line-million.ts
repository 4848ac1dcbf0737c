// A million units in one order and one journal, in a process of its own so that its memory is its own. The journal is filled by the journal's
// own code without the cryptography of each unit, then real units are issued on top, and the manifest and the report pass through.

import { closeSync, createWriteStream, mkdtempSync, openSync, rmSync, statSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  birthRequest,
  createManufacturer,
  encodeBirthForm,
  generateSigningKey,
  openJournal,
  openOrder,
  openStation,
  sha256Hex,
  UNASSIGNED_HARDWARE,
  yieldReport,
} from '@birthmark/factory-line'

export interface LineMillion {
  units: number
  unaccounted: number
  openSeconds: number
  journalMb: number
  rssMb: number
}

const units = Number(process.argv[2] ?? 1_000_000)
const real = 1000
const folder = mkdtempSync(join(tmpdir(), 'bm-million-'))
const clock = { now: () => Math.floor(Date.now() / 1000) }
const profile = { organization: 'Example', commonName: true, hardwareType: UNASSIGNED_HARDWARE }
const maker = await createManufacturer(folder, 'Example', clock)
const serialOf = (i: number): string => `GW2-${String(i).padStart(9, '0')}`

const csv = join(folder, 'units.csv')
const fd = openSync(csv, 'w')
writeSync(fd, 'serial,groups\n')
for (let i = 0; i < units; ) {
  let text = ''
  for (const end = Math.min(units, i + 10_000); i < end; i++) text += `${serialOf(i)},batch=2026-W41;model=gw-2\n`
  writeSync(fd, text)
}
closeSync(fd)
const order = openOrder(csv)

const journal = openJournal({
  folder,
  signer: maker.manifest,
  algorithm: maker.issuing.key.algorithm,
  station: 'trial',
  sku: null,
  random: length => new Uint8Array(length),
})
const { key } = generateSigningKey()
const toBeSigned = encodeBirthForm(
  { serial: serialOf(0), spki: key.spki },
  profile,
  maker.issuing,
  clock.now(),
  n => new Uint8Array(n),
)
const signature = await key.sign(toBeSigned)
let filled = 0
for (const { serial, groups } of order.units()) {
  if (filled >= units - real) break
  const at = clock.now()
  const { index, durable: reserved } = journal.reserve(
    { serial, spkiSha256: sha256Hex(Buffer.from(serial)), groups, keyOrigin: 'device', toBeSigned },
    at,
  )
  const issued = journal.issued({ serial, index }, signature, at)
  const good = journal.fate({ kind: 'good', serial, step: 'readback', cause: 'certificate' }, at)
  if (++filled % 96 === 0) await Promise.all([reserved, issued, good])
}
await journal.note('filled', `${filled} units`, clock.now())
journal.close()

// As after a restart: the whole journal is read and verified.
const began = performance.now()
const station = openStation({ folder, issuing: maker.issuing, manifestSigner: maker.manifest, profile, clock })
const openSeconds = (performance.now() - began) / 1000
for (let i = filled; i < units; i++) {
  const unit = order.unit(serialOf(i))
  if (!unit) throw new Error('the order has lost a unit')
  const csr = await birthRequest(unit.serial, generateSigningKey().key)
  const { certificate } = await station.issue({ ...unit, csr })
  await station.confirm(unit.serial, { certificate, proof: null })
}
const manifest = createWriteStream(join(folder, 'manifest.jsonl'))
for await (const line of station.manifestLines())
  if (!manifest.write(line)) await new Promise<void>(resolve => manifest.once('drain', () => resolve()))
await new Promise<void>(resolve => manifest.end(() => resolve()))
station.close()
const report = yieldReport(join(folder, 'journal.jsonl'), maker.manifest.key.spki, maker.manifest.key.algorithm)
process.stdout.write(
  `${JSON.stringify({
    units: report.good,
    unaccounted: report.unaccounted,
    openSeconds,
    journalMb: statSync(join(folder, 'journal.jsonl')).size / 2 ** 20,
    rssMb: process.resourceUsage().maxRSS / 1024,
  } satisfies LineMillion)}\n`,
)
order.close()
rmSync(folder, { recursive: true })
