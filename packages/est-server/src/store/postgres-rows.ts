// Rows of the PostgreSQL schema as records of the contract.

import type { DeviceHold } from './quarantine.ts'
import type { CertificateRecord, DeviceRecord } from './store.ts'

/** A statement by name: prepared once a connection. */
export type Rows = <Row>(name: string, sql: string, values?: unknown[]) => Promise<Row[]>

export interface DeviceSqlRow {
  key: number
  fleet: string
  id: string
  birth_spki_sha256: Uint8Array | null
  key_origin: 'device' | 'host' | 'unknown'
  gids: number[]
  closed_gids: number[]
  version: number
  idx_floor: number
  supersedes: number
  supersedes_since: number
  suspected_at: number | null
  known_at: number
  seen_at: number | null
  revoked: boolean
}

/**
 * The highest of an indexed column that is never null; 0 where there is no row. Read from the end of the index, where max() reads every row of a table
 * that PostgreSQL has not analysed yet.
 */
export const highest = (column: string, rows: string) =>
  `coalesce((SELECT ${column} FROM ${rows} ORDER BY ${column} DESC LIMIT 1), 0)`

/** What nextIdx of a fleet is, an expression for its name: above everything spent, bound or leased. */
export const nextIdx = (fleet: string) => `greatest(${highest('idx', `issuances WHERE fleet = ${fleet}`)} + 1,
  coalesce((SELECT max(bound) FROM groups WHERE fleet = ${fleet} AND bound IS NOT NULL), 1),
  coalesce((SELECT next FROM idx_leases WHERE fleet = ${fleet}), 1))`

/** Of an issuance under this name: a list, a range or a floor has it, or its issuer is revoked. */
export const revokedByItself = (
  i: string,
) => `(${i}.idx < ${highest('start', `revoked_sets WHERE fleet = ${i}.fleet AND kind = 'floor'`)}
  OR EXISTS (SELECT 1 FROM revoked_indices r WHERE r.fleet = ${i}.fleet AND r.block = ${i}.idx >> 12 AND get_bit(r.bits, ${i}.idx & 4095) = 1)
  OR EXISTS (SELECT 1 FROM revoked_sets r WHERE r.fleet = ${i}.fleet AND r.kind = 'issuer' AND r.issuer = ${i}.issuer))`

/** The last issuance of a device `d` as `l`: null in each column where it has none. */
export const joinLatest = 'LEFT JOIN issuances l ON l.key = d.latest'

/** Of a device `d` beside its last issuance `l`: as DeviceRecord.revoked. */
export const heldAgainst = `(EXISTS (SELECT 1 FROM closed_devices c WHERE c.block = d.key >> 12 AND get_bit(c.bits, d.key & 4095) = 1)
  OR coalesce(l.idx >= d.idx_floor AND ${revokedByItself('l')}, false))`

/** Of a device `d` beside its last issuance `l`. */
export const deviceColumns = `d.key, d.fleet, d.id, d.birth_spki_sha256, d.key_origin, d.gids,
  ARRAY (SELECT g.gid FROM groups g WHERE g.fleet = d.fleet AND g.gid = ANY (d.gids) AND g.bound IS NOT NULL ORDER BY g.gid) AS closed_gids,
  d.version, d.idx_floor, d.supersedes, d.supersedes_since, d.suspected_at, d.known_at, d.seen_at,
  ${heldAgainst} AS revoked`

export function deviceRecord(row: DeviceSqlRow, hold: DeviceHold | null): DeviceRecord {
  return {
    key: row.key,
    fleet: row.fleet,
    id: row.id,
    birthSpkiSha256: row.birth_spki_sha256,
    keyOrigin: row.key_origin,
    gids: row.gids,
    closedGids: row.closed_gids,
    version: row.version,
    idxFloor: row.idx_floor,
    supersedes: row.supersedes,
    supersedesSince: row.supersedes_since,
    suspectedAt: row.suspected_at,
    knownAt: row.known_at,
    seenAt: row.seen_at,
    hold,
    revoked: row.revoked,
  }
}

export interface CertificateSqlRow {
  issuer: Uint8Array
  serial: Uint8Array
  fleet: string
  device_id: string
  idx: number
  gids: number[]
  spki_sha256: Uint8Array
  content_sha256: Uint8Array
  epoch: number
  not_before: number
  not_after: number
  secret: Uint8Array | null
  der: Uint8Array
}

const columns = [
  'issuer',
  'serial',
  'fleet',
  'idx',
  'gids',
  'spki_sha256',
  'content_sha256',
  'epoch',
  'not_before',
  'not_after',
  'secret',
  'der',
]

/** Of an issuance under `alias`, each name behind `prefix`. */
export const certificateColumns = (alias: string, prefix = '') => columns.map(c => `${alias}.${c} AS ${prefix}${c}`).join(', ')

export const certificateSelect = `SELECT ${certificateColumns('i')}, d.id AS device_id FROM issuances i JOIN devices d ON d.key = i.device`

export function certificateRecord(row: CertificateSqlRow | undefined): CertificateRecord | null {
  if (row === undefined) return null
  return {
    issuer: row.issuer,
    serial: row.serial,
    fleet: row.fleet,
    deviceId: row.device_id,
    idx: row.idx,
    gids: row.gids,
    spkiSha256: row.spki_sha256,
    contentSha256: row.content_sha256,
    epoch: row.epoch,
    notBefore: row.not_before,
    notAfter: row.not_after,
    secret: row.secret,
    der: row.der,
  }
}

/** As `certificateRecord`, of columns behind `prefix`; the device is known from elsewhere. */
export function prefixedCertificate(row: Record<string, unknown>, prefix: string, deviceId: string): CertificateRecord | null {
  if (row[`${prefix}serial`] === null) return null
  const plain = Object.fromEntries(columns.map(c => [c, row[prefix + c]])) as unknown as CertificateSqlRow
  return certificateRecord({ ...plain, device_id: deviceId })
}
