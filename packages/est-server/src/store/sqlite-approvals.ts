// Waiting requests in SQLite: the reads and writes of approvals.ts.

import type { DatabaseSync } from 'node:sqlite'
import type { ApprovalDecision, ApprovalQuery, ApprovalRecord, ApprovalRequest, ApprovalState } from './approvals.ts'
import { prepare } from './sqlite-rows.ts'
import { type AuditEntry, pageRowsMax } from './store.ts'

export interface ApprovalWrites {
  awaitApproval(asked: {
    request: ApprovalRequest
    waitingMax: number
  }): { kind: 'recorded'; approval: ApprovalRecord } | { kind: 'full' }
  decideApproval(decision: ApprovalDecision): ApprovalRecord | null
}

/** Expired rows that one new one clears away: more than come, and too few to hold up the writer. */
const sweptMax = 64

interface ApprovalRow {
  id: number
  fleet: string
  device: string
  content_sha256: Uint8Array
  epoch: number
  label: string | null
  operation: string
  spki_sha256: Uint8Array
  summary: string
  request_id: string
  asked_from: string
  asked_at: number
  state: ApprovalState
  decided_at: number | null
  decided_by: string
  reason: string
  expires_at: number
}

function record(row: ApprovalRow): ApprovalRecord {
  const { id, fleet, epoch, label, operation, summary, state, reason } = row
  return {
    ...{ id, fleet, deviceId: row.device, contentSha256: row.content_sha256, epoch, label, operation },
    ...{ spkiSha256: row.spki_sha256, summary, requestId: row.request_id, from: row.asked_from, at: row.asked_at },
    ...{ state, decidedAt: row.decided_at, decidedBy: row.decided_by, reason, expiresAt: row.expires_at },
  }
}

export function approvalReads(db: DatabaseSync) {
  const ofContent = prepare<ApprovalRow>(db, 'SELECT * FROM approvals WHERE fleet = ? AND device = ? AND content_sha256 = ?')
  const byId = prepare<ApprovalRow>(db, 'SELECT * FROM approvals WHERE id = ? AND fleet = ?')
  const list = prepare<ApprovalRow>(
    db,
    `SELECT * FROM approvals WHERE fleet = ?1 AND id > ?2 AND expires_at > ?3 AND (?4 IS NULL OR state = ?4) ORDER BY id LIMIT ?5`,
  )
  return {
    approval(fleet: string, deviceId: string, contentSha256: Uint8Array): ApprovalRecord | null {
      const row = ofContent.get(fleet, deviceId, contentSha256)
      return row === undefined ? null : record(row)
    },
    approvalById(fleet: string, id: number): ApprovalRecord | null {
      const row = byId.get(id, fleet)
      return row === undefined ? null : record(row)
    },
    approvals: ({ fleet, state, after, now, limit }: ApprovalQuery): ApprovalRecord[] =>
      list.all(fleet, after ?? 0, now, state ?? null, Math.min(limit, pageRowsMax)).map(record),
  }
}

export function approvalWrites(db: DatabaseSync, audit: (entry: AuditEntry) => void): ApprovalWrites {
  const { approval, approvalById } = approvalReads(db)
  const waiting = prepare<{ count: number }>(
    db,
    `SELECT count(*) AS count FROM approvals WHERE fleet = ? AND state = 'waiting' AND expires_at > ? AND device <> ?`,
  )
  const dropOfDevice = prepare(
    db,
    `DELETE FROM approvals WHERE fleet = ?1 AND device = ?2 AND (state = 'waiting' OR content_sha256 = ?3)`,
  )
  const sweep = prepare(
    db,
    `DELETE FROM approvals WHERE id IN (SELECT id FROM approvals WHERE expires_at <= ? ORDER BY expires_at LIMIT ${sweptMax})`,
  )
  const insert = prepare(
    db,
    `INSERT INTO approvals (fleet, device, content_sha256, epoch, label, operation, spki_sha256, summary, request_id, asked_from, asked_at,
       state, decided_by, reason, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'waiting', '', '', ?)`,
  )
  const decide = prepare(
    db,
    'UPDATE approvals SET state = ?, decided_at = ?, decided_by = ?, reason = ?, expires_at = ? WHERE id = ? AND fleet = ? AND expires_at > ?',
  )
  return {
    awaitApproval({ request: r, waitingMax }) {
      const known = approval(r.fleet, r.deviceId, r.contentSha256)
      if (known !== null && known.epoch === r.epoch && known.expiresAt > r.at) return { kind: 'recorded', approval: known }
      if ((waiting.get(r.fleet, r.at, r.deviceId)?.count ?? 0) >= waitingMax) return { kind: 'full' }
      sweep.run(r.at)
      dropOfDevice.run(r.fleet, r.deviceId, r.contentSha256)
      const what = [r.fleet, r.deviceId, r.contentSha256, r.epoch, r.label, r.operation, r.spkiSha256, r.summary] as const
      insert.run(...what, r.requestId, r.from, r.at, r.expiresAt)
      audit(r.audit)
      return { kind: 'recorded', approval: approval(r.fleet, r.deviceId, r.contentSha256) as ApprovalRecord }
    },
    decideApproval(d) {
      const { changes } = decide.run(d.state, d.at, d.by, d.reason, d.expiresAt, d.id, d.fleet, d.at)
      if (changes === 0) return null
      audit(d.audit)
      return approvalById(d.fleet, d.id)
    },
  }
}
