// The numbers given out, in SQLite: the reads and writes of numbers.ts.

import type { DatabaseSync } from 'node:sqlite'
import { equalBytes } from '@birthmark/device-sdk/core'
import { chainStart } from './audit-chain.ts'
import {
  type AdoptedNotice,
  type Adoption,
  lostGroupName,
  mayFollow,
  type RaisedNumbers,
  type StoreNumbers,
  setsOf,
} from './numbers.ts'
import type { KeepSet } from './sqlite-revoked-lists.ts'
import { prepare } from './sqlite-rows.ts'
import type { AuditEntry } from './store.ts'

export interface NumberWrites {
  raiseNumbers(raised: RaisedNumbers): null
  adoptNotice(adopted: AdoptedNotice): Adoption
}

/** `nextIdx`: as the driver draws it. */
export function numberReads(db: DatabaseSync, nextIdx: (fleet: string) => number) {
  const end = prepare<{ n: number; hash: Uint8Array }>(db, 'SELECT n, hash FROM audit ORDER BY n DESC LIMIT 1')
  const gid = prepare<{ gid: number | null }>(db, 'SELECT max(gid) AS gid FROM groups WHERE fleet = ?')
  const seq = prepare<{ seq: number | null }>(db, 'SELECT max(seq) AS seq FROM notices WHERE fleet = ?')
  const crls = prepare<{ issuer: Uint8Array; number: number }>(db, 'SELECT issuer, number FROM crl_numbers ORDER BY issuer')
  return (fleets: string[]): StoreNumbers => ({
    audit: { ...(end.get() ?? { n: 0, hash: chainStart }) },
    fleets: fleets.map(fleet => ({ fleet, idx: nextIdx(fleet), gid: gid.get(fleet)?.gid ?? 0, seq: seq.get(fleet)?.seq ?? 0 })),
    crls: crls.all().map(row => ({ ...row })),
  })
}

/** `keepSet`: of revoked-lists. */
export function numberWrites(db: DatabaseSync, audit: (entry: AuditEntry) => void, keepSet: KeepSet): NumberWrites {
  const lease = prepare(db, 'INSERT INTO idx_leases VALUES (?, ?) ON CONFLICT DO UPDATE SET next = max(next, excluded.next)')
  const lastGid = prepare<{ gid: number | null }>(db, 'SELECT max(gid) AS gid FROM groups WHERE fleet = ?')
  const addGroup = prepare(db, 'INSERT INTO groups (fleet, gid, name) VALUES (?, ?, ?) ON CONFLICT DO NOTHING')
  const raiseCrl = prepare(
    db,
    'INSERT INTO crl_numbers VALUES (?, ?) ON CONFLICT DO UPDATE SET number = max(number, excluded.number)',
  )
  const held = prepare<{ sha256: Uint8Array }>(db, 'SELECT sha256 FROM notices WHERE fleet = ? AND seq = ?')
  const last = prepare<{ seq: number; sha256: Uint8Array }>(
    db,
    'SELECT seq, sha256 FROM notices WHERE fleet = ? ORDER BY seq DESC LIMIT 1',
  )
  const addNotice = prepare(
    db,
    'INSERT INTO notices (fleet, seq, notice, sha256, previous_sha256, at, delivered_at) VALUES (?, ?, ?, ?, ?, ?, ?)',
  )
  const close = prepare(
    db,
    `UPDATE groups SET bound = max(coalesce(bound, 0), ?1), reason = coalesce(reason, ?2), closed_seq = coalesce(closed_seq, ?3)
     WHERE fleet = ?4 AND gid = ?5`,
  )
  return {
    raiseNumbers({ fleets, crls, audit: entry }) {
      for (const { fleet, idx, gid } of fleets) {
        lease.run(fleet, idx)
        if (gid > (lastGid.get(fleet)?.gid ?? 0)) addGroup.run(fleet, gid, lostGroupName(gid))
      }
      for (const { issuer, number } of crls) raiseCrl.run(issuer, number)
      audit(entry)
      return null
    },
    adoptNotice({ fleet, seq, notice, sha256, previousSha256, at, rules, audit: entry, ...rest }) {
      const same = held.get(fleet, seq)
      if (same) return equalBytes(same.sha256, sha256) ? 'known' : 'taken'
      if (!mayFollow(last.get(fleet), { seq, previousSha256 })) return 'taken'
      addNotice.run(fleet, seq, notice, sha256, previousSha256, at, entry.at)
      for (const { gid, bound, reason = null } of rules) {
        addGroup.run(fleet, gid, lostGroupName(gid))
        close.run(bound, reason, seq, fleet, gid)
      }
      for (const set of setsOf(rest)) keepSet(fleet, seq, set, null)
      audit(entry)
      return 'adopted'
    },
  }
}
