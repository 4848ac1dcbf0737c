// Issuers in PostgreSQL: the reads and writes of issuers.ts. Whether an intent's issuer may sign is asked with the intent (postgres-issuance.ts).

import type { IssuerStanding, IssuersChange } from './issuers.ts'
import type { Rows } from './postgres-rows.ts'
import type { Transaction } from './postgres-writer.ts'

const standings = 'SELECT key_id AS "keyId", state, since FROM issuers ORDER BY since, key_id'

export function postgresIssuerReads(rows: Rows) {
  return {
    issuerStandings: (): Promise<IssuerStanding[]> => rows('issuers', standings),

    async issuerDevices(q: {
      issuer: Uint8Array
      now: number
      after: number
      rows: number
    }): Promise<{ devices: number; next: number | null }> {
      const [page] = await rows<{ rows: number; devices: number; last: number | null }>(
        'issuer-devices',
        `SELECT count(*) AS rows, max(d.key) AS last, count(*) FILTER (WHERE i.issuer = $1 AND i.not_after > $2) AS devices
         FROM (SELECT key, latest FROM devices WHERE key > $3 ORDER BY key LIMIT $4) d LEFT JOIN issuances i ON i.key = d.latest`,
        [q.issuer, q.now, q.after, q.rows],
      )
      return { devices: page.devices, next: page.rows === q.rows ? page.last : null }
    },
  }
}

const text = (all: IssuerStanding[]) =>
  all.map(({ keyId, state, since }) => `${Buffer.from(keyId).toString('hex')} ${state} ${since}`).join()

export async function recordPostgresIssuers(tx: Transaction, change: IssuersChange): Promise<'recorded' | 'conflict' | 'used'> {
  if (text(await tx.rows<IssuerStanding>('issuers', standings)) !== text(change.expected)) return 'conflict'
  if (
    change.unused !== null &&
    (await tx.rows('issuer-used', 'SELECT 1 FROM issuances WHERE issuer = $1 LIMIT 1', [change.unused])).length > 0
  )
    return 'used'
  await tx.run('clear-issuers', 'DELETE FROM issuers')
  for (const { keyId, state, since } of change.standings)
    await tx.run('add-issuer', 'INSERT INTO issuers (key_id, state, since) VALUES ($1, $2, $3)', [keyId, state, since])
  tx.audit(change.audit)
  return 'recorded'
}
