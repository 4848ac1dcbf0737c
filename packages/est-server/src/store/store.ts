// What the server remembers, as a contract that every driver keeps and test/store checks.
//
// Promises of every driver:
//  - A write has reached the medium when its promise resolves; a write is all or nothing. Reads see every acknowledged write.
//  - Every write is one transaction that checks its own preconditions and answers `conflict` when they do not hold: two servers
//    on one store are slow at worst, never wrong.
//  - A rejected write says by its code whether it definitely did not happen (`store_failed`, `store_busy`, `store_closed`)
//    or may have happened (`store_unknown`). After a disk error the driver refuses everything until it is opened anew.
//  - The queue of writes is bounded.
// It leaves to others: what a certificate is, who may have one, and every signature. Times are whole seconds since 1970.

import type { Bytes } from '@birthmark/device-sdk/core'
import type { ApprovalStore } from './approvals.ts'
import type { CampaignStore } from './campaigns.ts'
import type { CrlStore } from './crl.ts'

import type { IssuancePages } from './issuance-pages.ts'
import type { IssuerStore } from './issuers.ts'
import type { NoticeStore, PlainNotice } from './notice.ts'
import type { NumberStore } from './numbers.ts'
import type { PackedManifest } from './packed-manifest.ts'
import type { ProfileSetStore } from './profile-sets.ts'
import type { DeviceHold, QuarantineStore } from './quarantine.ts'
import type { RevokedListStore } from './revoked-lists.ts'
import type { ScepStore, ScepTransaction } from './scep.ts'
import type { SelectionStore } from './selection.ts'
import type { TokenStore } from './token.ts'

/** Rows of a manifest one call may carry: about 50 ms of the writer, which enrollments wait behind. */
export const manifestEntriesMax = 5000
/** The fleet extension carries at most eight groups: each costs up to 6 bytes in every certificate. */
export const groupsPerDeviceMax = 8
/** Groups of one fleet. Batches and models number in the thousands; the bound keeps a broken manifest from filling the table. */
export const groupsPerFleetMax = 65_536
/** Rows of one answer. */
export const pageRowsMax = 1000

export interface ManifestEntry {
  /** Device id: the birth certificate's subject serialNumber. */
  serial: string
  issuerSubject?: string
  /** Kept for the record only: the hash of a certificate is malleable and identifies nothing. */
  birthCertificateSha256?: string
  /** Hex SHA-256 of the birth key's DER SubjectPublicKeyInfo. */
  spkiSha256: string
  /** `name=value` or plain names, at most eight. */
  groups: string[]
  keyOrigin: 'device' | 'host'
}

export interface ManifestReport {
  added: number
  /** Known before and given a group or a birth key that was not known. */
  updated: number
  unchanged: number
  refused: { serial: string; reason: string }[]
}

export interface DeviceRecord {
  key: number
  fleet: string
  id: string
  /** SHA-256 of the birth key's SubjectPublicKeyInfo; null for a device that only a secret admits. */
  birthSpkiSha256: Bytes | null
  keyOrigin: 'device' | 'host' | 'unknown'
  gids: number[]
  /** Those of `gids` that are closed. */
  closedGids: number[]
  /** Grows with every change of what decisions rest on; an intent names the version it was decided on. */
  version: number
  /** Certificates with a lower idx are superseded. */
  idxFloor: number
  /** How often a live certificate was superseded through the birth identity since `supersedesSince`. */
  supersedes: number
  supersedesSince: number
  /** Since when two holders of its identity are suspected; null for an unsuspected device. */
  suspectedAt: number | null
  knownAt: number
  seenAt: number | null
  /** What a campaign has made of it for now (quarantine.ts). */
  hold: DeviceHold | null
  /** It was revoked by itself, or a list, a range, a floor or its issuer's end took its last certificate; and it was not admitted again. */
  revoked: boolean
}

export interface CertificateRecord {
  issuer: Bytes
  serial: Bytes
  fleet: string
  deviceId: string
  idx: number
  gids: number[]
  spkiSha256: Bytes
  contentSha256: Bytes
  epoch: number
  notBefore: number
  notAfter: number
  /** The one-time secret that admitted it, hashed. */
  secret: Bytes | null
  der: Bytes
}

/** All that decide() needs to know about one request, in one read. */
export interface EnrollmentFacts {
  device: DeviceRecord | null
  /** The device's last certificate. */
  latest: CertificateRecord | null
  /** Its last certificate for a request of equal content. */
  same: CertificateRecord | null
  /** The last certificate, of whichever device, over the requested key. */
  keyHolder: { deviceId: string; fleet: string; idx: number } | null
  /** The device whose birth key the requested key is. */
  birthKeyHolder: string | null
  /** As lastTime(). */
  lastTime: number
}

