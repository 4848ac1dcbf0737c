// Waiting requests in PostgreSQL: the reads and writes of approvals.ts.

import type { ApprovalDecision, ApprovalQuery, ApprovalRecord, ApprovalRequest } from './approvals.ts'
import type { Rows } from './postgres-rows.ts'
import type { Transaction } from './postgres-writer.ts'
import { pageRowsMax } from './store.ts'

/** Expired rows that one new one clears away: more than come, and too few to hold up the line. */
const sweptMax = 64

const columns = `id, fleet, device AS "deviceId", content_sha256 AS "contentSha256", epoch, label, operation, spki_sha256 AS "spkiSha256", summary,
  request_id AS "requestId", asked_from AS "from", asked_at AS at, state, decided_at AS "decidedAt", decided_by AS "decidedBy", reason,
  expires_at AS "expiresAt"`
const ofContent = `SELECT ${columns} FROM approvals WHERE fleet = $1 AND device = $2 AND content_sha256 = $3`

export function postgresApprovalReads(rows: Rows) {
  return {
    async approval(fleet: string, deviceId: string, contentSha256: Uint8Array): Promise<ApprovalRecord | null> {
      return (await rows<ApprovalRecord>('approval', ofContent, [fleet, deviceId, contentSha256]))[0] ?? null
    },
    async approvalById(fleet: string, id: number): Promise<ApprovalRecord | null> {
      const sql = `SELECT ${columns} FROM approvals WHERE id = $1 AND fleet = $2`
      return (await rows<ApprovalRecord>('approval-by-id', sql, [id, fleet]))[0] ?? null
    },
    approvals: ({ fleet, state, after, now, limit }: ApprovalQuery): Promise<ApprovalRecord[]> =>
      rows(
        'approvals',
        `SELECT ${columns} FROM approvals WHERE fleet = $1 AND id > $2 AND expires_at > $3 AND ($4::text IS NULL OR state = $4) ORDER BY id LIMIT $5`,
        [fleet, after ?? 0, now, state ?? null, Math.min(limit, pageRowsMax)],
      ),
  }
}

export const postgresApprovalWrites = {
  async awaitApproval(
    tx: Transaction,
    r: ApprovalRequest,
    waitingMax: number,
  ): Promise<{ kind: 'recorded'; approval: ApprovalRecord } | { kind: 'full' }> {
    const of = [r.fleet, r.deviceId, r.contentSha256]
    const [known] = await tx.rows<ApprovalRecord>('approval', ofContent, of)
    if (known && known.epoch === r.epoch && known.expiresAt > r.at) return { kind: 'recorded', approval: known }
    const [{ count }] = await tx.rows<{ count: number }>(
      'waiting',
      `SELECT count(*) AS count FROM approvals WHERE fleet = $1 AND state = 'waiting' AND expires_at > $2 AND device <> $3`,
      [r.fleet, r.at, r.deviceId],
    )
    if (count >= waitingMax) return { kind: 'full' }
    await tx.run(
      'sweep-approvals',
      `DELETE FROM approvals WHERE id IN (SELECT id FROM approvals WHERE expires_at <= $1 ORDER BY expires_at LIMIT ${sweptMax})`,
      [r.at],
    )
    await tx.run(
      'drop-approvals',
      `DELETE FROM approvals WHERE fleet = $1 AND device = $2 AND (state = 'waiting' OR content_sha256 = $3)`,
      of,
    )
    const [approval] = await tx.rows<ApprovalRecord>(
      'await-approval',
      `INSERT INTO approvals (fleet, device, content_sha256, epoch, label, operation, spki_sha256, summary, request_id, asked_from, asked_at,
         state, decided_by, reason, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'waiting', '', '', $12) RETURNING ${columns}`,
      [...of, r.epoch, r.label, r.operation, r.spkiSha256, r.summary, r.requestId, r.from, r.at, r.expiresAt],
    )
    tx.audit(r.audit)
    return { kind: 'recorded', approval }
  },

  async decideApproval(tx: Transaction, d: ApprovalDecision): Promise<ApprovalRecord | null> {
    const [decided] = await tx.rows<ApprovalRecord>(
      'decide-approval',
      `UPDATE approvals SET state = $1, decided_at = $2, decided_by = $3, reason = $4, expires_at = $5
       WHERE id = $6 AND fleet = $7 AND expires_at > $2 RETURNING ${columns}`,
      [d.state, d.at, d.by, d.reason, d.expiresAt, d.id, d.fleet],
    )
    if (decided === undefined) return null
    tx.audit(d.audit)
    return decided
  },
}
