// What the store knows of revocation lists: which certificates there are to list, the rules with their dates, and the numbers and bytes of
// the lists that were signed. Part of the store's contract: what store.ts promises of every driver holds here too. It leaves to others which
// certificates the rules reach, and every signature.

import type { Bytes } from '@birthmark/device-sdk/core'

/** A group that was closed: its certificates with an idx below `bound` are revoked since `at`. */
export interface DatedRule {
  gid: number
  bound: number
  /** CRLReason (RFC 5280 5.3.1), null for none given. */
  reason: number | null
  at: number
}

/** Certificates that are in the same groups. Their serials stand one after the other, each of `serialBytes` octets, in no order. */
export interface SerialRun {
  gids: number[]
  serialBytes: number
  serials: Bytes
}

export interface SerialQuery {
  issuer: Bytes
  fleet: string
  /** From this idx … */
  from: number
  /** … to the one below this; at most 4,096 on: what a read may hold up. */
  to: number
  /** Certificates that ended before are left out. */
  since: number
}

/** What an answer about one certificate rests on. */
export interface CertificateStanding {
  fleet: string
  idx: number
  gids: number[]
  /** As CrlStore.revocations of its fleet, in the same moment. */
  revocations: number
}

export interface CrlHead {
  number: number
  /** What the list knows of: CrlStore.revocations before its certificates were read. */
  revocations: number
  thisUpdate: number
  nextUpdate: number
}

export interface CrlRecord extends CrlHead {
  issuer: Bytes
  /** Names the list among those of its issuer: `fleet/shard`, or '' for the full one. */
  list: string
  /** The signed list; empty for one whose bytes are kept elsewhere. */
  der: Bytes
}

export interface CrlStore {
  /** How many revocations were recorded in a fleet, or in all (null). Two equal answers: no certificate was revoked in between. */
  revocations(fleet: string | null): Promise<number>
  datedRules(fleet: string): Promise<DatedRule[]>
  /** Fleets with certificates. */
  fleets(): Promise<string[]>
  /** The highest idx of a fleet that is spent; 0 for none. */
  lastIdx(fleet: string): Promise<number>
  /**
   * Serials of what an issuer has signed in a range of a fleet, and of what it is about to sign: an intent that was recorded before its group
   * was closed may still become a certificate, and must be on the list by then. What was given up is left out.
   */
  serials(query: SerialQuery): Promise<SerialRun[]>
  /** Null for a serial that is on no certificate. */
  standing(issuer: Bytes, serial: Bytes): Promise<CertificateStanding | null>
  /** The newest signed list without its bytes; null for none. */
  crlHead(issuer: Bytes, list: string): Promise<CrlHead | null>
  crl(issuer: Bytes, list: string): Promise<CrlRecord | null>
  /** Spends the issuer's next CRL number. One count for all lists of an issuer; a number is spent whether or not a list comes of it. `at` moves lastTime(). */
  reserveCrlNumber(issuer: Bytes, at: number): Promise<number>
  /** Keeps a signed list. `conflict`, and nothing was written: the number was not reserved, or a newer list is there. */
  recordCrl(crl: CrlRecord): Promise<'recorded' | 'conflict'>
  /** The last number spent by each issuer: what a backup remembers. */
  crlNumbers(): Promise<{ issuer: Bytes; number: number }[]>
  /** Lets the issuer's numbers go on above `number`, where they do not already: for a store that was restored, whose last lists are unknown to it. */
  raiseCrlNumber(issuer: Bytes, number: number): Promise<void>
}
