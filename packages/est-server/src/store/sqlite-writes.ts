// Every write of the SQLite driver, as a function of an open transaction: check the preconditions, then write, answer `conflict` without
// having written. Run by the writer thread only (sqlite-writer.ts), which owns BEGIN and COMMIT; a thrown error rolls back.

import type { DatabaseSync } from 'node:sqlite'
import { auditHash, boundEntry, chainStart } from './audit-chain.ts'
import { type ApprovalWrites, approvalWrites } from './sqlite-approvals.ts'
import { type CrlWrites, crlWrites } from './sqlite-crl.ts'
import { type IssuerWrites, issuerWrites } from './sqlite-issuers.ts'
import { manifestWrites } from './sqlite-manifest.ts'
import { type NoticeWrites, noticeWrites } from './sqlite-notice.ts'
import { type NumberWrites, numberWrites } from './sqlite-numbers.ts'
import { type DeviceSqlRow, deviceColumns, deviceRecord, prepare } from './sqlite-rows.ts'
import { type ScepWrites, scepWrites } from './sqlite-scep.ts'
import { type TokenWrites, tokenWrites } from './sqlite-token.ts'
import type {
  AuditEntry,
  DeviceRecord,
  IntentConflict,
  IssuanceIntent,
  IssuedRecord,
  ManifestEntry,
  ManifestReport,
  NewDevice,
  NewSecret,
  RevocationRecord,
  SecretOutcome,
} from './store.ts'

export interface Writes extends ApprovalWrites, CrlWrites, IssuerWrites, NoticeWrites, NumberWrites, ScepWrites, TokenWrites {
  admitDevice(device: NewDevice): DeviceRecord | null
  /** The first of `count` indices that nobody has been given. */
  leaseIdx(lease: { fleet: string; count: number }): number
  recordIntent(intent: IssuanceIntent): { kind: 'recorded' } | { kind: 'conflict'; on: IntentConflict }
  recordCertificate(issued: IssuedRecord): 'recorded' | 'conflict'
  voidIntent(intent: { issuer: Uint8Array; serial: Uint8Array; audit: AuditEntry }): boolean
  acceptTime(audit: AuditEntry): null
  setSuspicion(mark: { fleet: string; id: string; suspected: boolean; audit: AuditEntry }): boolean
  raiseFloor(used: { fleet: string; id: string; idx: number; audit: AuditEntry }): boolean
  importManifest(chunk: { fleet: string; entries: ManifestEntry[]; audit: AuditEntry }): ManifestReport
  mintSecret(secret: NewSecret): SecretOutcome
  recordRevocation(revocation: RevocationRecord): 'recorded' | 'conflict'
  outboxDelivered(delivery: { fleet: string; seq: number; at: number }): null
  appendAudit(entry: AuditEntry): null
}

export interface WriteSession {
  writes: Writes
  /** To be called in each transaction before COMMIT: moves the store's clock to the latest time that the writes carried, bar appendAudit and raiseFloor. */
  settle(): void
  /** To be called after ROLLBACK: forgets what was remembered of undone writes. */
  forget(): void
}

const same = (a: Uint8Array | null, b: Uint8Array | null) => (a === null || b === null ? a === b : Buffer.compare(a, b) === 0)

