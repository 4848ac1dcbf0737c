// The numbers given out, in PostgreSQL: the reads and writes of numbers.ts.

import { equalBytes } from '@birthmark/device-sdk/core'
import {
  type AdoptedNotice,
  type Adoption,
  lostGroupName,
  mayFollow,
  type RaisedNumbers,
  type StoreNumbers,
  setsOf,
} from './numbers.ts'
import { keepSet } from './postgres-revoked-lists.ts'
import { highest, nextIdx, type Rows } from './postgres-rows.ts'
import type { Transaction } from './postgres-writer.ts'

// One statement, so that all of it is of one moment.
const numbersSql = `SELECT h.audit_n, h.audit_hash,
  (SELECT coalesce(json_agg(json_build_object('issuer', encode(c.issuer, 'hex'), 'number', c.number) ORDER BY c.issuer), '[]')::text
    FROM crl_numbers c) AS crls,
  (SELECT coalesce(json_agg(json_build_object('fleet', f.fleet,
      'idx', ${nextIdx('f.fleet')},
      'gid', ${highest('gid', 'groups g WHERE g.fleet = f.fleet')},
      'seq', ${highest('seq', 'notices n WHERE n.fleet = f.fleet')}) ORDER BY f.at), '[]')::text
    FROM unnest($1::text[]) WITH ORDINALITY AS f (fleet, at)) AS fleets
FROM head h`

export function postgresNumberReads(rows: Rows) {
  return {
    async numbers(fleets: string[]): Promise<StoreNumbers> {
      const [row] = await rows<{ audit_n: number; audit_hash: Uint8Array; crls: string; fleets: string }>('numbers', numbersSql, [
        fleets,
      ])
      return {
        audit: { n: row.audit_n, hash: row.audit_hash },
        fleets: JSON.parse(row.fleets) as StoreNumbers['fleets'],
        crls: (JSON.parse(row.crls) as { issuer: string; number: number }[]).map(c => ({
          ...c,
          issuer: Buffer.from(c.issuer, 'hex'),
        })),
      }
    },
  }
}

const addGroup = (tx: Transaction, fleet: string, gid: number) =>
  tx.run('lost-group', 'INSERT INTO groups (fleet, gid, name) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING', [
    fleet,
    gid,
    lostGroupName(gid),
  ])

export const postgresNumberWrites = {
  async raiseNumbers(tx: Transaction, { fleets, crls, audit }: RaisedNumbers): Promise<void> {
    for (const { fleet, idx, gid } of fleets) {
      await tx.run(
        'raise-idx',
        'INSERT INTO idx_leases AS l VALUES ($1, $2) ON CONFLICT (fleet) DO UPDATE SET next = greatest(l.next, excluded.next)',
        [fleet, idx],
      )
      const [{ last }] = await tx.rows<{ last: number }>(
        'last-gid',
        `SELECT ${highest('gid', 'groups WHERE fleet = $1')} AS last`,
        [fleet],
      )
      if (gid > last) await addGroup(tx, fleet, gid)
    }
    for (const { issuer, number } of crls)
      await tx.run(
        'raise-crl',
        'INSERT INTO crl_numbers AS n VALUES ($1, $2) ON CONFLICT (issuer) DO UPDATE SET number = greatest(n.number, excluded.number)',
        [issuer, number],
      )
    tx.audit(audit)
  },

  async adoptNotice(tx: Transaction, adopted: AdoptedNotice): Promise<Adoption> {
    const { fleet, seq, notice, sha256, previousSha256, at, rules, audit } = adopted
    const [same] = await tx.rows<{ sha256: Uint8Array }>('adopt-held', 'SELECT sha256 FROM notices WHERE fleet = $1 AND seq = $2', [
      fleet,
      seq,
    ])
    if (same) return equalBytes(same.sha256, sha256) ? 'known' : 'taken'
    const [last] = await tx.rows<{ seq: number; sha256: Uint8Array }>(
      'adopt-last',
      'SELECT seq, sha256 FROM notices WHERE fleet = $1 ORDER BY seq DESC LIMIT 1',
      [fleet],
    )
    if (!mayFollow(last, { seq, previousSha256 })) return 'taken'
    await tx.run(
      'adopt',
      'INSERT INTO notices (fleet, seq, notice, sha256, previous_sha256, at, delivered_at) VALUES ($1, $2, $3, $4, $5, $6, $7)',
      [fleet, seq, notice, sha256, previousSha256, at, audit.at],
    )
    for (const { gid, bound, reason = null } of rules) {
      await addGroup(tx, fleet, gid)
      await tx.run(
        'adopt-close',
        `UPDATE groups SET bound = greatest(coalesce(bound, 0), $1), reason = coalesce(reason, $2), closed_seq = coalesce(closed_seq, $3)
         WHERE fleet = $4 AND gid = $5`,
        [bound, reason, seq, fleet, gid],
      )
    }
    for (const set of setsOf(adopted)) await keepSet(tx, fleet, seq, set, null)
    tx.audit(audit)
    return 'adopted'
  },
}
