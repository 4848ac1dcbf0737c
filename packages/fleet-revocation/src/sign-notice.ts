// Signing a notice. The key stays with whoever lends `sign`.

import { createHash } from 'node:crypto'
import { type Bytes, encodeSign1, parseSign1, sign1Header, sign1ToBeSigned } from '@birthmark/device-sdk/core'
import { RevocationError } from './errors.ts'
import { decodeNoticeBody, encodeNoticeBody, type NoticeBody, noticeBytesMax } from './notice.ts'

export interface NoticeKey {
  /** −7 ES256, −8 EdDSA (Ed25519). */
  algorithm: -7 | -8
  /** `noticeKeyId` of its public key. */
  keyId: Bytes
  /** `toBeSigned` → 64 bytes: r ‖ s for ES256, the Ed25519 signature for EdDSA. */
  sign(toBeSigned: Bytes): Promise<Bytes>
}

/** The 8 bytes by which a notice names its signer: the start of SHA-256 over the DER SubjectPublicKeyInfo. */
export function noticeKeyId(spki: Bytes): Bytes {
  return new Uint8Array(createHash('sha256').update(spki).digest().subarray(0, 8))
}

/**
 * What a notice is known by, and what the next one names: SHA-256 over what was signed (Sig_structure, RFC 9052 4.4). Not over the message:
 * whoever sees an ECDSA signature (r, s) can write (r, n − s), which verifies as well and has another hash. Throws `cbor_malformed` or
 * `cose_malformed`; that the notice is signed is for `openNotice` to say.
 */
export function noticeSha256(notice: Bytes): Bytes {
  const { protectedHeader, payload } = parseSign1(notice)
  return new Uint8Array(createHash('sha256').update(sign1ToBeSigned(protectedHeader, payload)).digest())
}

/** Throws `configuration_invalid` for a body that receivers would refuse, so that nothing such is ever signed. */
export async function signNotice(body: Omit<NoticeBody, 'unknownRules'>, key: NoticeKey): Promise<Bytes> {
  const payload = encodeNoticeBody({ ...body, unknownRules: 0 })
  const readBack = decodeNoticeBody(payload)
  if (typeof readBack === 'string') throw new RevocationError('configuration_invalid', `the notice would be refused as ${readBack}`)
  const header = sign1Header(key.algorithm)
  const signature = await key.sign(sign1ToBeSigned(header, payload))
  if (signature.length !== 64 || key.keyId.length !== 8)
    throw new RevocationError('configuration_invalid', 'a notice carries an 8-byte key id and a 64-byte signature')
  const notice = encodeSign1(header, key.keyId, payload, signature)
  if (notice.length > noticeBytesMax) throw new RevocationError('configuration_invalid', `a notice of ${notice.length} bytes`)
  return notice
}