export function writeSession(db: DatabaseSync): WriteSession {
  let latestTime = -1
  let last: { n: number; hash: Uint8Array } | null = null
  const lastAudit = prepare<{ n: number; hash: Uint8Array }>(db, 'SELECT n, hash FROM audit ORDER BY n DESC LIMIT 1')
  const insertAudit = prepare(db, 'INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)')
  const moveClock = prepare(db, 'UPDATE clock SET at = max(at, ?)')
  const setClock = prepare(db, 'UPDATE clock SET at = ?')

  function record(unbounded: AuditEntry): void {
    const e = boundEntry(unbounded)
    // Read in every transaction, since another process may have appended: the end of the table costs a microsecond.
    const previous = last ?? lastAudit.get() ?? { n: 0, hash: chainStart }
    const n = previous.n + 1
    const hash = auditHash(previous.hash, n, e)
    insertAudit.run(n, e.at, e.kind, e.requestId, e.fleet, e.device, e.by, e.code, e.detail, hash)
    last = { n, hash }
  }

  function audit(entry: AuditEntry): void {
    record(entry)
    latestTime = Math.max(latestTime, entry.at)
  }

  const closedGroup = prepare(db, 'SELECT 1 FROM groups WHERE fleet = ? AND gid = ? AND bound IS NOT NULL')
  const isClosed = (fleet: string, gid: number) => closedGroup.get(fleet, gid) !== undefined
  const deviceByKey = prepare<DeviceSqlRow>(db, `SELECT ${deviceColumns} FROM devices WHERE key = ?`)
  const deviceById = prepare<DeviceSqlRow>(db, `SELECT ${deviceColumns} FROM devices WHERE fleet = ? AND id = ?`)
  const manifest = manifestWrites(db)
  const scep = scepWrites(db)
  const issuers = issuerWrites(db, audit)
  const crl = crlWrites(db, at => {
    latestTime = Math.max(latestTime, at)
  })

  const secretByHash = prepare<{ device: number; expires_at: number; content_sha256: Uint8Array | null; issued: number }>(
    db,
    'SELECT device, expires_at, content_sha256, issued FROM secrets WHERE hash = ?',
  )
  const spendSecret = prepare(db, 'UPDATE secrets SET content_sha256 = ? WHERE hash = ?')
  const closeSecret = prepare(db, 'UPDATE secrets SET issued = 1 WHERE hash = ?')
  const insertSecret = prepare(db, 'INSERT INTO secrets (hash, device, expires_at, minted_at) VALUES (?, ?, ?, ?)')

  const insertIntent = prepare<{ key: number }>(
    db,
    `INSERT INTO issuances (issuer, serial, fleet, idx, device, gids, spki_sha256, content_sha256, epoch, not_before, not_after, state, secret,
       request_id, started_at, der) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'intent', ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
  )
  const serialTaken = prepare(db, 'SELECT 1 FROM issuances WHERE issuer = ? AND serial = ?')
  const idxTaken = prepare(db, 'SELECT 1 FROM issuances WHERE fleet = ? AND idx = ?')
  const idxOf = prepare<{ idx: number }>(db, 'SELECT idx FROM issuances WHERE key = ?')
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
    `UPDATE issuances SET state = 'void', finished_at = ? WHERE issuer = ? AND serial = ? AND state = 'intent'`,
  )
  const issueOpen = prepare<{ key: number; device: number; secret: Uint8Array | null }>(
    db,
    `UPDATE issuances SET state = 'issued', der = ?, finished_at = ? WHERE issuer = ? AND serial = ? AND state = 'intent'
     RETURNING key, device, secret`,
  )
  const moveDevice = prepare(
    db,
    `UPDATE devices SET latest = ?, version = version + 1, idx_floor = max(idx_floor, ?), supersedes = ?, supersedes_since = ?, seen_at = ?
     WHERE key = ?`,
  )

  function voidOthers(intent: IssuanceIntent, deviceId: string): number {
    const open = openOfDevice.all(intent.device, intent.serial)
    for (const other of open) {
      voidOpen.run(intent.at, other.issuer, other.serial)
      const detail = `serial ${Buffer.from(other.serial).toString('hex')} given up for request ${intent.requestId}`
      audit({
        at: intent.at,
        kind: 'intent_voided',
        requestId: other.request_id,
        fleet: other.fleet,
        device: deviceId,
        by: '',
        code: '',
        detail,
      })
    }
    return open.length
  }

  const mark = prepare(
    db,
    `UPDATE devices SET suspected_at = ?, supersedes = CASE WHEN ? THEN supersedes ELSE 0 END, version = version + 1
     WHERE fleet = ? AND id = ?`,
  )
  const raise = prepare(db, 'UPDATE devices SET idx_floor = ?, version = version + 1 WHERE fleet = ? AND id = ? AND idx_floor < ?')
  const groupByGid = prepare<{ bound: number | null }>(db, 'SELECT bound FROM groups WHERE fleet = ? AND gid = ?')
  const lastNotice = prepare<{ seq: number; sha256: Uint8Array }>(
    db,
    'SELECT seq, sha256 FROM notices WHERE fleet = ? ORDER BY seq DESC LIMIT 1',
  )
  const issuedBeyond = prepare(
    db,
    `SELECT 1 FROM issuances WHERE fleet = ? AND idx >= ? AND EXISTS (SELECT 1 FROM json_each(issuances.gids) WHERE value = ?) LIMIT 1`,
  )
  const closeGroup = prepare(db, 'UPDATE groups SET bound = ?, reason = ?, closed_seq = ? WHERE fleet = ? AND gid = ?')
  const insertNotice = prepare(
    db,
    'INSERT INTO notices (fleet, seq, notice, sha256, previous_sha256, at) VALUES (?, ?, ?, ?, ?, ?)',
  )
  const deliver = prepare(db, 'UPDATE notices SET delivered_at = ? WHERE fleet = ? AND seq = ? AND delivered_at IS NULL')

  const writes: Writes = {
    admitDevice(d) {
      const seen = manifest.admit(d.fleet, d.id, d.birthSpkiSha256, d.groups, d.at)
      if (seen === 'refused') return null
      if (seen !== 'unchanged') audit(d.audit)
      return deviceRecord(deviceById.get(d.fleet, d.id)!, isClosed)
    },

    leaseIdx({ fleet, count }) {
      const { next } = nextIdx.get(fleet)!
      leaseTo.run(fleet, next + count)
      return next
    },

    recordIntent(i) {
      const conflict = (on: IntentConflict) => ({ kind: 'conflict' as const, on })
      const device = deviceByKey.get(i.device)
      if (device === undefined || device.version !== i.deviceVersion) return conflict('device')
      // Indices order a device's certificates; another process may have drawn the last one from a higher block.
      if (device.latest !== null && idxOf.get(device.latest)!.idx >= i.idx) return conflict('idx')
      if (!issuers.maySign(i.issuer)) return conflict('issuer')
      // Asked here and not only before: from the commit of a revocation on, no intent of its group gets in.
      if (i.gids.some(gid => isClosed(i.fleet, gid))) return conflict('group')
      if (i.secret !== null) {
        const secret = secretByHash.get(i.secret)
        const fits = secret && secret.device === i.device && secret.expires_at > i.at && secret.issued === 0
        // Spent on another request content: used. On this one, with no certificate to show for it: an earlier attempt died.
        if (!fits || !(secret.content_sha256 === null || same(secret.content_sha256, i.contentSha256))) return conflict('secret')
      }
      if (i.transaction && scep.standsForAnother(i.transaction)) return conflict('transaction')
      const insert = () =>
        insertIntent.run(
          i.issuer,
          i.serial,
          i.fleet,
          i.idx,
          i.device,
          JSON.stringify(i.gids),
          i.spkiSha256,
          i.contentSha256,
          i.epoch,
          i.notBefore,
          i.notAfter,
          i.secret,
          i.requestId,
          i.at,
          i.tbs,
        ).changes === 1
      if (!insert()) {
        if (serialTaken.get(i.issuer, i.serial)) return conflict('serial')
        if (idxTaken.get(i.fleet, i.idx)) return conflict('idx')
        // An attempt for the same content that died half-way stands in the way, or a certificate does.
        if (voidOthers(i, device.id) === 0 || !insert()) return conflict('content')
      } else voidOthers(i, device.id)
      if (i.transaction) scep.writes.recordScepTransaction(i.transaction)
      if (i.secret !== null) spendSecret.run(i.contentSha256, i.secret)
      latestTime = Math.max(latestTime, i.at)
      return { kind: 'recorded' }
    },

    recordCertificate(r) {
      const row = issueOpen.get(r.der, r.at, r.issuer, r.serial)
      if (row === undefined) return 'conflict'
      moveDevice.run(row.key, r.idxFloor, r.supersedes, r.supersedesSince, r.at, row.device)
      if (row.secret !== null) closeSecret.run(row.secret)
      audit(r.audit)
      return 'recorded'
    },

    voidIntent(v) {
      if (voidOpen.run(v.audit.at, v.issuer, v.serial).changes !== 1) return false
      audit(v.audit)
      return true
    },

    acceptTime(entry) {
      audit(entry)
      setClock.run(entry.at)
      latestTime = -1
      return null
    },

    setSuspicion({ fleet, id, suspected, audit: entry }) {
      if (mark.run(suspected ? entry.at : null, suspected ? 1 : 0, fleet, id).changes !== 1) return false
      audit(entry)
      return true
    },

    raiseFloor({ fleet, id, idx, audit: entry }) {
      if (raise.run(idx, fleet, id, idx).changes !== 1) return false
      record(entry)
      return true
    },

    importManifest({ fleet, entries, audit: entry }) {
      const report = manifest.importEntries(fleet, entries, entry.at)
      const detail = `${report.added} added, ${report.updated} updated, ${report.unchanged} unchanged, ${report.refused.length} refused`
      audit({ ...entry, detail: entry.detail ? `${entry.detail}: ${detail}` : detail })
      return report
    },

    mintSecret(s) {
      const lacking = manifest.lacking(s.fleet, s.deviceId, s.groups)
      if (lacking !== null) return { kind: 'not_in_group', group: lacking }
      if (manifest.admit(s.fleet, s.deviceId, null, s.groups, s.at) === 'refused') return { kind: 'groups_full' }
      insertSecret.run(s.hash, deviceById.get(s.fleet, s.deviceId)!.key, s.expiresAt, s.at)
      audit(s.audit)
      return { kind: 'minted' }
    },

    recordRevocation(r) {
      const notice = lastNotice.get(r.fleet) ?? { seq: 0, sha256: null }
      const group = groupByGid.get(r.fleet, r.gid)
      if (group === undefined || group.bound !== null || notice.seq !== r.seq - 1 || !same(notice.sha256, r.previousSha256))
        return 'conflict'
      // A certificate of the group that was recorded since the draft would escape the bound.
      if (issuedBeyond.get(r.fleet, r.bound, r.gid)) return 'conflict'
      closeGroup.run(r.bound, r.reason, r.seq, r.fleet, r.gid)
      insertNotice.run(r.fleet, r.seq, r.notice, r.noticeSha256, r.previousSha256, r.at)
      audit(r.audit)
      return 'recorded'
    },

    outboxDelivered(d) {
      deliver.run(d.at, d.fleet, d.seq)
      return null
    },

    appendAudit(entry) {
      // The clock stays: anybody can be refused, and a refusal in a second of wrong time must not halt issuance for as long as it was wrong.
      record(entry)
      return null
    },

    ...crl,
    ...tokenWrites(db),
    ...noticeWrites(db, audit),
    ...scep.writes,
    ...approvalWrites(db, audit),
    ...issuers.writes,
    ...numberWrites(db, audit),
  }

  return {
    writes,
    settle() {
      if (latestTime >= 0) moveClock.run(latestTime)
      latestTime = -1
      last = null
      issuers.forget()
    },
    forget() {
      latestTime = -1
      last = null
      issuers.forget()
    },
  }
}
