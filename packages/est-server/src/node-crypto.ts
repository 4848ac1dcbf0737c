// Public-key work on node:crypto, shaped for the hot path: synchronous calls, DER signatures, cached KeyObjects. Algorithm names are
// those of device-sdk/core (`ecdsa-sha256`, `rsa-pss-sha256`, `ed25519`, …).

import { constants, createHash, createPublicKey, hash, type KeyObject, type SigningOptions, verify } from 'node:crypto'
import type { Bytes, Verify } from '@birthmark/device-sdk/core'

export function sha256(bytes: Bytes): Bytes {
  return hash('sha256', bytes, 'buffer')
}

/** What node:crypto is told for an algorithm; null for one it is not to be used with. */
export function signingParameters(algorithm: string): { digest: string | null; options: SigningOptions } | null {
  const digest = /sha(?:256|384|512)$/.exec(algorithm)?.[0]
  if (digest !== undefined) {
    if (algorithm.startsWith('ecdsa-') || algorithm.startsWith('rsa-pkcs1-')) return { digest, options: {} }
    // RFC 4055 3.1 as core parses it: the salt is as long as the hash.
    const options = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
    return algorithm.startsWith('rsa-pss-') ? { digest, options } : null
  }
  return ['ed25519', 'ml-dsa-44', 'ml-dsa-65'].includes(algorithm) ? { digest: null, options: {} } : null
}

/** A key from DER SubjectPublicKeyInfo; null when OpenSSL does not take it (a point off its curve, an unknown algorithm). */
export function importKey(spki: Bytes): KeyObject | null {
  // Half of an import is spent on the stack trace of an error that OpenSSL raises and clears inside while it tries decoders.
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 0
  try {
    return createPublicKey({ key: spki as Buffer, format: 'der', type: 'spki' })
  } catch {
    return null
  } finally {
    Error.stackTraceLimit = limit
  }
}

/** Whether `signature` (in X.509 form) is good. An algorithm that does not fit the key is a bad signature. */
export function verifyWith(key: KeyObject, algorithm: string, message: Bytes, signature: Bytes): boolean {
  const parameters = signingParameters(algorithm)
  if (parameters === null) return false
  try {
    const { digest, options } = parameters
    return verify(digest, message, 'padding' in options ? { key, ...options } : key, signature)
  } catch {
    return false
  }
}

/** A map that forgets what was used longest ago. */
export function recentlyUsed<V>(most: number) {
  const entries = new Map<string, V>()
  return {
    get(id: string): V | undefined {
      const value = entries.get(id)
      if (value !== undefined) {
        entries.delete(id)
        entries.set(id, value)
      }
      return value
    },
    set(id: string, value: V): void {
      entries.delete(id)
      entries.set(id, value)
      if (entries.size > most) entries.delete(entries.keys().next().value as string)
    },
  }
}

/** About 200 issuing CAs of a fleet's manufacturers, and as many devices' certificates as reconnect within minutes. */
const rememberedMax = 4096
const rememberedKeysMax = 256

/**
 * The verifier that path validation takes. It answers at once. A signature that was found good is remembered by everything that went into
 * it, so that an issuing CA's certificate costs one verification for all devices that bring it; validity and status are never remembered.
 */
export function createVerifier(): Verify {
  const good = recentlyUsed<true>(rememberedMax)
  const keys = recentlyUsed<KeyObject>(rememberedKeysMax)
  return {
    verify(spki, algorithm, message, signature, done) {
      const spkiId = sha256(spki)
      const id = createHash('sha256')
        .update(spkiId)
        .update(sha256(message))
        .update(`${algorithm}\n`)
        .update(signature)
        .digest('base64')
      if (good.get(id)) return done(true)
      const keyId = Buffer.from(spkiId).toString('base64')
      const key = keys.get(keyId) ?? importKey(spki)
      if (key === null) return done(false)
      keys.set(keyId, key)
      const verdict = verifyWith(key, algorithm, message, signature)
      if (verdict) good.set(id, true)
      done(verdict)
    },
  }
}
