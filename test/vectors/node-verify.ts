// Signature verification by node:crypto behind the SDK's Verify port, for suites that run the core without an agent.
import { constants, createHash, createPublicKey, type KeyObject, verify } from 'node:crypto'
import type { Verify } from '@birthmark/device-sdk/agent'

const imported = new Map<string, KeyObject>()

function publicKey(spki: Uint8Array): KeyObject {
  const id = createHash('sha256').update(spki).digest('base64')
  const key = imported.get(id) ?? createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })
  imported.set(id, key)
  return key
}

/** Whether `signature` is good. An algorithm or key that cannot be used is a bad signature. */
export function verifyNow(spki: Uint8Array, algorithm: string, message: Uint8Array, signature: Uint8Array): boolean {
  try {
    const key = publicKey(spki)
    const hash = algorithm.slice(-6).startsWith('sha') ? algorithm.slice(-6) : algorithm.endsWith('sha1') ? 'sha1' : null
    if (algorithm.startsWith('rsa-pss-'))
      return verify(
        hash,
        message,
        { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST },
        signature,
      )
    return verify(hash, message, key, signature)
  } catch {
    return false
  }
}

/** Answers at once. */
export const nodeVerify: Verify = {
  verify: (spki, algorithm, message, signature, done) => done(verifyNow(spki, algorithm, message, signature)),
}
