// Every write of the SQLite driver, as a function of an open transaction: check the preconditions, then write, answer `conflict` without
// having written. Run by the writer thread only (sqlite-writer.ts), which owns BEGIN and COMMIT; a thrown error rolls back.

import type { DatabaseSync } from 'node:sqlite'
import { auditHash, boundEntry, chainStart } from './audit-chain.ts'
import type { PackedManifest } from './packed-manifest.ts'
import type { HoldsOfFleets } from './quarantine.ts'
import { type ApprovalWrites, approvalWrites } from './sqlite-approvals.ts'
import { type CampaignWrites, campaignWrites, rememberedHolds } from './sqlite-campaigns.ts'
import { closedGroups } from './sqlite-closed-groups.ts'
import { type CrlWrites, crlWrites } from './sqlite-crl.ts'
import { foreignWrites } from './sqlite-foreign-writes.ts'
import { type IssuanceWrites, issuanceWrites } from './sqlite-issuance.ts'
import { type IssuerWrites, issuerWrites } from './sqlite-issuers.ts'
import { manifestWrites } from './sqlite-manifest.ts'
import { type NoticeWrites, noticeWrites } from './sqlite-notice.ts'
import { type NumberWrites, numberWrites } from './sqlite-numbers.ts'
import { type ProfileSetWrites, profileSetWrites } from './sqlite-profile-sets.ts'
import { revokedIndices } from './sqlite-revoked-indices.ts'
import { type RevokedListWrites, revokedListWrites } from './sqlite-revoked-lists.ts'
import { type DeviceSqlRow, deviceColumns, deviceRecord, heldAgainst, prepare, prepareList } from './sqlite-rows.ts'
import { type ScepWrites, scepWrites } from './sqlite-scep.ts'
import { type SelectionWrites, selectionWrites } from './sqlite-selection.ts'
import { type TokenWrites, tokenWrites } from './sqlite-token.ts'
import type { AuditEntry, DeviceRecord, ManifestReport, NewDevice, NewSecret, RevocationRecord, SecretOutcome } from './store.ts'

export interface Writes
  extends IssuanceWrites,
    ApprovalWrites,
    CampaignWrites,
    CrlWrites,
    IssuerWrites,
    NoticeWrites,
    NumberWrites,
    ProfileSetWrites,
    RevokedListWrites,
    ScepWrites,
    SelectionWrites,
    TokenWrites {
  admitDevice(device: NewDevice): DeviceRecord | null
  acceptTime(audit: AuditEntry): null
  setSuspicion(mark: { fleet: string; id: string; suspected: boolean; audit: AuditEntry }): boolean
  raiseFloor(used: { fleet: string; id: string; idx: number; audit: AuditEntry }): boolean
  importManifest(chunk: { fleet: string; entries: PackedManifest; audit: AuditEntry }): ManifestReport
  mintSecret(secret: NewSecret): SecretOutcome
  recordRevocation(revocation: RevocationRecord): 'recorded' | 'conflict'
  outboxDelivered(delivery: { fleet: string; seq: number; at: number }): null
  appendAudit(entry: AuditEntry): null
}

export interface WriteSession {
  writes: Writes
  /** To be called in each transaction before COMMIT: moves the store's clock to the latest time that the writes carried, bar appendAudit and raiseFloor. */
  settle(): void
  /** To be called before any write but importManifest: an index that a first import has left for last is built. */
  endImport(): void
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

  const seen = (at: number): void => {
    latestTime = Math.max(latestTime, at)
  }

  const foreign = foreignWrites(db)
  const groups = closedGroups(db, foreign)
  const revoked = revokedIndices(db, foreign)
  const holds = rememberedHolds(db)
  // Asked once a transaction: inside one, only its own moves change it.
  let held: HoldsOfFleets | null = null
  const hold = (fleet: string, key: number) => {
    held ??= holds.now()
    return held.of(fleet, key)
  }
  const campaigns = campaignWrites(db, audit, seen)
  const deviceById = prepareList<[held: number, ...DeviceSqlRow]>(
    db,
    `SELECT ${heldAgainst('d')}, ${deviceColumns} FROM devices d WHERE fleet = ? AND id = ?`,
  )
  const sets = revokedListWrites(db, audit, revoked.forget)
  const manifest = manifestWrites(db)
  const scep = scepWrites(db)
  const issuers = issuerWrites(db, audit)
  const profiles = profileSetWrites(db, audit)
  const crl = crlWrites(db, seen)
  const issuance = issuanceWrites(db, {
    audit,
    seen,
    isClosed: groups.isClosed,
    hold,
    revoked,
    maySign: issuers.maySign,
    areNewest: profiles.areNewest,
    scep,
  })

  const insertSecret = prepare(db, 'INSERT INTO secrets (hash, device, expires_at, minted_at) VALUES (?, ?, ?, ?)')

  const mark = prepare(
    db,
    `UPDATE devices SET suspected_at = ?, supersedes = CASE WHEN ? THEN supersedes ELSE 0 END, version = version + 1
     WHERE fleet = ? AND id = ?`,
  )
  const raise = prepare(
    db,
    'UPDATE devices SET idx_floor = ?, version = version + 1 WHERE fleet = ? AND id = ? AND idx_floor < ? AND suspected_at IS NULL',
  )
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
      const admitted = manifest.admit(d.fleet, d.id, d.birthSpkiSha256, d.groups, d.at)
      if (admitted === 'refused') return null
      if (admitted !== 'unchanged') audit(d.audit)
      const [held, ...row] = deviceById(d.fleet, d.id)!
      return deviceRecord(row, groups.isClosed, hold, () => held === 1)
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
      const [, device] = deviceById(s.fleet, s.deviceId)!
      insertSecret.run(s.hash, device, s.expiresAt, s.at)
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
      groups.forget()
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

    ...issuance,
    ...crl,
    ...tokenWrites(db),
    ...noticeWrites(db, audit),
    ...sets.writes,
    ...scep.writes,
    ...approvalWrites(db, audit),
    recordCampaign: campaigns.recordCampaign,
    moveCampaign(move) {
      held = null
      return campaigns.moveCampaign(move)
    },
    ...selectionWrites(db, audit),
    ...issuers.writes,
    ...profiles.writes,
    ...numberWrites(db, audit, (...set) => {
      revoked.forget()
      sets.keepSet(...set)
    }),
  }

  return {
    writes,
    settle() {
      if (latestTime >= 0) moveClock.run(latestTime)
      latestTime = -1
      last = null
      held = null
      foreign.forget()
      issuers.forget()
      profiles.forget()
    },
    endImport: () => manifest.first.finish(),
    forget() {
      manifest.first.forget()
      latestTime = -1
      last = null
      held = null
      holds.forget()
      foreign.forget()
      groups.forget()
      revoked.forget()
      issuers.forget()
      profiles.forget()
    },
  }
}
