// The envelope of everything that a notice key signs: a COSE_Sign1 of one strict shape, perhaps countersigned by a second key. Received
// bytes become a payload only after their signature stands; what the payload says is for others. Device subset.

import {
  type Bytes,
  COSE_EDDSA,
  COSE_ES256,
  codeOf,
  countersignToBeSigned,
  ecdsaDerOfRaw,
  equalBytes,
  parseSign1,
  type Sign1,
  sign1ToBeSigned,
  utf8Bytes,
} from '@birthmark/device-sdk/core'

/** A key that notices are accepted from. `keyId`: the first 8 bytes of SHA-256 over `spki`. */
export interface NoticeSigner {
  keyId: Bytes
  /** −7 ES256 or −8 EdDSA (Ed25519). */
  algorithm: number
  spki: Bytes
}

/** As in agent/ports.ts of the device SDK: `signature` in X.509 form. */
export interface NoticeVerify {
  verify(spki: Bytes, algorithm: string, message: Bytes, signature: Bytes, done: (good: boolean) => void): void
}

export type SignatureProblem = 'notice_too_large' | 'notice_malformed' | 'notice_signer_unknown' | 'notice_signature'

/** Signed into each message but not sent (external_aad of RFC 9052 4.3), so that none can be taken for one of another kind. */
export type Kind = 'notice' | 'snapshot' | 'answer'

export function externalOf(kind: Kind): Bytes {
  // A notice has none: it was there first, and is what everybody reads.
  return kind === 'notice' ? new Uint8Array(0) : utf8Bytes('fr/1 ' + kind)
}

function parseMessage(bytes: Bytes): Sign1 | null {
  try {
    const message = parseSign1(bytes)
    const second = message.countersignature
    // Exactly the shape of the CDDL: tagged, only `alg` protected (a map of one small key and value is 3 bytes), an 8-byte key id.
    const strict = bytes[0] === 0xd2 && message.protectedHeader.length === 3 && message.keyId && message.keyId.length === 8
    if (second && !(second.protectedHeader.length === 3 && second.keyId && second.signature.length === 64)) return null
    return strict && message.signature.length === 64 ? message : null
  } catch (error) {
    if (codeOf(error) === null) throw error
    return null
  }
}

function signerOf(signers: NoticeSigner[], keyId: Bytes | null, algorithm: number): NoticeSigner | null {
  if (keyId && (algorithm === COSE_ES256 || algorithm === COSE_EDDSA))
    for (let i = 0; i < signers.length; i++)
      if (signers[i].algorithm === algorithm && equalBytes(signers[i].keyId, keyId)) return signers[i]
  return null
}

function check(signer: NoticeSigner, message: Bytes, signature: Bytes, verify: NoticeVerify, done: (good: boolean) => void): void {
  const es256 = signer.algorithm === COSE_ES256
  verify.verify(signer.spki, es256 ? 'ecdsa-sha256' : 'ed25519', message, es256 ? ecdsaDerOfRaw(signature) : signature, done)
}

/**
 * Judges received bytes. `done` gets the payload, signed by one of `signers` as a message of this kind, and whether another of them signed
 * too: a countersignature that doesn't stand is as none, since anybody could have left it out.
 */
export function openSigned(
  bytes: Bytes,
  bytesMax: number,
  kind: Kind,
  signers: NoticeSigner[],
  verify: NoticeVerify,
  done: (problem: SignatureProblem | null, payload: Bytes | null, countersigned: boolean) => void,
): void {
  if (bytes.length > bytesMax) {
    done('notice_too_large', null, false)
    return
  }
  const message = parseMessage(bytes)
  if (!message) {
    done('notice_malformed', null, false)
    return
  }
  const signer = signerOf(signers, message.keyId, message.algorithm)
  if (!signer) {
    done('notice_signer_unknown', null, false)
    return
  }
  const external = externalOf(kind)
  check(signer, sign1ToBeSigned(message.protectedHeader, message.payload, external), message.signature, verify, function (good) {
    const second = message.countersignature
    const other = good && second ? signerOf(signers, second.keyId, second.algorithm) : null
    if (!good) done('notice_signature', null, false)
    else if (!second || !other || other === signer) done(null, message.payload, false)
    else
      check(other, countersignToBeSigned(message, second.protectedHeader, external), second.signature, verify, function (also) {
        done(null, message.payload, also)
      })
  })
}
