// Signing what receivers believe: notices, snapshots and answers. The keys stay with whoever lends `sign`. Where there is a standby key,
// receivers know both, and a key that fails does not stop a revocation.

import { createHash } from 'node:crypto'
import {
  type Bytes,
  countersignToBeSigned,
  encodeSign1,
  parseSign1,
  sign1Header,
  sign1ToBeSigned,
} from '@birthmark/device-sdk/core'
import { RevocationError } from './errors.ts'
import { decodeNoticeBody, encodeNoticeBody, type NoticeBody, noticeBytesMax } from './notice.ts'
import { externalOf, type Kind } from './signed.ts'

export interface NoticeKey {
  /** −7 ES256, −8 EdDSA (Ed25519). */
  algorithm: -7 | -8
  /** `noticeKeyId` of its public key. */
  keyId: Bytes
  /** `toBeSigned` → 64 bytes: r ‖ s for ES256, the Ed25519 signature for EdDSA. */
  sign(toBeSigned: Bytes): Promise<Bytes>
}

/** The key in use, then those that stand by, in the order in which they are tried. */
export type NoticeKeys = readonly [NoticeKey, ...NoticeKey[]]

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

async function signatureBy(key: NoticeKey, toBeSigned: Bytes): Promise<Bytes> {
  const signature = await key.sign(toBeSigned)
  if (signature.length !== 64 || key.keyId.length !== 8)
    throw new RevocationError('configuration_invalid', 'a notice carries an 8-byte key id and a 64-byte signature')
  return signature
}

/** The first key that can, signs. `second`: another of them signs over it. Rejects with the last key's error when none can. */
async function signMessage(kind: Kind, payload: Bytes, keys: NoticeKeys, second: boolean): Promise<Bytes> {
  const external = externalOf(kind)
  const left = [...keys]
  let failure: unknown = new RevocationError('configuration_invalid', 'two signatures take two keys')
  async function next<T>(sign: (key: NoticeKey) => Promise<T>): Promise<T> {
    for (let key = left.shift(); key; key = left.shift()) {
      try {
        return await sign(key)
      } catch (error) {
        failure = error
      }
    }
    throw failure
  }
  const signed = await next(async key => {
    const header = sign1Header(key.algorithm)
    return { key, header, signature: await signatureBy(key, sign1ToBeSigned(header, payload, external)) }
  })
  const first = encodeSign1(signed.header, signed.key.keyId, payload, signed.signature)
  if (!second) return first
  return next(async key => {
    const protectedHeader = sign1Header(key.algorithm)
    const signature = await signatureBy(key, countersignToBeSigned(parseSign1(first), protectedHeader, external))
    const countersignature = { protectedHeader, algorithm: key.algorithm, keyId: key.keyId, signature }
    return encodeSign1(signed.header, signed.key.keyId, payload, signed.signature, countersignature)
  })
}

export function signPayload(kind: Exclude<Kind, 'notice'>, payload: Bytes, keys: NoticeKeys, countersign = false): Promise<Bytes> {
  return signMessage(kind, payload, keys, countersign)
}

/**
 * `countersign`: two of the keys sign, for what is too much for one. Throws `configuration_invalid` for a body that receivers would refuse, so
 * that nothing such is ever signed, and when the keys do not suffice; a key's own error when none could sign.
 */
export async function signNotice(
  body: Omit<NoticeBody, 'unknownRules'>,
  keys: NoticeKey | NoticeKeys,
  { countersign = false } = {},
): Promise<Bytes> {
  const payload = encodeNoticeBody({ ...body, unknownRules: 0 })
  const readBack = decodeNoticeBody(payload)
  if (typeof readBack === 'string') throw new RevocationError('configuration_invalid', `the notice would be refused as ${readBack}`)
  const notice = await signMessage('notice', payload, 'sign' in keys ? [keys] : keys, countersign)
  if (notice.length > noticeBytesMax) throw new RevocationError('configuration_invalid', `a notice of ${notice.length} bytes`)
  return notice
}
