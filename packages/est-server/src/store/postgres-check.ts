// Every broken invariant of a PostgreSQL store as a sentence. Reads all of it, in one snapshot, on a connection of its own: for an operator's
// check, not for a request.

import type { Client } from 'pg'
import { auditHash, chainStart } from './audit-chain.ts'
import { type CheckQuestion, checkQuestions } from './check-questions.ts'
import type { AuditRecord } from './store.ts'

const never: readonly CheckQuestion[] = [
  ...checkQuestions,
  [
    'a device whose last certificate is not its last',
    `SELECT id FROM devices d WHERE latest IS DISTINCT FROM (SELECT max(key) FROM issuances WHERE device = d.key AND state <> 'void' AND state = 'issued')`,
  ],
  [
    'a membership that its device does not know',
    `SELECT m.id FROM memberships m LEFT JOIN devices d ON d.fleet = m.fleet AND d.id = m.id WHERE d.key IS NULL OR m.gid <> ALL (d.gids)`,
  ],
  [
    'a device whose group does not list it',
    `SELECT d.id FROM devices d CROSS JOIN unnest(d.gids) AS g (gid)
     WHERE NOT EXISTS (SELECT 1 FROM memberships m WHERE m.fleet = d.fleet AND m.gid = g.gid AND m.id = d.id)`,
  ],
  [
    'a certificate without a group that its device was in',
    `SELECT i.idx FROM issuances i JOIN devices d ON d.key = i.device CROSS JOIN unnest(d.gids) AS g (gid)
     JOIN memberships m ON m.fleet = d.fleet AND m.gid = g.gid AND m.id = d.id
     WHERE i.state <> 'void' AND i.idx > m.joined_after AND m.gid <> ALL (i.gids)
     AND NOT EXISTS (SELECT 1 FROM groups g WHERE g.fleet = d.fleet AND g.gid = m.gid AND g.bound <= i.idx)`,
  ],
  [
    'a certificate of a closed group beyond its bound',
    `SELECT i.idx FROM groups g JOIN issuances i ON i.fleet = g.fleet AND i.idx >= g.bound AND g.gid = ANY (i.gids) WHERE i.state = 'issued'`,
  ],
  [
    'a notice that does not follow the one before',
    `SELECT n.seq FROM notices n LEFT JOIN notices p ON p.fleet = n.fleet AND p.seq = n.seq - 1 WHERE n.previous_sha256 IS DISTINCT FROM p.sha256
         AND NOT (p.seq IS NULL AND EXISTS (SELECT 1 FROM audit WHERE kind = 'store_restored'))`,
  ],
  [
    'a time later than the clock of the store',
    `SELECT started_at FROM issuances WHERE started_at > (SELECT clock_at FROM head) AND NOT EXISTS (SELECT 1 FROM audit WHERE kind = 'clock_accepted')`,
  ],
]

/** `client`: on the store's schema, as made by connectPostgres, without the look-up settings. */
export async function postgresCheck(client: Client): Promise<string[]> {
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY')
  try {
    const broken: string[] = []
    for (const [what, sql] of never) {
      const { rows } = await client.query(`${sql} LIMIT 1`)
      if (rows.length > 0) broken.push(`${what}: ${Object.values(rows[0])[0]}`)
    }
    const chain = await brokenChain(client)
    return chain === null ? broken : [...broken, chain]
  } finally {
    await client.query('ROLLBACK')
  }
}

async function brokenChain(client: Client): Promise<string | null> {
  let last: Uint8Array = chainStart
  let n = 0
  for (;;) {
    const { rows } = await client.query<AuditRecord>(
      'SELECT n, at, kind, request_id AS "requestId", fleet, device, "by", code, detail, hash FROM audit WHERE n > $1 ORDER BY n LIMIT 1000',
      [n],
    )
    for (const row of rows) {
      if (row.n !== n + 1) return `audit: record ${n + 1} is missing`
      if (Buffer.compare(auditHash(last, row.n, row), row.hash) !== 0)
        return `audit: record ${row.n} does not follow from the one before`
      last = row.hash
      n = row.n
    }
    if (rows.length < 1000) break
  }
  const { rows } = await client.query<{ audit_n: number; audit_hash: Uint8Array }>('SELECT audit_n, audit_hash FROM head')
  return rows[0].audit_n === n && Buffer.compare(rows[0].audit_hash, last) === 0
    ? null
    : `audit: the chain ends at record ${n} and the head says ${rows[0].audit_n}`
}