/** What will be signed, recorded before it is. */
export interface IssuanceIntent {
  issuer: Bytes
  serial: Bytes
  fleet: string
  device: number
  deviceVersion: number
  /** The device's hold that the decision rests on; none where it knew of none. */
  hold?: DeviceHold | null
  idx: number
  gids: number[]
  spkiSha256: Bytes
  contentSha256: Bytes
  epoch: number
  notBefore: number
  notAfter: number
  secret: Bytes | null
  requestId: string
  /** The bytes to be signed. */
  tbs: Bytes
  at: number
  /** Recorded with it, as recordScepTransaction does. */
  transaction?: ScepTransaction
  /** The person's word that the decision rests on (approvals.ts): taken back, or over, by then, and the intent is not taken. */
  consent?: number | null
  /** Hash of the profiles that decided; none of the fleet's newest generation, and the intent is not taken. */
  profiles?: Bytes
}

/** What stood against an intent. `device`: it changed since the decision. `idx`: taken, or not above that of the device's last certificate. `transaction`: it stands for another key. `issuer`: another one signs now. `key`: another device's. `profiles`: the fleet has newer ones. `consent`: taken back. */
export type IntentConflict =
  | 'serial'
  | 'idx'
  | 'content'
  | 'secret'
  | 'group'
  | 'device'
  | 'transaction'
  | 'issuer'
  | 'key'
  | 'profiles'
  | 'consent'

export interface IssuedRecord {
  issuer: Bytes
  serial: Bytes
  der: Bytes
  /** The device's earlier certificates below this idx are superseded from now on. */
  idxFloor: number
  supersedes: number
  supersedesSince: number
  at: number
  audit: AuditEntry
}

export interface OpenIntent {
  issuer: Bytes
  serial: Bytes
  fleet: string
  deviceId: string
  requestId: string
  at: number
}

export type AuditKind =
  | 'certificate_issued'
  | 'certificate_returned'
  | 'certificate_used'
  | 'enrollment_refused'
  | 'intent_voided'
  | 'device_admitted'
  | 'manifest_imported'
  | 'secret_minted'
  | 'group_revoked'
  | 'certificates_revoked'
  | 'device_readmitted'
  | 'notice_renewed'
  | 'clone_suspected'
  | 'suspicion_lifted'
  | 'clock_accepted'
  | 'notice_adopted'
  | 'store_restored'
  | 'approval_asked'
  | 'approval_granted'
  | 'approval_denied'
  | 'issuer_moved'
  | 'devices_labelled'
  | 'campaign_planned'
  | 'campaign_moved'
  | 'relying_party_forgotten'
  | 'profiles_changed'
  | 'failure'

export interface AuditEntry {
  at: number
  kind: AuditKind
  requestId: string
  fleet: string
  device: string
  /** Who or where: an address, an operator, a process. */
  by: string
  code: string
  detail: string
}

/** `hash` covers the entry, `n` and the previous record's hash: audit-chain.ts. */
export interface AuditRecord extends AuditEntry {
  n: number
  hash: Bytes
}

export interface SecretRecord {
  fleet: string
  deviceId: string
  expiresAt: number
  /** The request content it was spent on; null while unspent. */
  contentSha256: Bytes | null
  /** Whether a certificate came of it. */
  issued: boolean
}

export interface GroupRecord {
  gid: number
  name: string
  devices: number
  /** Certificates of the group with a lower idx are revoked, and nobody enrolls into it; null while open. */
  bound: number | null
}

/** The shape the rule set of fleet-revocation takes. */
export interface GroupRule {
  kind: 'group'
  gid: number
  bound: number
  reason?: number
}

export interface NoticeRecord {
  seq: number
  notice: Bytes
  sha256: Bytes
  at: number
}

export interface RevocationDraft {
  gid: number
  devices: number
  /**
   * Certificates of present members, made before they joined, that have not ended and that no rule reaches: this one would not either, for a
   * rule finds certificates by the groups inside them. The import lets nobody join so; a clock that was ahead then makes it possible.
   */
  uncovered: number
  /** Set when the group is closed already: the notice that said so. */
  closed: { bound: number; notice: NoticeRecord } | null
  /** The lowest idx that no certificate of the fleet has. */
  idxNext: number
  seq: number
  previousSha256: Bytes | null
  /** The newest rules first, at most `rulesMax` asked for. */
  rules: GroupRule[]
}

/** A notice, and the group that it closes. */
export interface RevocationRecord extends PlainNotice {
  gid: number
  bound: number
  reason: number | null
}

export interface DeviceQuery {
  fleet: string
  group?: string
  state?: DeviceState
  /** Device id to go on after, for the next page. */
  after?: string
  /** At most pageRowsMax. */
  limit: number
}

/** `known`: may enroll and has not. `revoked`: one of its groups is closed, or it is revoked itself. */
export type DeviceState = 'known' | 'enrolled' | 'revoked'

export interface DeviceRow {
  id: string
  state: DeviceState
  groups: string[]
  keyOrigin: string
  certificate: { serial: Bytes; idx: number; notBefore: number; notAfter: number } | null
  seenAt: number | null
  /** As in DeviceRecord. */
  suspectedAt: number | null
  labels: { [name: string]: string }
  /** The campaign that holds it in quarantine. */
  quarantinedBy: string | null
}

export interface NewDevice {
  fleet: string
  id: string
  birthSpkiSha256: Bytes | null
  groups: string[]
  at: number
  audit: AuditEntry
}

