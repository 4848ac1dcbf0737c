// The numbers that the store gives out and may never give out again, and the ways to move them up in a store that was restored: from a copy
// that is older than what the world has seen. Part of the store's contract: what store.ts promises of every driver holds here too.

import { type Bytes, equalBytes } from '@birthmark/device-sdk/core'
import type { BitBlock } from './bit-blocks.ts'
import type { RevokedSet } from './revoked-lists.ts'
import type { AuditEntry, GroupRule } from './store.ts'

export interface FleetNumbers {
  fleet: string
  /** The lowest idx that nobody has been given. */
  idx: number
  /** The highest gid, 0 for none. */
  gid: number
  /** The last notice, 0 for none. */
  seq: number
}

export interface StoreNumbers {
  /** The end of the audit chain; n = 0 and 32 zero bytes for an empty one. */
  audit: { n: number; hash: Bytes }
  /** Of the fleets asked for. */
  fleets: FleetNumbers[]
  /** The last CRL number spent by each issuer. */
  crls: { issuer: Bytes; number: number }[]
}

/** A notice that was published and that this store does not know. */
export interface AdoptedNotice {
  fleet: string
  seq: number
  notice: Bytes
  sha256: Bytes
  previousSha256: Bytes | null
  at: number
  /** The group rules it carries, its own and those it repeats. */
  rules: GroupRule[]
  /** Certificates that it names in lists and ranges. */
  certificates: BitBlock[]
  /** 0 for none. */
  floor: number
  issuer: Bytes | null
  audit: AuditEntry
}

export interface RaisedNumbers {
  fleets: Omit<FleetNumbers, 'seq'>[]
  crls: { issuer: Bytes; number: number }[]
  audit: AuditEntry
}

/**
 * `known`: this very notice is here. `taken`: its number is another's or was passed over, or it follows another notice than the last one here; what
 * it revokes is then for its caller to record under a number of its own.
 */
export type Adoption = 'adopted' | 'known' | 'taken'

export interface NumberStore {
  /** All of one moment. */
  numbers(fleets: string[]): Promise<StoreNumbers>
  /**
   * Lets every number go on at least from here: the next idx is `idx` or higher, the next gid above `gid`, the next CRL number above `number`.
   * What is higher already stays. A gid that is passed over is held by a group without devices.
   */
  raiseNumbers(raised: RaisedNumbers): Promise<void>
  /**
   * Takes a published notice as delivered, revokes the certificates that it names and closes its groups, at its bounds where these are higher. A group that is not known
   * any more is made, closed and without devices. Anything but `adopted`: nothing was written.
   */
  adoptNotice(adopted: AdoptedNotice): Promise<Adoption>
}

/** Whether a notice can be the next one after `last`: gaps are for a restore, which says so in the audit record. */
export function mayFollow(
  last: { seq: number; sha256: Bytes } | undefined,
  { seq, previousSha256 }: Pick<AdoptedNotice, 'seq' | 'previousSha256'>,
): boolean {
  if (last === undefined) return true
  if (seq === last.seq + 1) return previousSha256 !== null && equalBytes(last.sha256, previousSha256)
  return seq > last.seq
}

/** The name of a group whose own name was lost. */
export const lostGroupName = (gid: number): string => `restored=gid-${gid}`

/** What a notice revokes otherwise than by group. */
export function setsOf({ certificates, floor, issuer }: Pick<AdoptedNotice, 'certificates' | 'floor' | 'issuer'>): RevokedSet[] {
  const set = { start: 0, length: 0, issuer: null, blocks: [] }
  return [
    ...(certificates.length > 0 ? [{ ...set, kind: 'list' as const, blocks: certificates }] : []),
    ...(floor > 0 ? [{ ...set, kind: 'floor' as const, start: floor }] : []),
    ...(issuer ? [{ ...set, kind: 'issuer' as const, issuer }] : []),
  ]
}
