// What a protocol front (EST today) hands to the enrollment story, and what it gets back. No HTTP type, no socket: bytes and names.

import type { KeyObject } from 'node:crypto'
import type { Bytes } from '@birthmark/device-sdk/core'
import type { RefusalCode } from './registrar/refusal.ts'
import type { ScepTransaction } from './store/scep.ts'

/**
 * Who is at the other end of a connection. Made once per TLS connection: what enrollment proved about it (validated path, imported key)
 * is remembered per Peer object, while revocation status is looked up at every request.
 */
export interface Peer {
  /** Client certificate and what came with it, DER, leaf first. TLS proved possession of the leaf's key; nothing else is validated. */
  chain: Bytes[] | null
  /** Basic credentials as received. */
  basic: { user: string; password: string } | null
  /** Bearer token as received. */
  bearer?: string | null
  /** Address as text, for the audit record. */
  address: string
  /** 'TLSv1.2' or 'TLSv1.3'. */
  tlsVersion: string
  /** Whether TLS resumed an earlier session. */
  resumed: boolean
  /** RFC 5929 tls-unique (TLS 1.2), where the runtime gives it. */
  tlsUnique?: Bytes | null
  /** RFC 9266 tls-exporter (32 bytes). */
  tlsExporter?: Bytes | null
  /**
   * A SCEP message in place of a TLS connection: its signature proved possession of `chain`'s key, and what its CSR's challengePassword says is
   * a challenge, already hashed (registrar/challenge.ts), not a channel binding. `signer`: its key, which most CSRs are signed with as well.
   * `proven`: as Channel's.
   */
  scep?: { challenge: Bytes | null; signer?: { spki: Bytes; key: KeyObject }; proven?: boolean }
}

/** A device's signature over the request, which a gateway has carried, as received. */
export interface ShownProof {
  bytes: Bytes
  /** What the request line and the body say, for what was signed to be compared with. */
  path: string
  bodySha256: Bytes
}

export interface EnrollmentRequest {
  operation: 'enroll' | 'reenroll'
  /** EST label (RFC 7030 3.2.2), null for none. */
  label: string | null
  /** DER CertificationRequest (RFC 2986). */
  csr: Bytes
  /** Whose connection it is; with `proof` a gateway's. */
  peer: Peer
  proof?: ShownProof
  /** For the log and the audit record, to find one from the other. */
  requestId: string
  /** SCEP's transaction, recorded with the first intent that it leads to; another request under its id gets nothing. */
  transaction?: ScepTransaction
}

export type EnrollmentOutcome =
  /**
   * `certificate` and `chain` (issuer upwards, root left out) are DER. `again`: made by an earlier, equal request. `renewAfterSeconds`: when to come
   * back for the next one, from now.
   */
  | { kind: 'issued'; certificate: Bytes; chain: Bytes[]; again: boolean; renewAfterSeconds?: number }
  | { kind: 'pending'; retryAfterSeconds: number }
  | { kind: 'unauthenticated'; code: RefusalCode; detail: string }
  | { kind: 'refused'; code: RefusalCode; detail: string }
  /** Nothing was decided about the device; the same request may succeed later. `code` tells a full queue from a failure (503 or 500). */
  | { kind: 'unavailable'; code: RefusalCode; retryAfterSeconds: number; detail: string }
