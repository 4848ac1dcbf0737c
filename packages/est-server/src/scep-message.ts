// What stands outside a SCEP message's envelope: who signed it, with which algorithms and key, and when. Judged before anything is decrypted.

import { hash, type KeyObject } from 'node:crypto'
import { algorithmFitsKey, encodeElement, equalBytes } from '@birthmark/device-sdk/core'
import { importKey, verifyWith } from './node-crypto.ts'
import { keyRefusal } from './registrar/key-policy.ts'
import type { EnrollmentProfile } from './registrar/profile.ts'
import { ScepFailure } from './scep-failure.ts'
import {
  attributeValue,
  MESSAGE_DIGEST,
  type SignedMessage,
  type SignerCertificate,
  signerCertificateOf,
  signingTimeOf,
} from './wire/cms-signed.ts'
import type { ScepHeader } from './wire/scep.ts'

/** How far a signingTime may be off. It is left out by most clients; one that says it has a clock (FAULTS 34). */
export const signingTimeSkewSeconds = 900

/** Where a message came from. */
export interface ScepOrigin {
  label: string | null
  address: string
  requestId: string
}

/** A message whose signature is good. */
export interface VerifiedMessage {
  origin: ScepOrigin
  profile: EnrollmentProfile
  signed: SignedMessage
  header: ScepHeader
  signer: SignerCertificate
  /** The signer's. */
  key: KeyObject
}

/** Throws ScepFailure. `now`: seconds since 1970. */
export function verifyMessage(
  origin: ScepOrigin,
  signed: SignedMessage,
  header: ScepHeader,
  profile: EnrollmentProfile,
  now: number,
): VerifiedMessage {
  const { algorithms } = signed
  if (algorithms === null) throw signed.refused ?? new ScepFailure('badAlg', 'algorithms')
  const signer = signerCertificateOf(signed.certificates, signed.signer)
  if (signer === null) throw new ScepFailure('badMessageCheck', 'the certificate of the signer is not in the message')
  // Before anything is verified with it, and because the answer is encrypted to it (FAULTS 73).
  const weak = keyRefusal({ keyAlgorithm: signer.key.algorithm, keyBits: signer.key.bits, spki: signer.spki }, ['RSA'])
  if (weak) throw new ScepFailure('badAlg', `the signer: ${weak.detail}`)
  if (!algorithmFitsKey(algorithms.signature, signer.key.algorithm))
    throw new ScepFailure('badAlg', `${algorithms.signature} with a ${signer.key.algorithm} key`)
  if (signed.content === null) throw new ScepFailure('badRequest', 'no content')
  const digest = attributeValue(signed.attributes, MESSAGE_DIGEST)
  const own = hash(algorithms.digest, signed.content, 'buffer')
  if (digest === null || !equalBytes(digest, encodeElement(4, [own])))
    throw new ScepFailure('badMessageCheck', 'the message digest is not that of the content')
  const key = importKey(signer.spki)
  if (key === null) throw new ScepFailure('badAlg', 'the key of the signer is not one')
  if (!signed.signed.some(bytes => verifyWith(key, algorithms.signature, bytes, signed.signature)))
    throw new ScepFailure('badMessageCheck', 'the signature does not verify')
  const time = signingTimeOf(signed.attributes)
  if (time !== null && Math.abs(time - now) > signingTimeSkewSeconds)
    throw new ScepFailure('badTime', `the message says it was signed ${new Date(time * 1000).toISOString()}`)
  return { origin, profile, signed, header, signer, key }
}
