// Every broken invariant of a SQLite store as a sentence.

import type { DatabaseSync } from 'node:sqlite'
import { auditHash, chainStart } from './audit-chain.ts'
import { type CheckQuestion, checkQuestions } from './check-questions.ts'
import { prepare } from './sqlite-rows.ts'
import type { AuditEntry } from './store.ts'

/**
 * None runs through a table again for each row of another: CROSS JOIN keeps SQLite from an order that it would take for want of statistics.
 */
export const never: readonly CheckQuestion[] = [
  ...checkQuestions,
  [
    'a device whose last certificate is not its last',
    `SELECT id FROM devices d WHERE latest IS NOT (SELECT max(key) FROM issuances WHERE device = d.key AND state <> 'void' AND state = 'issued')`,
  ],
  [
    'a membership that its device does not know',
    `SELECT m.id FROM memberships m WHERE NOT EXISTS (SELECT 1 FROM devices d, json_each(d.gids) g
       WHERE d.fleet = m.fleet AND d.id = m.id AND g.value = m.gid)`,
  ],
  [
    'a device whose group does not list it',
    `SELECT d.id FROM devices d, json_each(d.gids) g
     WHERE NOT EXISTS (SELECT 1 FROM memberships m WHERE m.fleet = d.fleet AND m.gid = g.value AND m.id = d.id)`,
  ],
  [
    'a certificate without a group that its device was in',
    `SELECT i.idx FROM issuances i JOIN devices d ON d.key = i.device CROSS JOIN json_each(d.gids) g
       CROSS JOIN memberships m ON m.fleet = d.fleet AND m.gid = g.value AND m.id = d.id
     WHERE i.state <> 'void' AND i.idx > m.joined_after AND NOT EXISTS (SELECT 1 FROM json_each(i.gids) WHERE value = m.gid)
     AND NOT EXISTS (SELECT 1 FROM groups g WHERE g.fleet = i.fleet AND g.gid = m.gid AND g.bound <= i.idx)`,
  ],
  [
    'a certificate of a closed group beyond its bound',
    `SELECT i.idx FROM issuances i CROSS JOIN json_each(i.gids) m CROSS JOIN groups g ON g.fleet = i.fleet AND g.gid = m.value
       WHERE g.bound <= i.idx AND i.state = 'issued'`,
  ],
  [
    'a notice that does not follow the one before',
    `SELECT n.seq FROM notices n LEFT JOIN notices p ON p.fleet = n.fleet AND p.seq = n.seq - 1 WHERE n.previous_sha256 IS NOT p.sha256
       AND NOT (p.seq IS NULL AND EXISTS (SELECT 1 FROM audit WHERE kind = 'store_restored'))`,
  ],
  [
    'a time later than the clock of the store',
    "SELECT started_at FROM issuances WHERE started_at > (SELECT at FROM clock) AND NOT EXISTS (SELECT 1 FROM audit WHERE kind = 'clock_accepted')",
  ],
]

/** Every broken invariant as a sentence. Reads the whole file: for an operator's check, not for a request. */
export function sqliteCheck(db: DatabaseSync): string[] {
  const broken: string[] = []
  for (const row of db.prepare('PRAGMA integrity_check(20)').all())
    if (row.integrity_check !== 'ok') broken.push(`file: ${row.integrity_check}`)
  for (const row of db.prepare('PRAGMA foreign_key_check').all())
    broken.push(`${row.table}: row ${row.rowid} points at nothing in ${row.parent}`)
  for (const [what, sql] of never) {
    const row = db.prepare(`${sql} LIMIT 1`).get()
    if (row) broken.push(`${what}: ${Object.values(row)[0]}`)
  }
  let last: Uint8Array = chainStart
  let n = 0
  const rows = prepare<AuditEntry & { n: number; hash: Uint8Array; requestId: string }>(
    db,
    'SELECT n, at, kind, request_id AS requestId, fleet, device, "by", code, detail, hash FROM audit WHERE n > ? ORDER BY n LIMIT 1000',
  )
  for (let page = rows.all(0); page.length > 0; page = rows.all(n))
    for (const row of page) {
      if (row.n !== n + 1) broken.push(`audit: record ${n + 1} is missing`)
      if (Buffer.compare(auditHash(last, row.n, row), row.hash) !== 0) {
        broken.push(`audit: record ${row.n} does not follow from the one before`)
        return broken
      }
      last = row.hash
      n = row.n
    }
  return broken
}
