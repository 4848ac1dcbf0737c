// A key that signs notices in tests and benchmarks.

import { generateKeyPairSync, sign } from 'node:crypto'
import { type Bytes, concatBytes, encodeSign1, parseSign1 } from '@birthmark/device-sdk/core'
import { type NoticeKey, noticeKeyId } from '../sign-notice.ts'
import type { NoticeSigner } from '../signed.ts'

export function createTestNoticeKey(algorithm: -7 | -8 = -7): NoticeKey & { signer: NoticeSigner } {
  const { privateKey, publicKey } =
    algorithm === -7 ? generateKeyPairSync('ec', { namedCurve: 'P-256' }) : generateKeyPairSync('ed25519')
  const spki = new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }))
  const keyId = noticeKeyId(spki)
  return {
    algorithm,
    keyId,
    signer: { keyId, algorithm, spki },
    sign: async toBeSigned =>
      new Uint8Array(
        algorithm === -7
          ? sign('sha256', toBeSigned, { key: privateKey, dsaEncoding: 'ieee-p1363' })
          : sign(null, toBeSigned, privateKey),
      ),
  }
}

// The order of P-256's group (SEC 2, 2.4.2).
const order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n

/** The same notice with its ES256 signature (r, s) as (r, n − s): it verifies, and no key was needed to write it. */
export function twinOf(notice: Bytes): Bytes {
  const { protectedHeader, keyId, payload, signature } = parseSign1(notice)
  const s = BigInt(`0x${Buffer.from(signature.subarray(32)).toString('hex')}`)
  const other = Buffer.from((order - s).toString(16).padStart(64, '0'), 'hex')
  return encodeSign1(protectedHeader, keyId, payload, concatBytes([signature.subarray(0, 32), other]))
}
