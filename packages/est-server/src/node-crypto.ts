// Public-key work on node:crypto, shaped for the hot path: synchronous calls, DER signatures, cached KeyObjects. Algorithm names are
// those of device-sdk/core (`ecdsa-sha256`, `rsa-pss-sha256`, `ed25519`, …).

import { constants, createPublicKey, hash, type KeyObject, type SigningOptions, verify } from 'node:crypto'
import { type Bytes, rsaKeyOf, type Verify } from '@birthmark/device-sdk/core'

export function sha256(bytes: Bytes): Bytes {
  return hash('sha256', bytes, 'buffer')
}

interface SigningParameters {
  digest: string | null
  options: SigningOptions | null
}

// RFC 4055 3.1 as core parses it: the salt is as long as the hash.
const pss: SigningOptions = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
const parameters = new Map<string, SigningParameters>()
for (const digest of ['sha256', 'sha384', 'sha512']) {
  parameters.set(`ecdsa-${digest}`, { digest, options: null })
  parameters.set(`rsa-pkcs1-${digest}`, { digest, options: null })
  parameters.set(`rsa-pss-${digest}`, { digest, options: pss })
}
for (const algorithm of ['ed25519', 'ml-dsa-44', 'ml-dsa-65']) parameters.set(algorithm, { digest: null, options: null })

/** What node:crypto is told for an algorithm; null for one it is not to be used with. */
export function signingParameters(algorithm: string): SigningParameters | null {
  return parameters.get(algorithm) ?? null
}

/**
 * SubjectPublicKeyInfo as PEM. node:crypto takes a string straight to OpenSSL, while an options object with DER is first mistaken for a KeyObject
 * and a CryptoKey, twice each, by throwing and catching: 20 against 53 µs an import, more than base64 costs.
 */
function pemOf(spki: Bytes): string {
  const base64 = Buffer.from(spki.buffer, spki.byteOffset, spki.byteLength).toString('base64')
  return `-----BEGIN PUBLIC KEY-----\n${base64}\n-----END PUBLIC KEY-----`
}

/** A key from DER SubjectPublicKeyInfo; null when OpenSSL does not take it (a point off its curve, an unknown algorithm). */
export function importKey(spki: Bytes): KeyObject | null {
  try {
    return createPublicKey(pemOf(spki))
  } catch {
    return null
  }
}

/** Whether `signature` (in X.509 form) is good. An algorithm that does not fit the key is a bad signature. */
export function verifyWith(key: KeyObject | string, algorithm: string, message: Bytes, signature: Bytes): boolean {
  const how = parameters.get(algorithm)
  if (how === undefined) return false
  try {
    if (how.options === null) return verify(how.digest, message, key, signature)
    const input = typeof key === 'string' ? { key, ...how.options } : { key, ...how.options }
    return verify(how.digest, message, input, signature)
  } catch {
    return false
  }
}

/** The same with a key that is used this once: cheaper than to import it. */
export function verifyOnce(spki: Bytes, algorithm: string, message: Bytes, signature: Bytes): boolean {
  return verifyWith(pemOf(spki), algorithm, message, signature)
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

/** The issuing CAs of a fleet's manufacturers, and devices that reconnect within minutes. A peer can fill it with 16 KiB each of its own making. */
const rememberedMax = 1024
const rememberedKeysMax = 256

const textOf = (bytes: Bytes) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')

/** RSA-8192 and e below 2^32: no CA in use goes beyond. How long a verification takes is otherwise up to whoever made the key. */
const rsaModulusBytesMax = 1024
const rsaExponentBytesMax = 4

function isAffordable(spki: Bytes): boolean {
  try {
    const rsa = rsaKeyOf(spki)
    return rsa === null || (rsa.modulus.length <= rsaModulusBytesMax && rsa.exponent.length <= rsaExponentBytesMax)
  } catch {
    // Not the key that it says it is.
    return false
  }
}

/**
 * The verifier that path validation takes. It answers at once. A signature that was found good is remembered with all that went into it, so
 * that an issuing CA's certificate costs one verification for all devices that bring it; validity and status are never remembered.
 */
export function createVerifier(): Verify {
  const good = recentlyUsed<{ spki: Bytes; algorithm: string; message: Bytes }>(rememberedMax)
  const keys = recentlyUsed<KeyObject>(rememberedKeysMax)
  return {
    verify(spki, algorithm, message, signature, done) {
      // Found by the signature's own bytes and compared whole: cheaper than to hash what in most cases is met once.
      const id = textOf(signature)
      const known = good.get(id)
      if (known && known.algorithm === algorithm && !Buffer.compare(known.message, message) && !Buffer.compare(known.spki, spki))
        return done(true)
      const keyId = textOf(spki)
      const key = keys.get(keyId) ?? (isAffordable(spki) ? importKey(spki) : null)
      if (key === null) return done(false)
      keys.set(keyId, key)
      const verdict = verifyWith(key, algorithm, message, signature)
      // Not by slice(), which of a Buffer is a view.
      if (verdict) good.set(id, { spki: new Uint8Array(spki), algorithm, message: new Uint8Array(message) })
      done(verdict)
    },
  }
}
