// Spent bearer tokens in SQLite: one row each, gone some time after the token itself expired.

import type { DatabaseSync } from 'node:sqlite'
import { prepare } from './sqlite-rows.ts'
import type { SpentToken } from './token.ts'

/** Dropped for each one added: the table shrinks faster than it grows. */
const droppedMax = 4

export interface TokenWrites {
  spendToken(token: SpentToken): boolean
}

export function tokenWrites(db: DatabaseSync): TokenWrites {
  const byUse = prepare<{ fleet: string; device: string; content_sha256: Uint8Array }>(
    db,
    'SELECT fleet, device, content_sha256 FROM tokens WHERE use = ?',
  )
  const insert = prepare(db, 'INSERT INTO tokens (use, fleet, device, content_sha256, expires_at) VALUES (?, ?, ?, ?, ?)')
  const drop = prepare(
    db,
    'DELETE FROM tokens WHERE use IN (SELECT use FROM tokens WHERE expires_at < ? ORDER BY expires_at LIMIT ?)',
  )
  return {
    spendToken({ use, fleet, deviceId, contentSha256, expiresAt, at }) {
      const spent = byUse.get(use)
      if (spent)
        return spent.fleet === fleet && spent.device === deviceId && Buffer.compare(spent.content_sha256, contentSha256) === 0
      drop.run(at, droppedMax)
      insert.run(use, fleet, deviceId, contentSha256, expiresAt)
      return true
    },
  }
}
