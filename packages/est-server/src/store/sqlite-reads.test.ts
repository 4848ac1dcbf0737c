import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect, it } from 'vitest'
import { readSnapshot } from './sqlite-reads.ts'

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
