// The hot path of the SQLite driver: what is asked before a certificate and written for it. All of it runs on the writing connection, inside
// the writer's transaction: its page cache survives the writer's own commits, while a reading connection drops its cache at each of them,
// and an enrollment that reads after every commit would read from the file. `= +?` and not `= ?`: SQLite 3.54 plans a statement of several tables
// anew at each call when a column is compared with a bare parameter, which costs more than to run it. A unary plus changes neither value nor plan.

import type { DatabaseSync } from 'node:sqlite'
import type { DeviceHold } from './quarantine.ts'
import type { RevokedIndices } from './sqlite-revoked-indices.ts'
import {
  type CertificateSqlRow,
  certificateRecord,
  certificateSelect,
  type DeviceSqlRow,
  deviceColumns,
  deviceRecord,
  prepare,
  prepareList,
} from './sqlite-rows.ts'
import type { ScepWork } from './sqlite-scep.ts'
import type { AuditEntry, CertificateRecord, EnrollmentFacts, IntentConflict, IssuanceIntent, IssuedRecord } from './store.ts'

export interface FactsQuery {
  fleet: string
  deviceId: string
  spkiSha256: Uint8Array
  contentSha256: Uint8Array
}

export interface IssuanceWrites {
  /** Writes nothing. */
  enrollmentFacts(query: FactsQuery): EnrollmentFacts
  /** The first of `count` indices that nobody has been given. */
  leaseIdx(lease: { fleet: string; count: number }): number
  recordIntent(intent: IssuanceIntent): { kind: 'recorded' } | { kind: 'conflict'; on: IntentConflict }
  recordCertificate(issued: IssuedRecord): 'recorded' | 'conflict'
  voidIntent(intent: { issuer: Uint8Array; serial: Uint8Array; audit: AuditEntry }): boolean
}

/** What the writes share: the audit chain of the session, the latest time seen, and which groups are closed. */
export interface IssuanceSession {
  audit(entry: AuditEntry): void
  seen(at: number): void
  isClosed(fleet: string, gid: number): boolean
  /** What a campaign has made of the device with this key. */
  hold(fleet: string, key: number): DeviceHold | null
  revoked: RevokedIndices
  /** Whether the store's roll-over lets this issuer sign. */
  maySign(issuer: Uint8Array): boolean
  /** Whether the fleet is served by these profiles. */
  areNewest(fleet: string, profiles: Uint8Array): boolean
  scep: ScepWork
}

/** Keys of certificates but for `birthHolder`, an id. */
type KnownBeside = [at: number, latest: number | null, holder: number | null, birthHolder: string | null, same: number | null]
type Nulls<List> = { [I in keyof List]: null }

const same = (a: Uint8Array | null, b: Uint8Array | null) => (a === null || b === null ? a === b : Buffer.compare(a, b) === 0)

