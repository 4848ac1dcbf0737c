// Issuances and notices from end to end in SQLite: the reads of issuance-pages.ts.

import type { DatabaseSync } from 'node:sqlite'
import type { IssuanceRow } from './issuance-pages.ts'
import { prepare } from './sqlite-rows.ts'
import { type NoticeRecord, pageRowsMax } from './store.ts'

/** `scanning`: a connection with a small page cache. */
export function issuancePageReads(scanning: DatabaseSync) {
  const rows = prepare<Omit<IssuanceRow, 'gids'> & { gids: string }>(
    scanning,
    `SELECT i.key, i.state, i.issuer, i.serial, i.fleet, d.id AS deviceId, i.idx, i.gids, i.spki_sha256 AS spkiSha256, i.not_before AS notBefore,
       i.not_after AS notAfter, i.started_at AS startedAt, i.der
     FROM issuances i JOIN devices d ON d.key = i.device WHERE i.key > ? ORDER BY i.key LIMIT ?`,
  )
  const notices = prepare<NoticeRecord & { previousSha256: Uint8Array | null }>(
    scanning,
    'SELECT seq, notice, sha256, previous_sha256 AS previousSha256, at FROM notices WHERE fleet = ? AND seq > ? ORDER BY seq LIMIT ?',
  )
  return {
    issuances: (after: number, limit: number): IssuanceRow[] =>
      rows.all(after, Math.min(limit, pageRowsMax)).map(row => ({ ...row, gids: JSON.parse(row.gids) as number[] })),
    notices: (fleet: string, after: number, limit: number) =>
      notices.all(fleet, after, Math.min(limit, pageRowsMax)).map(row => ({ ...row })),
  }
}
