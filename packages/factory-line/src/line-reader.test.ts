import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { lineReader } from './line-reader.ts'

test('a line is read from where it begins, and a unit that no line tells of is not given the line that was read last', () => {
  const folder = mkdtempSync(join(tmpdir(), 'line-'))
  const file = join(folder, 'journal.jsonl')
  const lines = [{ n: 1, what: 'x'.repeat(3000) }, { n: 2 }].map(line => `${JSON.stringify(line)}\n`)
  writeFileSync(file, lines.join(''))
  const fd = openSync(file, 'r')
  try {
    const lineAt = lineReader(fd, file)
    expect([lineAt(0).n, lineAt(lines[0].length).n]).toEqual([1, 2])
    for (const nowhere of [-1, lines.join('').length])
      expect(() => lineAt(nowhere)).toThrow(expect.objectContaining({ code: 'journal_corrupt' }))
  } finally {
    closeSync(fd)
    rmSync(folder, { recursive: true })
  }
})
