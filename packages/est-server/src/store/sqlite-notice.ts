// Notices without a revocation in SQLite: the reads and writes of notice.ts.

import type { DatabaseSync } from 'node:sqlite'
import type { PlainNotice } from './notice.ts'
import { prepare } from './sqlite-rows.ts'
import type { AuditEntry, NoticeRecord } from './store.ts'

export interface NoticeWrites {
  recordNotice(notice: PlainNotice): 'recorded' | 'conflict'
}

export function noticeReads(db: DatabaseSync) {
  const newest = prepare<NoticeRecord>(db, 'SELECT seq, notice, sha256, at FROM notices WHERE fleet = ? ORDER BY seq DESC LIMIT 1')
  return { newestNotice: (fleet: string) => newest.get(fleet) ?? null }
}

export function noticeWrites(db: DatabaseSync, audit: (entry: AuditEntry) => void): NoticeWrites {
  const last = prepare<{ seq: number; sha256: Uint8Array }>(
    db,
    'SELECT seq, sha256 FROM notices WHERE fleet = ? ORDER BY seq DESC LIMIT 1',
  )
  const insert = prepare(db, 'INSERT INTO notices (fleet, seq, notice, sha256, previous_sha256, at) VALUES (?, ?, ?, ?, ?, ?)')
  return {
    recordNotice(n) {
      const before = last.get(n.fleet)
      const follows = before
        ? n.previousSha256 !== null && Buffer.compare(before.sha256, n.previousSha256) === 0
        : n.previousSha256 === null
      if (!follows || n.seq !== (before?.seq ?? 0) + 1) return 'conflict'
      insert.run(n.fleet, n.seq, n.notice, n.noticeSha256, n.previousSha256, n.at)
      audit(n.audit)
      return 'recorded'
    },
  }
}
