// Rows of the SQLite schema as records of the contract, for the reader and the writer alike.

import type { DatabaseSync, SQLInputValue } from 'node:sqlite'
import type { DeviceHold } from './quarantine.ts'
import type { CertificateRecord, DeviceRecord } from './store.ts'

// A row is a list in the order of its columns: a record of the platform's own, a dictionary, costs nearly as much as the look-up.

export const deviceColumns =
  'key, fleet, id, birth_spki_sha256, key_origin, gids, version, latest, idx_floor, supersedes, supersedes_since, suspected_at, known_at, seen_at'

/** A row of `deviceColumns`. */
export type DeviceSqlRow = [
  key: number,
  fleet: string,
  id: string,
  birthSpkiSha256: Uint8Array | null,
  keyOrigin: DeviceRecord['keyOrigin'],
  gids: string,
  version: number,
  latest: number | null,
  idxFloor: number,
  supersedes: number,
  supersedesSince: number,
  suspectedAt: number | null,
  knownAt: number,
  seenAt: number | null,
]

export function deviceRecord(
  row: DeviceSqlRow,
  isClosed: (fleet: string, gid: number) => boolean,
  hold: (fleet: string, key: number) => DeviceHold | null,
  isRevoked: (key: number, idxFloor: number) => boolean,
): DeviceRecord {
  const [key, fleet, id, birthSpkiSha256, keyOrigin, gidsText, version, _latest, idxFloor, ...standing] = row
  const [supersedes, supersedesSince, suspectedAt, knownAt, seenAt] = standing
  const gids = JSON.parse(gidsText) as number[]
  return {
    key,
    fleet,
    id,
    birthSpkiSha256,
    keyOrigin,
    gids,
    closedGids: gids.filter(gid => isClosed(fleet, gid)),
    version,
    idxFloor,
    supersedes,
    supersedesSince,
    suspectedAt,
    knownAt,
    seenAt,
    hold: hold(fleet, key),
    revoked: isRevoked(key, idxFloor),
  }
}

export const certificateSelect = `SELECT i.issuer, i.serial, i.fleet, d.id, i.idx, i.gids, i.spki_sha256, i.content_sha256, i.epoch,
  i.not_before, i.not_after, i.secret, i.der FROM issuances i JOIN devices d ON d.key = i.device`

/** A row of `certificateSelect`. */
export type CertificateSqlRow = [
  issuer: Uint8Array,
  serial: Uint8Array,
  fleet: string,
  deviceId: string,
  idx: number,
  gids: string,
  spkiSha256: Uint8Array,
  contentSha256: Uint8Array,
  epoch: number,
  notBefore: number,
  notAfter: number,
  secret: Uint8Array | null,
  der: Uint8Array,
]

export function certificateRecord(row: CertificateSqlRow | undefined): CertificateRecord | null {
  if (row === undefined) return null
  const [issuer, serial, fleet, deviceId, idx, gidsText, spkiSha256, contentSha256, epoch, notBefore, notAfter, secret, der] = row
  const gids = JSON.parse(gidsText) as number[]
  return { issuer, serial, fleet, deviceId, idx, gids, spkiSha256, contentSha256, epoch, notBefore, notAfter, secret, der }
}

/** A prepared statement whose rows have a known shape. */
export interface Query<Row> {
  get(...values: SQLInputValue[]): Row | undefined
  all(...values: SQLInputValue[]): Row[]
  run(...values: SQLInputValue[]): { changes: number | bigint }
}

/** The one place where a statement's text is believed to give the rows its caller names. */
export function prepare<Row>(db: DatabaseSync, sql: string): Query<Row> {
  return db.prepare(sql) as unknown as Query<Row>
}

/** Of an issuance `i`: no closed group of its certificate covers it, so that only its end takes it out of use. Superseded or not: a relying
 * party knows the rules, and floors of devices are ours alone. */
export const unrevoked = `NOT EXISTS (SELECT 1 FROM json_each(i.gids) m CROSS JOIN groups g ON g.fleet = i.fleet AND g.gid = m.value WHERE g.bound > i.idx)
  AND NOT ${revokedByItself('i')}`

/** The first row, a list in the order of the columns. */
export function prepareList<Row extends unknown[]>(db: DatabaseSync, sql: string): (...values: SQLInputValue[]) => Row | undefined {
  const statement = db.prepare(sql)
  statement.setReturnArrays(true)
  return (...values) => statement.get(...values) as unknown as Row | undefined
}

/** The first column of the first row. */
export function prepareNumber(db: DatabaseSync, sql: string): (...values: SQLInputValue[]) => number | undefined {
  const first = prepareList<[number]>(db, sql)
  return (...values) => first(...values)?.[0]
}

/** Row by row, each a list in the order of the columns, for what is more than one answer should hold: half the cost of records. */
export function iterate<Row extends unknown[]>(db: DatabaseSync, sql: string, values: SQLInputValue[]): Iterable<Row> {
  const statement = db.prepare(sql)
  statement.setReturnArrays(true)
  return statement.iterate(...values) as unknown as Iterable<Row>
}

/** Bit `n & 4095` of a block, by the digits of its octet in hex: no connection needs a function of ours for it. */
function bitSet(bits: string, n: string): string {
  const octet = `hex(substr(${bits}, ((${n} & 4095) >> 3) + 1, 1))`
  return `(instr('123456789ABCDEF', substr(${octet}, 2 - ((${n} >> 2) & 1), 1)) >> (${n} & 3)) & 1`
}

/** Of an issuance under this name: a list, a range or a floor has it, or its issuer is revoked. */
function revokedByItself(i: string): string {
  return `(${i}.idx < coalesce((SELECT max(start) FROM revoked_sets WHERE fleet = ${i}.fleet AND kind = 'floor'), 0)
    OR EXISTS (SELECT 1 FROM revoked_indices r WHERE r.fleet = ${i}.fleet AND r.block = ${i}.idx >> 12 AND ${bitSet('r.bits', `${i}.idx`)})
    OR EXISTS (SELECT 1 FROM revoked_sets r WHERE r.fleet = ${i}.fleet AND r.kind = 'issuer' AND r.issuer = ${i}.issuer))`
}

/** Of a device under this name: as DeviceRecord.revoked. */
export function heldAgainst(d: string): string {
  return `(EXISTS (SELECT 1 FROM closed_devices c WHERE c.block = ${d}.key >> 12 AND ${bitSet('c.bits', `${d}.key`)})
    OR EXISTS (SELECT 1 FROM issuances l WHERE l.key = ${d}.latest AND l.idx >= ${d}.idx_floor AND ${revokedByItself('l')}))`
}
