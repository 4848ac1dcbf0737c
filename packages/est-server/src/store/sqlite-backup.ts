// Copies of a SQLite store: one moment of it in one file, taken beside a running server.

import { closeSync, fsyncSync, openSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { EstServerError } from '../errors.ts'

/**
 * Writes a copy to `to`, which must not exist. One read transaction: writers go on meanwhile, and unlike the backup API it never has to begin
 * anew because another process has written. Throws `store_unusable` when there is no store or it is damaged; answers the schema's version.
 */
export function copySqliteStore(path: string, to: string): number {
  const before = process.umask(0o077)
  try {
    const source = new DatabaseSync(path, { readOnly: true, timeout: 5000 })
    try {
      source.prepare('VACUUM INTO ?').run(to)
    } finally {
      source.close()
    }
    const copy = new DatabaseSync(to, { readOnly: true })
    try {
      const sound = copy.prepare('PRAGMA integrity_check(1)').get()
      if (sound?.integrity_check !== 'ok') throw new Error(`the copy is damaged: ${sound?.integrity_check}`)
      const fd = openSync(to, 'r')
      fsyncSync(fd)
      closeSync(fd)
      return copy.prepare('PRAGMA user_version').get()?.user_version as number
    } finally {
      copy.close()
    }
  } catch (error) {
    throw new EstServerError('store_unusable', `${path}: ${(error as Error).message}`, error)
  } finally {
    process.umask(before)
  }
}
