// What the server and the token process say to each other. The PIN is in none of it: the token process reads it where it lies.

import type { SecretSource } from '@birthmark/est-server/secret-source'

/** Which token: by label or by serial number, never by slot, since slots are renumbered when readers are plugged in. */
export type TokenName = { label: string; serial?: string } | { serial: string; label?: string }

/** Which private key on it: by CKA_LABEL, CKA_ID (hex), or both. */
export type KeyName = { label: string; id?: string } | { id: string; label?: string }

/** A PIN that the token refused, so that it is not tried again: salt and scrypt of it, hex. */
export interface RefusedPin {
  salt: string
  hash: string
}

export interface TokenRequest {
  /** Path of the vendor's PKCS#11 library. */
  library: string
  token: TokenName
  key: KeyName
  pin: SecretSource
  /** As in core: `ecdsa-sha256`, `rsa-pkcs1-sha256`, … */
  algorithm: string
  /** Octets of one coordinate for EC; 0 for RSA. */
  coordinateBytes: number
  refusedPin: RefusedPin | null
  /** Jobs that the token is given at once, each in a session of its own; it may allow fewer. */
  sessions: number
}

export type TokenErrorCode =
  | 'binding_missing'
  | 'library_unusable'
  | 'token_absent'
  | 'token_ambiguous'
  | 'pin_unreadable'
  | 'pin_wrong'
  /** Not tried, since one more failure may lock the token, or since the same PIN was refused before. */
  | 'pin_withheld'
  | 'pin_locked'
  | 'key_absent'
  | 'key_ambiguous'
  | 'key_mismatch'
  /** The token refused or failed a call. */
  | 'call_failed'
  | 'process_ended'
  | 'timeout'
  | 'queue_full'
  | 'closed'

export interface Failure {
  code: TokenErrorCode
  detail: string
  next: string
}

/** As TokenRequest, for what a token tells without a PIN. */
export type PublicKeyRequest = Pick<TokenRequest, 'library' | 'token' | 'key'>

export type TokenJob =
  /** `algorithm`: another than the request's, of the same key. */
  | { kind: 'sign'; data: Uint8Array; algorithm?: string }
  /** RSAES-PKCS1-v1_5, or OAEP with the hash named. */
  | { kind: 'decrypt'; data: Uint8Array; oaep: string | null }

export type ToToken =
  | { kind: 'public'; request: PublicKeyRequest }
  | { kind: 'open'; request: TokenRequest }
  | ({ id: number } & TokenJob)

export type FromToken =
  /** SubjectPublicKeyInfo; the process ends after this. */
  | { kind: 'public'; spki: Uint8Array }
  /** `sessions`: how many there are. */
  | { kind: 'open'; token: string; sessions: number }
  | { kind: 'unopened'; failure: Failure; refusedPin: RefusedPin | null }
  /** A signature in X.509 form; what was decrypted, null where it does not decrypt. */
  | { kind: 'done'; id: number; result: Uint8Array | null }
  /** The session is of no more use; the process ends after this. */
  | { kind: 'undone'; id: number; failure: Failure }
