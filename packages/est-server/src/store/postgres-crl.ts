// Revocation lists in PostgreSQL: the reads and writes of crl.ts.

import type { CertificateStanding, CrlHead, CrlRecord, DatedRule, SerialQuery, SerialRun } from './crl.ts'
import { highest, type Rows } from './postgres-rows.ts'
import type { Transaction } from './postgres-writer.ts'

export function postgresCrlReads(rows: Rows) {
  const number = async (name: string, sql: string, values: unknown[]): Promise<number> =>
    (await rows<{ value: number }>(name, sql, values))[0].value
  const head = 'number, revocations, this_update AS "thisUpdate", next_update AS "nextUpdate"'
  return {
    revocations: (fleet: string | null): Promise<number> =>
      fleet === null
        ? number('notice-count', 'SELECT count(*) AS value FROM notices', [])
        : number('last-seq', `SELECT ${highest('seq', 'notices WHERE fleet = $1')} AS value`, [fleet]),

    datedRules: (fleet: string): Promise<DatedRule[]> =>
      rows(
        'dated-rules',
        `SELECT g.gid, g.bound, g.reason, n.at FROM groups g JOIN notices n ON n.fleet = g.fleet AND n.seq = g.closed_seq
         WHERE g.fleet = $1 AND g.bound IS NOT NULL ORDER BY g.gid`,
        [fleet],
      ),

    async fleets(): Promise<string[]> {
      // From name to name through the index, instead of over all its entries.
      const found = await rows<{ fleet: string }>(
        'fleets',
        `WITH RECURSIVE f AS ((SELECT fleet FROM issuances ORDER BY fleet LIMIT 1) UNION ALL
           SELECT (SELECT i.fleet FROM issuances i WHERE i.fleet > f.fleet ORDER BY i.fleet LIMIT 1) FROM f WHERE f.fleet IS NOT NULL)
         SELECT fleet FROM f WHERE fleet IS NOT NULL`,
      )
      return found.map(row => row.fleet)
    },

    lastIdx: (fleet: string): Promise<number> =>
      number('last-idx', `SELECT ${highest('idx', 'issuances WHERE fleet = $1')} AS value`, [fleet]),

    serials: ({ issuer, fleet, from, to, since }: SerialQuery): Promise<SerialRun[]> =>
      rows(
        'serials',
        `SELECT gids, length(serial) AS "serialBytes", string_agg(serial, ''::bytea) AS serials FROM issuances
         WHERE fleet = $1 AND idx >= $2 AND idx < $3 AND issuer = $4 AND state <> 'void' AND not_after >= $5 GROUP BY gids, length(serial)`,
        [fleet, from, to, issuer, since],
      ),

    async standing(issuer: Uint8Array, serial: Uint8Array): Promise<CertificateStanding | null> {
      const [found] = await rows<CertificateStanding>(
        'standing',
        `SELECT fleet, idx, gids, ${highest('seq', 'notices n WHERE n.fleet = i.fleet')} AS revocations FROM issuances i
         WHERE issuer = $1 AND serial = $2 AND state = 'issued'`,
        [issuer, serial],
      )
      return found ?? null
    },

    async crlHead(issuer: Uint8Array, list: string): Promise<CrlHead | null> {
      return (
        (await rows<CrlHead>('crl-head', `SELECT ${head} FROM crls WHERE issuer = $1 AND list = $2`, [issuer, list]))[0] ?? null
      )
    },

    async crl(issuer: Uint8Array, list: string): Promise<CrlRecord | null> {
      return (
        (
          await rows<CrlRecord>('crl', `SELECT issuer, list, ${head}, der FROM crls WHERE issuer = $1 AND list = $2`, [
            issuer,
            list,
          ])
        )[0] ?? null
      )
    },

    crlNumbers: (): Promise<{ issuer: Uint8Array; number: number }[]> =>
      rows('crl-numbers', 'SELECT issuer, number FROM crl_numbers'),
  }
}

export const postgresCrlWrites = {
  async reserveCrlNumber(tx: Transaction, issuer: Uint8Array, at: number): Promise<number> {
    tx.moveTime(at)
    const [{ number }] = await tx.rows<{ number: number }>(
      'reserve-crl',
      'INSERT INTO crl_numbers AS n VALUES ($1, 1) ON CONFLICT (issuer) DO UPDATE SET number = n.number + 1 RETURNING number',
      [issuer],
    )
    return number
  },

  async recordCrl(tx: Transaction, c: CrlRecord): Promise<'recorded' | 'conflict'> {
    const kept = await tx.run(
      'keep-crl',
      `INSERT INTO crls AS c (issuer, list, number, revocations, this_update, next_update, der)
       SELECT $1, $2, $3, $4, $5, $6, $7 WHERE EXISTS (SELECT 1 FROM crl_numbers WHERE issuer = $1 AND number >= $3)
       ON CONFLICT (issuer, list) DO UPDATE SET number = excluded.number, revocations = excluded.revocations, this_update = excluded.this_update,
         next_update = excluded.next_update, der = excluded.der WHERE excluded.number > c.number`,
      [c.issuer, c.list, c.number, c.revocations, c.thisUpdate, c.nextUpdate, c.der],
    )
    return kept === 1 ? 'recorded' : 'conflict'
  },

  async raiseCrlNumber(tx: Transaction, issuer: Uint8Array, number: number): Promise<void> {
    await tx.run(
      'raise-crl',
      'INSERT INTO crl_numbers AS n VALUES ($1, $2) ON CONFLICT (issuer) DO UPDATE SET number = greatest(n.number, excluded.number)',
      [issuer, number],
    )
  },
}
