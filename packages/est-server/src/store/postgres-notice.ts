// Notices without a revocation in PostgreSQL: the write of notice.ts.

import type { PlainNotice } from './notice.ts'
import { highest } from './postgres-rows.ts'
import type { Transaction } from './postgres-writer.ts'

export const postgresNoticeWrites = {
  async recordNotice(tx: Transaction, n: PlainNotice): Promise<'recorded' | 'conflict'> {
    const [held] = await tx.rows<{ holds: boolean }>(
      'notice-holds',
      `SELECT ${highest('seq', 'notices WHERE fleet = $1')} = $2 - 1
         AND (SELECT sha256 FROM notices WHERE fleet = $1 AND seq = $2 - 1) IS NOT DISTINCT FROM $3::bytea AS holds`,
      [n.fleet, n.seq, n.previousSha256],
    )
    if (!held.holds) return 'conflict'
    await tx.run(
      'add-notice',
      'INSERT INTO notices (fleet, seq, notice, sha256, previous_sha256, at) VALUES ($1, $2, $3, $4, $5, $6)',
      [n.fleet, n.seq, n.notice, n.noticeSha256, n.previousSha256, n.at],
    )
    tx.audit(n.audit)
    return 'recorded'
  },
}
