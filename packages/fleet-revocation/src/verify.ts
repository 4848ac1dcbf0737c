// Signature checks on the server side: node:crypto behind the core's `Verify`, with the imported keys kept, since importing one costs a
// third of a verification.

import { createPublicKey, type KeyObject, verify } from 'node:crypto'
import type { NoticeVerify } from './signed.ts'

const hashes: { [algorithm: string]: string | null } = {
  'ecdsa-sha256': 'sha256',
  'ecdsa-sha384': 'sha384',
  'ecdsa-sha512': 'sha512',
  'rsa-pkcs1-sha256': 'sha256',
  'rsa-pkcs1-sha384': 'sha384',
  'rsa-pkcs1-sha512': 'sha512',
  ed25519: null,
  'ml-dsa-44': null,
  'ml-dsa-65': null,
}

// Issuer and signer keys: a handful. More than that is somebody's certificates, not ours.
const keysMax = 64

/** Answers at once. An algorithm that isn't listed, or a key that can't be imported, is a bad signature. */
export function nodeVerify(): NoticeVerify {
  const keys = new Map<string, KeyObject>()

  function keyOf(spki: Uint8Array): KeyObject {
    const name = Buffer.from(spki).toString('base64')
    const known = keys.get(name)
    if (known) return known
    const key = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })
    if (keys.size >= keysMax) keys.delete(keys.keys().next().value ?? '')
    keys.set(name, key)
    return key
  }

  return {
    verify(spki, algorithm, message, signature, done) {
      const digest = hashes[algorithm]
      let good = false
      if (digest !== undefined) {
        try {
          good = verify(digest, message, keyOf(spki), signature)
        } catch {
          good = false
        }
      }
      done(good)
    },
  }
}
