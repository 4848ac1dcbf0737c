// Certificates that were revoked otherwise than by group: one by one, in a range, below a floor, or with the authority that signed them; and the
// devices that are closed with them. Part of the store's contract: what store.ts promises of every driver holds here too. Sets are kept as bits
// (bit-blocks.ts), never a row a device. It leaves to others which rule says what, and every signature.

import type { Bytes } from '@birthmark/device-sdk/core'
import type { BitBlock } from './bit-blocks.ts'
import type { SerialQuery } from './crl.ts'
import type { AuditEntry, GroupRule } from './store.ts'

/** What one revocation names. `list`: certificates by idx. `devices` come with any kind and are closed until they are admitted again. */
export type RevokedKind = 'list' | 'range' | 'floor' | 'issuer'

export interface RevokedSet {
  kind: RevokedKind
  /** Of a range, its first idx; of a floor, the idx below which everything is revoked; else 0. */
  start: number
  /** Of a range; else 0. */
  length: number
  /** Subject key identifier of an issuer; else null. */
  issuer: Bytes | null
  /** Of a list; else empty. */
  blocks: BitBlock[]
}

/** A revocation as it was recorded. */
export interface DatedSet extends RevokedSet {
  /** Of its last notice. */
  seq: number
  at: number
  /** CRLReason, null for none given. */
  reason: number | null
}

/** All that is revoked otherwise than by group, whenever it was. */
export interface StandingSets {
  floor: number
  issuers: Bytes[]
  /** Lists and ranges. */
  blocks: BitBlock[]
}

export interface ListDraft {
  /** The lowest idx that no certificate of the fleet has. */
  idxNext: number
  /** Where issuance stood: `recordSet` looks at what named devices were given since. */
  issued: number
  seq: number
  previousSha256: Bytes | null
  /** As RevocationDraft.rules. */
  rules: GroupRule[]
  /** Group rules apart: what stands. */
  floor: number
}

export interface SignedNoticeRecord {
  seq: number
  previousSha256: Bytes | null
  notice: Bytes
  noticeSha256: Bytes
}

export interface SetRecord {
  fleet: string
  set: RevokedSet
  reason: number | null
  /** Keys of the devices to close. */
  devices: BitBlock[]
  /** ListDraft.issued. */
  issued: number
  /** In order, each naming the one before; at least one. */
  notices: SignedNoticeRecord[]
  at: number
  audit: AuditEntry
}

/**
 * `conflict`: the first notice is not the next, or a range or floor lies above everything given out. `late`: named devices were given these
 * certificates since the draft, which the notices do not say; add them, sign anew. Neither wrote anything.
 */
export type SetOutcome = { kind: 'recorded' } | { kind: 'conflict' } | { kind: 'late'; indices: number[]; issued: number }

/** A device as a revocation finds it. */
export interface RevocableDevice {
  id: string
  key: number
  closed: boolean
  /** Its last certificate, and all others that have not ended, also those about to be signed. */
  indices: number[]
}

export interface PlacedSerial {
  idx: number
  gids: number[]
  serial: Bytes
}

export interface RevokedListStore {
  draftSet(fleet: string, rulesMax: number): Promise<ListDraft>
  /** Those of `ids` that are known, at most pageRowsMax asked for. Certificates that ended before `now` are left out, unless a device's last. */
  revocableDevices(fleet: string, ids: readonly string[], now: number): Promise<RevocableDevice[]>
  /**
   * One transaction: the set, its devices closed, the notices in the outbox, audit. From here on nothing is issued to a closed device, nor to one
   * whose last certificate is revoked; nor does an issuer sign that is. No idx below a floor or a range's end is given out any more.
   */
  recordSet(record: SetRecord): Promise<SetOutcome>
  standingSets(fleet: string): Promise<StandingSets>
  /** Of notices after `seq`, in order. */
  datedSets(fleet: string, after: number): Promise<DatedSet[]>
  /**
   * Lets a revoked device ask for a certificate again, with its birth identity, a secret or a token: all that it has is superseded, the next idx is
   * higher, and what is revoked stays so. False: it is not known, or nothing was held against it.
   */
  readmitDevice(fleet: string, id: string, audit: AuditEntry): Promise<boolean>
  /** As CrlStore.serials, certificate by certificate. */
  placedSerials(query: SerialQuery): Promise<PlacedSerial[]>
  /** Of the same certificates, whoever issued them: which issuer did. */
  placedIssuers(query: Omit<SerialQuery, 'issuer'>): Promise<{ idx: number; issuer: Bytes }[]>
  /** Devices that are known. */
  deviceCount(fleet: string): Promise<number>
  /** Indices that were ever given to certificates of any of these groups, or of an issuer (by key identifier), ascending, in a part of the fleet of at most 4,096. */
  indicesOf(query: { fleet: string; gids?: number[]; issuer?: Bytes; from: number; to: number }): Promise<number[]>
}
