// A key that signs notices in tests and benchmarks.

import { generateKeyPairSync, sign } from 'node:crypto'
import type { NoticeSigner } from '../notice.ts'
import { type NoticeKey, noticeKeyId } from '../sign-notice.ts'

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
