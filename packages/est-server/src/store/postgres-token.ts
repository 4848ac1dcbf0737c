// Spent bearer tokens in PostgreSQL: the write of token.ts.

import type { Transaction } from './postgres-writer.ts'
import type { SpentToken } from './token.ts'

/** Dropped for each one added: the table shrinks faster than it grows. */
const droppedMax = 4

export async function spendPostgresToken(tx: Transaction, token: SpentToken): Promise<boolean> {
  const { use, fleet, deviceId, contentSha256, expiresAt, at } = token
  const [spent] = await tx.rows<{ is_same: boolean }>(
    'spent-token',
    'SELECT fleet = $2 AND device = $3 AND content_sha256 = $4 AS is_same FROM tokens WHERE use = $1',
    [use, fleet, deviceId, contentSha256],
  )
  if (spent) return spent.is_same
  await tx.run(
    'drop-tokens',
    `DELETE FROM tokens WHERE use = ANY (ARRAY (SELECT use FROM tokens WHERE expires_at < $1 ORDER BY expires_at LIMIT ${droppedMax}))`,
    [at],
  )
  await tx.run('spend-token', 'INSERT INTO tokens (use, fleet, device, content_sha256, expires_at) VALUES ($1, $2, $3, $4, $5)', [
    ...[use, fleet, deviceId, contentSha256, expiresAt],
  ])
  return true
}
