// Certificates revoked otherwise than by group, in SQLite: the reads and writes of revoked-lists.ts.

import type { DatabaseSync } from 'node:sqlite'
import { type BitBlock, blockOf, blocksOfRange, hasNumber, orBits, packBits, unpackBits } from './bit-blocks.ts'
import type { SerialQuery } from './crl.ts'
import type {
  DatedSet,
  ListDraft,
  PlacedSerial,
  RevocableDevice,
  RevokedListStore,
  RevokedSet,
  SetOutcome,
  SetRecord,
  StandingSets,
} from './revoked-lists.ts'
import { heldAgainst, prepare } from './sqlite-rows.ts'
import type { AuditEntry, GroupRule } from './store.ts'
import { pageRowsMax } from './store.ts'

export interface RevokedListWrites {
  recordSet(record: SetRecord): SetOutcome
  readmitDevice(mark: { fleet: string; id: string; audit: AuditEntry }): boolean
}

/** Within a write: what a notice of this number revokes otherwise than by group. `changed` is its caller's to call. */
export type KeepSet = (fleet: string, seq: number, set: RevokedSet, reason: number | null) => void

type SetRow = Omit<DatedSet, 'blocks'>

/** `db`: sees every commit there is. `parts`: what the driver reads of a fleet anyway. */
export function revokedListReads(
  db: DatabaseSync,
  parts: { nextIdx(fleet: string): number; rules(fleet: string, limit: number): GroupRule[] },
) {
  const lastNotice = prepare<{ seq: number; sha256: Uint8Array }>(
    db,
    'SELECT seq, sha256 FROM notices WHERE fleet = ? ORDER BY seq DESC LIMIT 1',
  )
  const lastKey = prepare<{ key: number | null }>(db, 'SELECT max(key) AS key FROM issuances')
  const floor = prepare<{ floor: number | null }>(
    db,
    "SELECT max(start) AS floor FROM revoked_sets WHERE fleet = ? AND kind = 'floor'",
  )
  const device = prepare<{ key: number; latest: number | null; closed: number }>(
    db,
    `SELECT d.key, d.latest, ${heldAgainst('d')} AS closed FROM devices d WHERE d.fleet = ? AND d.id = ?`,
  )
  const live = prepare<{ idx: number }>(
    db,
    `SELECT idx FROM issuances WHERE device = ? AND state <> 'void' AND (key = ? OR state = 'intent' OR not_after >= ?) ORDER BY idx`,
  )
  const issuers = prepare<{ issuer: Uint8Array }>(
    db,
    "SELECT DISTINCT issuer FROM revoked_sets WHERE fleet = ? AND kind = 'issuer'",
  )
  const indices = prepare<BitBlock>(db, 'SELECT block, bits FROM revoked_indices WHERE fleet = ? ORDER BY block')
  const sets = prepare<SetRow>(
    db,
    `SELECT s.seq, s.kind, s.start, s.length, s.issuer, s.reason, n.at FROM revoked_sets s JOIN notices n ON n.fleet = s.fleet AND n.seq = s.seq
     WHERE s.fleet = ? AND s.seq > ? ORDER BY s.seq, s.kind`,
  )
  const blocks = prepare<BitBlock & { seq: number }>(
    db,
    'SELECT seq, block, bits FROM revoked_blocks WHERE fleet = ? AND seq > ? ORDER BY seq, block',
  )
  const placed = prepare<{ idx: number; gids: string; serial: Uint8Array }>(
    db,
    `SELECT idx, gids, serial FROM issuances
     WHERE fleet = ? AND idx >= ? AND idx < ? AND issuer = ? AND state <> 'void' AND not_after >= ? ORDER BY idx`,
  )
  const placedBy = prepare<{ idx: number; issuer: Uint8Array }>(
    db,
    `SELECT idx, issuer FROM issuances
     WHERE fleet = ? AND idx >= ? AND idx < ? AND state <> 'void' AND not_after >= ? ORDER BY idx`,
  )
  const count = prepare<{ devices: number }>(db, 'SELECT count(*) AS devices FROM devices WHERE fleet = ?')
  const ofGroup = prepare<{ idx: number }>(
    db,
    `SELECT idx FROM issuances i WHERE fleet = ? AND idx >= ? AND idx < ? AND EXISTS (SELECT 1 FROM json_each(i.gids) m WHERE m.value IN (SELECT value FROM json_each(?))) ORDER BY idx`,
  )
  const ofIssuer = prepare<{ idx: number }>(
    db,
    'SELECT idx FROM issuances WHERE fleet = ? AND idx >= ? AND idx < ? AND issuer = ? ORDER BY idx',
  )

  return {
    draftSet(fleet: string, rulesMax: number): ListDraft {
      const last = lastNotice.get(fleet)
      return {
        idxNext: parts.nextIdx(fleet),
        issued: lastKey.get()?.key ?? 0,
        seq: (last?.seq ?? 0) + 1,
        previousSha256: last?.sha256 ?? null,
        rules: parts.rules(fleet, rulesMax),
        floor: floor.get(fleet)?.floor ?? 0,
      }
    },
    revocableDevices: (fleet: string, ids: readonly string[], now: number): RevocableDevice[] =>
      ids.slice(0, pageRowsMax).flatMap(id => {
        const found = device.get(fleet, id)
        if (found === undefined) return []
        const { key, latest, closed } = found
        return [{ id, key, closed: closed === 1, indices: live.all(key, latest, now).map(({ idx }) => idx) }]
      }),
    standingSets: (fleet: string): StandingSets => ({
      floor: floor.get(fleet)?.floor ?? 0,
      issuers: issuers.all(fleet).map(({ issuer }) => issuer),
      blocks: indices.all(fleet).map(row => ({ ...row })),
    }),
    datedSets(fleet: string, after: number): DatedSet[] {
      const out: DatedSet[] = sets.all(fleet, after).map(row => ({ ...row, blocks: [] }))
      const bySeq = new Map(out.flatMap(set => (set.kind === 'list' ? [[set.seq, set] as const] : [])))
      for (const { seq, block, bits } of blocks.all(fleet, after)) bySeq.get(seq)?.blocks.push({ block, bits: unpackBits(bits) })
      return out
    },
    placedSerials: ({ issuer, fleet, from, to, since }: SerialQuery): PlacedSerial[] =>
      placed
        .all(fleet, from, to, issuer, since)
        .map(({ idx, gids, serial }) => ({ idx, gids: JSON.parse(gids) as number[], serial })),
    placedIssuers: ({ fleet, from, to, since }: Omit<SerialQuery, 'issuer'>) => placedBy.all(fleet, from, to, since),
    deviceCount: (fleet: string): number => count.get(fleet)?.devices ?? 0,
    indicesOf({ fleet, gids = [], issuer, from, to }: Parameters<RevokedListStore['indicesOf']>[0]): number[] {
      const rows = issuer ? ofIssuer.all(fleet, from, to, issuer) : ofGroup.all(fleet, from, to, JSON.stringify(gids))
      return rows.map(({ idx }) => idx)
    },
  }
}

