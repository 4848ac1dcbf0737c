// Revocation lists in SQLite: the reads and writes of crl.ts.

import type { DatabaseSync } from 'node:sqlite'
import type { CertificateStanding, CrlHead, CrlRecord, DatedRule, SerialQuery, SerialRun } from './crl.ts'
import { prepare, prepareNumber } from './sqlite-rows.ts'

export interface CrlWrites {
  reserveCrlNumber(reservation: { issuer: Uint8Array; at: number }): number
  recordCrl(crl: CrlRecord): 'recorded' | 'conflict'
  raiseCrlNumber(mark: { issuer: Uint8Array; number: number }): null
}

/** Sets of groups that are remembered parsed: as many as a fleet has combinations of batch and model in use at a time. */
const gidSetsMax = 1024

/** `scanning`: a connection with a small page cache, so that reading a fleet from end to end takes neither memory nor anybody's warm pages. */
export function crlReads(db: DatabaseSync, scanning: DatabaseSync) {
  // Asked in every turn that has a question, mostly alone: not worth a read transaction of the other connection.
  // Half the cost of max(seq), which is an aggregate.
  const lastSeq = prepareNumber(scanning, 'SELECT seq FROM notices WHERE fleet = ? ORDER BY seq DESC LIMIT 1')
  const noticeCount = prepare<{ seq: number }>(scanning, 'SELECT count(*) AS seq FROM notices')
  // As fresh as the count that was read before them, under which they are remembered: in a turn's snapshot they might lack what it counted.
  const rules = prepare<DatedRule>(
    scanning,
    `SELECT g.gid, g.bound, g.reason, n.at FROM groups g JOIN notices n ON n.fleet = g.fleet AND n.seq = g.closed_seq
     WHERE g.fleet = ? AND g.bound IS NOT NULL ORDER BY g.gid`,
  )
  // From name to name through the index, instead of over all its entries.
  const fleets = prepare<{ fleet: string }>(
    db,
    `WITH RECURSIVE f (fleet) AS (SELECT min(fleet) FROM issuances UNION ALL
       SELECT (SELECT min(fleet) FROM issuances WHERE fleet > f.fleet) FROM f WHERE f.fleet IS NOT NULL)
     SELECT fleet FROM f WHERE fleet IS NOT NULL`,
  )
  const lastIdx = prepare<{ idx: number | null }>(db, 'SELECT max(idx) AS idx FROM issuances WHERE fleet = ?')
  // Joined in SQLite and as hex, since aggregates know only text: 1.2 µs a certificate, where a row of its own is 2.8.
  const serials = prepare<{ gids: string; octets: number; serials: string }>(
    scanning,
    `SELECT gids, length(serial) AS octets, group_concat(hex(serial), '') AS serials FROM issuances
     WHERE fleet = ? AND idx >= ? AND idx < ? AND issuer = ? AND state <> 'void' AND not_after >= ? GROUP BY gids, octets`,
  )
  const standing = prepare<{ fleet: string; idx: number; gids: string; seq: number | null }>(
    db,
    `SELECT fleet, idx, gids, (SELECT max(seq) FROM notices n WHERE n.fleet = i.fleet) AS seq FROM issuances i
     WHERE issuer = ? AND serial = ? AND state = 'issued'`,
  )
  const head = 'number, revocations, this_update AS thisUpdate, next_update AS nextUpdate'
  const crlHead = prepare<CrlHead>(db, `SELECT ${head} FROM crls WHERE issuer = ? AND list = ?`)
  const crl = prepare<CrlRecord>(db, `SELECT issuer, list, ${head}, der FROM crls WHERE issuer = ? AND list = ?`)
  const numbers = prepare<{ issuer: Uint8Array; number: number }>(db, 'SELECT issuer, number FROM crl_numbers')

  const gidSets = new Map<string, number[]>()
  const gidsOf = (text: string): number[] => {
    let gids = gidSets.get(text)
    if (gids === undefined) {
      gids = JSON.parse(text) as number[]
      if (gidSets.size >= gidSetsMax) gidSets.clear()
      gidSets.set(text, gids)
    }
    return gids
  }

  return {
    revocations: (fleet: string | null): number => (fleet === null ? noticeCount.get()!.seq : (lastSeq(fleet) ?? 0)),
    datedRules: (fleet: string): DatedRule[] => rules.all(fleet).map(rule => ({ ...rule })),
    fleets: (): string[] => fleets.all().map(row => row.fleet),
    lastIdx: (fleet: string): number => lastIdx.get(fleet)?.idx ?? 0,
    serials: ({ issuer, fleet, from, to, since }: SerialQuery): SerialRun[] =>
      serials.all(fleet, from, to, issuer, since).map(row => ({
        gids: gidsOf(row.gids),
        serialBytes: row.octets,
        serials: Buffer.from(row.serials, 'hex'),
      })),
    standing(issuer: Uint8Array, serial: Uint8Array): CertificateStanding | null {
      const row = standing.get(issuer, serial)
      return row === undefined ? null : { fleet: row.fleet, idx: row.idx, gids: gidsOf(row.gids), revocations: row.seq ?? 0 }
    },
    crlHead(issuer: Uint8Array, list: string): CrlHead | null {
      const row = crlHead.get(issuer, list)
      return row === undefined ? null : { ...row }
    },
    crl(issuer: Uint8Array, list: string): CrlRecord | null {
      const row = crl.get(issuer, list)
      return row === undefined ? null : { ...row }
    },
    crlNumbers: () => numbers.all().map(row => ({ ...row })),
  }
}

/** `timeSeen`: moves the store's clock. */
export function crlWrites(db: DatabaseSync, timeSeen: (at: number) => void): CrlWrites {
  const reserve = prepare<{ number: number }>(
    db,
    'INSERT INTO crl_numbers VALUES (?, 1) ON CONFLICT DO UPDATE SET number = number + 1 RETURNING number',
  )
  const raise = prepare(db, 'INSERT INTO crl_numbers VALUES (?, ?) ON CONFLICT DO UPDATE SET number = max(number, excluded.number)')
  const reserved = prepare(db, 'SELECT 1 FROM crl_numbers WHERE issuer = ? AND number >= ?')
  const keep = prepare(
    db,
    `INSERT INTO crls (issuer, list, number, revocations, this_update, next_update, der) VALUES (?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT DO UPDATE SET number = excluded.number, revocations = excluded.revocations, this_update = excluded.this_update,
       next_update = excluded.next_update, der = excluded.der WHERE excluded.number > number`,
  )
  return {
    reserveCrlNumber({ issuer, at }) {
      timeSeen(at)
      return reserve.get(issuer)!.number
    },
    recordCrl(c) {
      if (!reserved.get(c.issuer, c.number)) return 'conflict'
      const { changes } = keep.run(c.issuer, c.list, c.number, c.revocations, c.thisUpdate, c.nextUpdate, c.der)
      return changes === 1 ? 'recorded' : 'conflict'
    },
    raiseCrlNumber({ issuer, number }) {
      raise.run(issuer, number)
      return null
    },
  }
}