export function issuanceWrites(db: DatabaseSync, session: IssuanceSession): IssuanceWrites {
  const { audit, isClosed, revoked, scep } = session

  // One statement, since each costs as much to call as to run: the device, the time, and by whom the key and the content are known.
  const known = prepareList<[...KnownBeside, ...(DeviceSqlRow | Nulls<DeviceSqlRow>)]>(
    db,
    `SELECT c.at, d.latest,
       (SELECT max(key) FROM issuances WHERE spki_sha256 = +?3 AND state = 'issued'),
       (SELECT id FROM devices WHERE birth_spki_sha256 = +?3),
       CASE WHEN d.latest IS NULL THEN NULL ELSE (SELECT key FROM issuances WHERE device = d.key AND content_sha256 = +?4 AND state = 'issued'
         ORDER BY epoch DESC LIMIT 1) END,
       ${deviceColumns.replace(/\w+/g, 'd.$&')}
     FROM clock c LEFT JOIN devices d ON d.fleet = +?1 AND d.id = +?2`,
  )
  const certificateByKey = prepareList<CertificateSqlRow>(db, `${certificateSelect} WHERE i.key = +?`)

  // One statement again: the device and its last certificate, whether the key is another's, whether an earlier intent is open.
  const deviceState = prepareList<
    [version: number, idxFloor: number, idx: number | null, issuer: Uint8Array | null, elsewhere: number, open: number]
  >(
    db,
    `SELECT d.version, d.idx_floor, i.idx, i.issuer,
       EXISTS (SELECT 1 FROM issuances WHERE spki_sha256 = +?2 AND device <> ?1 AND state <> 'void'),
       EXISTS (SELECT 1 FROM issuances WHERE device = +?1 AND state = 'intent')
     FROM devices d LEFT JOIN issuances i ON i.key = d.latest WHERE d.key = +?1`,
  )
  const deviceIdOf = prepare<{ id: string }>(db, 'SELECT id FROM devices WHERE key = ?')
  const secretByHash = prepare<{ device: number; expires_at: number; content_sha256: Uint8Array | null; issued: number }>(
    db,
    'SELECT device, expires_at, content_sha256, issued FROM secrets WHERE hash = ?',
  )
  const consentById = prepare(
    db,
    `SELECT 1 FROM approvals WHERE id = ? AND fleet = ? AND state = 'approved' AND content_sha256 = ? AND epoch = ? AND expires_at > ?`,
  )
  const spendSecret = prepare(db, 'UPDATE secrets SET content_sha256 = ? WHERE hash = ?')
  const closeSecret = prepare(db, 'UPDATE secrets SET issued = 1 WHERE hash = ?')
  const insertIntent = prepare(
    db,
    `INSERT INTO issuances (issuer, serial, fleet, idx, device, gids, spki_sha256, content_sha256, epoch, not_before, not_after, state, secret,
       request_id, started_at, der) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'intent', ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
  )
  const serialTaken = prepare(db, 'SELECT 1 FROM issuances WHERE issuer = ? AND serial = ?')
  const idxTaken = prepare(db, 'SELECT 1 FROM issuances WHERE fleet = ? AND idx = ?')
  const nextIdx = prepare<{ next: number }>(
    db,
    `SELECT max(coalesce((SELECT max(idx) + 1 FROM issuances WHERE fleet = ?1), 1), coalesce((SELECT max(bound) FROM groups WHERE fleet = ?1), 1),
       coalesce((SELECT next FROM idx_leases WHERE fleet = ?1), 1)) AS next`,
  )
  const leaseTo = prepare(db, 'INSERT INTO idx_leases VALUES (?, ?) ON CONFLICT (fleet) DO UPDATE SET next = excluded.next')
  const openOfDevice = prepare<{ issuer: Uint8Array; serial: Uint8Array; fleet: string; request_id: string }>(
    db,
    `SELECT issuer, serial, fleet, request_id FROM issuances WHERE device = ? AND state = 'intent' AND serial <> ?`,
  )
  const voidOpen = prepare(
    db,
    `UPDATE issuances SET state = 'void', voided = key, finished_at = ? WHERE issuer = ? AND serial = ? AND state = 'intent'`,
  )
  // Asked and then written by row number: cheaper than one statement with RETURNING, which gathers its rows aside.
  const openBySerial = prepareList<[key: number, device: number, secret: Uint8Array | null]>(
    db,
    `SELECT key, device, secret FROM issuances WHERE issuer = ? AND serial = ? AND state = 'intent'`,
  )
  const issue = prepare(db, `UPDATE issuances SET state = 'issued', der = ?, finished_at = ? WHERE key = ?`)
  const moveDevice = prepare(
    db,
    `UPDATE devices SET latest = ?, version = version + 1, idx_floor = max(idx_floor, ?), supersedes = ?, supersedes_since = ?, seen_at = ?
     WHERE key = ?`,
  )

  const isHeld = (key: number, idxFloor: number, last: CertificateRecord | null) =>
    revoked.isClosed(key) || (last !== null && last.idx >= idxFloor && revoked.isRevoked(last.fleet, last.idx, last.issuer))

  function voidOthers(intent: IssuanceIntent): number {
    const open = openOfDevice.all(intent.device, intent.serial)
    for (const other of open) {
      voidOpen.run(intent.at, other.issuer, other.serial)
      const detail = `serial ${Buffer.from(other.serial).toString('hex')} given up for request ${intent.requestId}`
      const { fleet, request_id: requestId } = other
      const device = deviceIdOf.get(intent.device)!.id
      audit({ at: intent.at, kind: 'intent_voided', requestId, fleet, device, by: '', code: '', detail })
    }
    return open.length
  }

  return {
    enrollmentFacts({ fleet, deviceId, spkiSha256, contentSha256 }) {
      const [at, latestKey, holderKey, birthKeyHolder, sameKey, ...row] = known(fleet, deviceId, spkiSha256, contentSha256)!
      const recordOf = (key: number | null) => (key === null ? null : certificateRecord(certificateByKey(key)))
      const latest = recordOf(latestKey)
      const holder = holderKey === latestKey ? latest : recordOf(holderKey)
      const isRevoked = (key: number, idxFloor: number) => isHeld(key, idxFloor, latest)
      return {
        device: row[0] === null ? null : deviceRecord(row as DeviceSqlRow, isClosed, session.hold, isRevoked),
        latest,
        same: sameKey === latestKey ? latest : recordOf(sameKey),
        keyHolder: holder && { deviceId: holder.deviceId, fleet: holder.fleet, idx: holder.idx },
        birthKeyHolder,
        lastTime: at,
      }
    },

    leaseIdx({ fleet, count }) {
      const { next } = nextIdx.get(fleet)!
      leaseTo.run(fleet, next + count)
      return next
    },

    recordIntent(i) {
      const conflict = (on: IntentConflict) => ({ kind: 'conflict' as const, on })
      const device = deviceState(i.device, i.spkiSha256)
      if (device === undefined) return conflict('device')
      const [version, idxFloor, last, lastIssuer, elsewhere, open] = device
      if (version !== i.deviceVersion) return conflict('device')
      // Quarantine is no change of the device's row: a set holds it, from that set's commit on.
      if (session.hold(i.fleet, i.device) !== (i.hold ?? null)) return conflict('device')
      // Indices order a device's certificates; another process may have drawn the last one from a higher block.
      if (last !== null && last >= i.idx) return conflict('idx')
      // From the commit of a revocation on, nothing is issued to whom it names, by whom it names, or under an idx that it covers.
      if (revoked.isClosed(i.device)) return conflict('device')
      if (last !== null && lastIssuer !== null && last >= idxFloor && revoked.isRevoked(i.fleet, last, lastIssuer))
        return conflict('device')
      if (revoked.isIssuerRevoked(i.fleet, i.issuer)) return conflict('issuer')
      if (revoked.isRevoked(i.fleet, i.idx, i.issuer)) return conflict('idx')
      if (!session.maySign(i.issuer)) return conflict('issuer')
      if (i.profiles && !session.areNewest(i.fleet, i.profiles)) return conflict('profiles')
      // Asked here and not only before: from the commit of a revocation on, no intent of its group gets in.
      if (i.gids.some(gid => isClosed(i.fleet, gid))) return conflict('group')
      // And from the commit of a denial on, nothing that was approved before.
      if (i.consent && consentById.get(i.consent, i.fleet, i.contentSha256, i.epoch, i.at) === undefined) return conflict('consent')
      // Two devices that ask with one key at the same moment have both been told that nobody holds it.
      if (elsewhere) return conflict('key')
      if (i.secret !== null) {
        const secret = secretByHash.get(i.secret)
        const fits = secret && secret.device === i.device && secret.expires_at > i.at && secret.issued === 0
        // Spent on another request content: used. On this one, with no certificate to show for it: an earlier attempt died.
        if (!fits || !(secret.content_sha256 === null || same(secret.content_sha256, i.contentSha256))) return conflict('secret')
      }
      if (i.transaction && scep.standsForAnother(i.transaction)) return conflict('transaction')
      const { issuer, serial, fleet, idx, spkiSha256, contentSha256, epoch, notBefore, notAfter, secret, requestId, at, tbs } = i
      const gids = JSON.stringify(i.gids)
      const insert = () =>
        insertIntent.run(
          ...[issuer, serial, fleet, idx, i.device, gids, spkiSha256, contentSha256, epoch, notBefore, notAfter],
          ...[secret, requestId, at, tbs],
        ).changes === 1
      if (!insert()) {
        if (serialTaken.get(issuer, serial)) return conflict('serial')
        if (idxTaken.get(fleet, idx)) return conflict('idx')
        // An attempt for the same content that died half-way stands in the way, or a certificate does.
        if (!open || voidOthers(i) === 0 || !insert()) return conflict('content')
      } else if (open) voidOthers(i)
      if (i.transaction) scep.writes.recordScepTransaction(i.transaction)
      if (secret !== null) spendSecret.run(contentSha256, secret)
      session.seen(at)
      return { kind: 'recorded' }
    },

    recordCertificate(r) {
      const open = openBySerial(r.issuer, r.serial)
      if (open === undefined) return 'conflict'
      const [key, device, secret] = open
      issue.run(r.der, r.at, key)
      moveDevice.run(key, r.idxFloor, r.supersedes, r.supersedesSince, r.at, device)
      if (secret !== null) closeSecret.run(secret)
      audit(r.audit)
      return 'recorded'
    },

    voidIntent(v) {
      if (voidOpen.run(v.audit.at, v.issuer, v.serial).changes !== 1) return false
      audit(v.audit)
      return true
    },
  }
}