/** `changed`: to be called when something is revoked or given back. */
export function revokedListWrites(
  db: DatabaseSync,
  audit: (entry: AuditEntry) => void,
  changed: () => void,
): { writes: RevokedListWrites; keepSet: KeepSet } {
  const lastNotice = prepare<{ seq: number; sha256: Uint8Array }>(
    db,
    'SELECT seq, sha256 FROM notices WHERE fleet = ? ORDER BY seq DESC LIMIT 1',
  )
  const insertNotice = prepare(
    db,
    'INSERT INTO notices (fleet, seq, notice, sha256, previous_sha256, at) VALUES (?, ?, ?, ?, ?, ?)',
  )
  const since = prepare<{ key: number; device: number; idx: number; state: string }>(
    db,
    `SELECT key, device, idx, state FROM issuances WHERE key > ? ORDER BY key`,
  )
  const insertSet = prepare(
    db,
    'INSERT INTO revoked_sets (fleet, seq, kind, start, length, issuer, reason) VALUES (?, ?, ?, ?, ?, ?, ?)',
  )
  const insertBlock = prepare(db, 'INSERT INTO revoked_blocks VALUES (?, ?, ?, ?)')
  const indexBlock = prepare<{ bits: Uint8Array }>(db, 'SELECT bits FROM revoked_indices WHERE fleet = ? AND block = ?')
  const keepIndices = prepare(
    db,
    'INSERT INTO revoked_indices VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET bits = excluded.bits WHERE bits <> excluded.bits',
  )
  const deviceBlock = prepare<{ bits: Uint8Array }>(db, 'SELECT bits FROM closed_devices WHERE block = ?')
  const keepDevices = prepare(
    db,
    'INSERT INTO closed_devices VALUES (?, ?) ON CONFLICT DO UPDATE SET bits = excluded.bits WHERE bits <> excluded.bits',
  )
  const lease = prepare(db, 'INSERT INTO idx_leases VALUES (?, ?) ON CONFLICT DO UPDATE SET next = max(next, excluded.next)')
  const held = prepare<{ key: number; held: number; idx: number | null }>(
    db,
    `SELECT d.key, ${heldAgainst('d')} AS held, i.idx FROM devices d LEFT JOIN issuances i ON i.key = d.latest WHERE d.fleet = ? AND d.id = ?`,
  )
  const readmit = prepare(db, 'UPDATE devices SET idx_floor = max(idx_floor, ?), version = version + 1 WHERE key = ?')

  /** What devices in `devices` were given since issuance `after`. */
  function givenSince(after: number, devices: BitBlock[]): { indices: number[]; issued: number } {
    const named = new Map(devices.map(({ block, bits }) => [block, bits]))
    const indices: number[] = []
    let issued = after
    for (const row of since.all(after)) {
      issued = row.key
      if (row.state !== 'void' && hasNumber(named.get(blockOf(row.device)), row.device)) indices.push(row.idx)
    }
    return { indices, issued }
  }

  function keepSet(fleet: string, seq: number, set: RevokedSet, reason: number | null): void {
    insertSet.run(fleet, seq, set.kind, set.start, set.length, set.issuer, reason)
    for (const { block, bits } of set.blocks) insertBlock.run(fleet, seq, block, packBits(bits))
    const named = set.kind === 'range' ? blocksOfRange(set.start, set.length) : set.blocks
    for (const { block, bits } of named) keepIndices.run(fleet, block, orBits(indexBlock.get(fleet, block)?.bits, bits))
    if (set.kind === 'range' || set.kind === 'floor') lease.run(fleet, set.start + set.length)
  }

  return {
    keepSet,
    writes: {
      recordSet({ fleet, set, reason, devices, issued, notices, at, audit: entry }) {
        const last = lastNotice.get(fleet)
        const [first] = notices
        const follows =
          first.seq === (last?.seq ?? 0) + 1 &&
          (last
            ? first.previousSha256 !== null && Buffer.compare(last.sha256, first.previousSha256) === 0
            : first.previousSha256 === null)
        if (!follows) return { kind: 'conflict' }
        const given = devices.length > 0 ? givenSince(issued, devices) : { indices: [], issued }
        if (given.indices.length > 0) return { kind: 'late', ...given }
        for (const n of notices) insertNotice.run(fleet, n.seq, n.notice, n.noticeSha256, n.previousSha256, at)
        keepSet(fleet, notices[notices.length - 1].seq, set, reason)
        for (const { block, bits } of devices) keepDevices.run(block, orBits(deviceBlock.get(block)?.bits, bits))
        changed()
        audit(entry)
        return { kind: 'recorded' }
      },
      readmitDevice({ fleet, id, audit: entry }) {
        const found = held.get(fleet, id)
        if (found?.held !== 1) return false
        const block = blockOf(found.key)
        const bits = deviceBlock.get(block)?.bits
        if (bits) {
          const left = new Uint8Array(bits)
          left[(found.key & 4095) >> 3] &= ~(1 << (found.key & 7))
          keepDevices.run(block, left)
        }
        readmit.run(found.idx === null ? 0 : found.idx + 1, found.key)
        changed()
        audit(entry)
        return true
      },
    },
  }
}
