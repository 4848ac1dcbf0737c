// What a notice says, between the stories that revoke and whoever signs: fleet-revocation's craft, handed in by the composition root. The rules
// have its shapes; none is looked into here.

import type { Bytes } from '@birthmark/device-sdk/core'
import type { BitBlock } from './store/bit-blocks.ts'
import type { GroupRule } from './store/store.ts'

export type NoticeRule =
  | GroupRule
  | { kind: 'range'; start: number; length: number }
  | { kind: 'issuer'; keyId: Bytes }
  /** `span` certificates from idx `base`, those of them that `coded` names. */
  | { kind: 'list'; base: number; span: number; codec: number; coded: Bytes }

export interface NoticeInput {
  fleet: string
  /** One more than the notice before. */
  seq: number
  /** `sha256` of the notice before, null for the first. */
  previousSha256: Bytes | null
  /** Seconds since 1970. */
  issuedAt: number
  /** That the revocation takes back, of which this may be one notice of several. */
  devices: number
  /** The new rules first, then the fleet's standing group rules, newest first: who missed earlier notices catches up with this one. */
  rules: NoticeRule[]
  /** Every certificate with a lower idx is revoked. */
  floor: number
  /** Another notice of the same revocation follows at once: this one is never the newest, and needs no heartbeats. */
  followed: boolean
}

export interface SignedNotice {
  notice: Bytes
  /** By which the next notice names this one. Not a hash of `notice`, whose signature anybody can turn into another that verifies. */
  sha256: Bytes
}

/** Lists of certificates in rules. */
export interface ListCoder {
  /** Rules for exactly these, ascending, each small enough for a notice; lazily, since a long list takes a while. */
  rulesOf(indices: number[]): Iterable<NoticeRule>
  /** In as few notices as hold them. */
  byNotice(rules: NoticeRule[]): NoticeRule[][]
}

/** What was just recorded, for a rule set in memory. */
export interface RecordedRules {
  rules: NoticeRule[]
  /** 0 for none. */
  floor: number
  /** Certificates by idx. */
  blocks: BitBlock[]
}