export interface NewSecret {
  /** SHA-256 of the token; the token itself is never stored. */
  hash: Bytes
  fleet: string
  deviceId: string
  groups: string[]
  expiresAt: number
  at: number
  audit: AuditEntry
}

/** `not_in_group`: the device is known, and not in this group of those asked for. `groups_full`: the fleet has no room for another group. */
export type SecretOutcome = { kind: 'minted' } | { kind: 'not_in_group'; group: string } | { kind: 'groups_full' }

export interface Store
  extends ApprovalStore,
    CampaignStore,
    CrlStore,
    IssuancePages,
    IssuerStore,
    NoticeStore,
    NumberStore,
    ProfileSetStore,
    QuarantineStore,
    RevokedListStore,
    ScepStore,
    SelectionStore,
    TokenStore {
  // Enrollment.
  enrollmentFacts(fleet: string, deviceId: string, spkiSha256: Bytes, contentSha256: Bytes): Promise<EnrollmentFacts>
  certificate(issuer: Bytes, serial: Bytes): Promise<CertificateRecord | null>
  secret(hash: Bytes): Promise<SecretRecord | null>
  /** The next idx of a fleet, not given out before. Nothing is written: it is spent by the intent that carries it. */
  reserveIdx(fleet: string): Promise<number>
  /** Makes a device known if it is not yet, and says what is known of it. A known device keeps its birth key and groups.
   * Null: it is known with another birth key, or the birth key is another device's. */
  admitDevice(device: NewDevice): Promise<DeviceRecord | null>
  /** Notes since when (`audit.at`) a device is suspected to be two, or that it no longer is; its superseding count starts anew then. False: unknown. */
  setSuspicion(fleet: string, id: string, suspected: boolean, audit: AuditEntry): Promise<boolean>
  /** Supersedes the device's certificates below `idx`. False, with nothing written: they are already, or the device is unknown or suspected to be two. */
  raiseFloor(fleet: string, id: string, idx: number, audit: AuditEntry): Promise<boolean>
  /** Voids the device's open intent, if any; then records this one, spending its serial, idx and secret. */
  recordIntent(intent: IssuanceIntent): Promise<{ kind: 'recorded' } | { kind: 'conflict'; on: IntentConflict }>
  /** Turns an open intent into a certificate. `conflict`: the intent is not open (any more), and nothing was written. */
  recordCertificate(issued: IssuedRecord): Promise<'recorded' | 'conflict'>
  /** Gives up an intent. False when it is not open. */
  voidIntent(issuer: Bytes, serial: Bytes, audit: AuditEntry): Promise<boolean>
  openIntents(limit: number): Promise<OpenIntent[]>
  /** The latest time of any write but `appendAudit` and `raiseFloor`, which need no decision about time; −1 for an empty store. */
  lastTime(): Promise<number>
  /** Puts the last time back, for an operator who has seen to the clock. */
  acceptTime(audit: AuditEntry): Promise<void>

  // The fleet.
  device(fleet: string, id: string): Promise<DeviceRow | null>
  devices(query: DeviceQuery): Promise<DeviceRow[]>
  groups(fleet: string): Promise<GroupRecord[]>
  /** Whether any of the gids is closed. */
  isClosed(fleet: string, gids: number[]): Promise<boolean>
  /**
   * At most manifestEntriesMax entries, packed by the one who has judged them. Refused by row: a known serial with another birth key; a birth key under another serial; another group
   * for a device with a certificate that lacks it and neither has ended (`audit.at` counts) nor is revoked.
   */
  importManifest(fleet: string, entries: readonly ManifestEntry[] | PackedManifest, audit: AuditEntry): Promise<ManifestReport>
  /** Makes the device known, in these groups, if it is not yet; a known one must be in all of them. Anything but `minted` wrote nothing. */
  mintSecret(secret: NewSecret): Promise<SecretOutcome>

  // Revocation.
  /** What a notice that closes the group would have to say at time `now`. Null for an unknown group. */
  draftRevocation(fleet: string, group: string, rulesMax: number, now: number): Promise<RevocationDraft | null>
  /** Closes the group, appends the notice to the outbox. `conflict`: seq, previous hash or bound no longer hold; draft again. */
  recordRevocation(revocation: RevocationRecord): Promise<'recorded' | 'conflict'>
  /** Every rule of the fleet, newest first. */
  rules(fleet: string): Promise<GroupRule[]>
  /** Notices not yet delivered, oldest first. */
  outboxPending(fleet: string, limit: number): Promise<NoticeRecord[]>
  outboxDelivered(fleet: string, seq: number, at: number): Promise<void>
  notice(fleet: string, seq: number): Promise<NoticeRecord | null>

  // The record.
  appendAudit(entry: AuditEntry): Promise<void>
  /** Records after `n`, in order. */
  audit(after: number, limit: number): Promise<AuditRecord[]>
  /** Every broken invariant as a sentence; an empty list for a sound store. Reads everything. */
  check(): Promise<string[]>
  /** Settles what was accepted, then lets go of the file. */
  close(): Promise<void>
}
