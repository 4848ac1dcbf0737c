import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect, it } from 'vitest'
import { neverFound, readSnapshot } from './sqlite-reads.ts'
import { migrate } from './sqlite-schema.ts'

it('[F68] a snapshot that the disk has undone ends without a word, and the next one begins', () => {
  const folder = mkdtempSync(join(tmpdir(), 'birthmark-snapshot-'))
  const db = new DatabaseSync(join(folder, 'store.db'))
  const snapshot = readSnapshot(db)
  snapshot.begin()
  // What SQLite does by itself when a page cannot be read.
  db.exec('ROLLBACK')
  // It ends in a timer and in the writer's messages: whatever it threw would end the process.
  snapshot.end()
  snapshot.begin()
  expect(db.isTransaction).toBe(true)
  snapshot.end()
  expect(db.isTransaction).toBe(false)
  db.close()
  rmSync(folder, { recursive: true })
})

it.each(neverFound)('the check finds %s without going through a table again for each row of another', (_, sql) => {
  const db = new DatabaseSync(':memory:')
  migrate(db)
  const plan = db.prepare(`EXPLAIN QUERY PLAN ${sql} LIMIT 1`).all() as { id: number; parent: number; detail: string }[]
  const perRow = plan.filter(({ parent, detail }, i) => {
    const within = plan.find(({ id }) => id === parent)?.detail ?? ''
    // A question that does not hang on the row is asked once.
    if (within.startsWith('SCALAR')) return false
    const isFirst = parent === 0 && plan.findIndex(one => one.parent === 0 && /^(SCAN|SEARCH)/.test(one.detail)) === i
    return !isFirst && (/^SCAN (?!.*VIRTUAL TABLE)/.test(detail) || /\(fleet=\?\)/.test(detail))
  })
  db.close()
  expect(perRow).toEqual([])
})
