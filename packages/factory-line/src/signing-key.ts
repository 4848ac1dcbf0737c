// Keys that sign on the line, and the check of a signature. A software key is a PKCS#8 file that only its owner may read;
// a key in an HSM implements the same interface.

import { createPrivateKey, createPublicKey, generateKeyPairSync, hash, type KeyObject, sign, verify } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import type { Bytes } from '@birthmark/device-sdk/core'
import { FactoryError } from './errors.ts'

export interface SigningKey {
  /** DER SubjectPublicKeyInfo. */
  spki: Bytes
  /** A signature algorithm name of the core, such as `ecdsa-sha256`. */
  algorithm: string
  /** Hashes and signs; the signature in X.509 form. */
  sign(message: Bytes): Promise<Bytes>
}

export type KeyType = 'P-256' | 'P-384' | 'RSA-2048' | 'RSA-3072' | 'Ed25519' | 'ML-DSA-44' | 'ML-DSA-65'
export const keyTypes: KeyType[] = ['P-256', 'P-384', 'RSA-2048', 'RSA-3072', 'Ed25519', 'ML-DSA-44', 'ML-DSA-65']

/** A fresh key pair of one of the types that birth certificates may carry. */
export function generateKeyPair(type: KeyType = 'P-256'): { privateKey: KeyObject; publicKey: KeyObject } {
  switch (type) {
    case 'P-256':
    case 'P-384':
      return generateKeyPairSync('ec', { namedCurve: type })
    case 'RSA-2048':
    case 'RSA-3072':
      return generateKeyPairSync('rsa', { modulusLength: Number(type.slice(4)) })
    case 'Ed25519':
      return generateKeyPairSync('ed25519')
    case 'ML-DSA-44':
      return generateKeyPairSync('ml-dsa-44')
    case 'ML-DSA-65':
      return generateKeyPairSync('ml-dsa-65')
  }
}

/** A fresh key and its PKCS#8 PEM, for whoever stores it. */
export function generateSigningKey(type: KeyType = 'P-256'): { key: SigningKey; pem: string } {
  const { privateKey } = generateKeyPair(type)
  return { key: softwareKey(privateKey), pem: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string }
}

/** Reads a PKCS#8 key. A file that others may read is refused: whoever read it may already sign. */
export function readSigningKey(file: string): SigningKey {
  let pem: string
  try {
    if ((statSync(file).mode & 0o077) !== 0)
      throw new FactoryError('authority_mismatch', `${file} may be read by others; set its mode to 0600 and consider the key known`)
    pem = readFileSync(file, 'utf8')
  } catch (error) {
    if (error instanceof FactoryError) throw error
    throw new FactoryError('authority_missing', `cannot read ${file}`, error)
  }
  try {
    return softwareKey(createPrivateKey(pem))
  } catch (error) {
    throw new FactoryError('authority_mismatch', `${file} holds no usable private key`, error)
  }
}

/** A private key of this process as a signer. Throws `authority_mismatch` for a kind that nothing here signs with. */
export function softwareKey(privateKey: KeyObject): SigningKey {
  const [algorithm, hash] = algorithmOf(privateKey)
  return {
    spki: createPublicKey(privateKey).export({ type: 'spki', format: 'der' }),
    algorithm,
    sign: async message => sign(hash, message, privateKey),
  }
}

function algorithmOf(key: KeyObject): [algorithm: string, hash: string | null] {
  const { namedCurve } = key.asymmetricKeyDetails ?? {}
  const type = key.asymmetricKeyType
  if (type === 'ec' && namedCurve === 'prime256v1') return ['ecdsa-sha256', 'sha256']
  if (type === 'ec' && namedCurve === 'secp384r1') return ['ecdsa-sha384', 'sha384']
  if (type === 'rsa') return ['rsa-pkcs1-sha256', 'sha256']
  if (type === 'ed25519' || type === 'ml-dsa-44' || type === 'ml-dsa-65') return [type, null]
  throw new FactoryError('authority_mismatch', `the line does not sign with keys of type ${namedCurve ?? type}`)
}

/** Throws when the bytes are no key. Node would collect a stack trace for an error that does not happen: half of the cost (SPEED). */
export function importKey(spki: Bytes): KeyObject {
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 0
  try {
    return createPublicKey({ key: Buffer.from(spki.buffer, spki.byteOffset, spki.length), format: 'der', type: 'spki' })
  } finally {
    Error.stackTraceLimit = limit
  }
}

/** Whether `signature` over `message` is by `spki`. Algorithms that are not named here, and keys that do not parse, are false. */
export function verifySignature(spki: Bytes, algorithm: string, message: Bytes, signature: Bytes): boolean {
  let key: KeyObject
  try {
    key = importKey(spki)
  } catch {
    return false
  }
  return verifyWithKey(key, algorithm, message, signature)
}

/** The same with a key that was imported before. */
export function verifyWithKey(key: KeyObject, algorithm: string, message: Bytes, signature: Bytes): boolean {
  const known = VERIFIERS[algorithm]
  if (!known || key.asymmetricKeyType !== known.type) return false
  try {
    return verify(known.hash, message, key, signature)
  } catch {
    // A malformed signature: what it claims was not proven.
    return false
  }
}

/** The same, as the core's path validation asks for it; answers at once. */
export const signatureVerifier = {
  verify(spki: Bytes, algorithm: string, message: Bytes, signature: Bytes, done: (good: boolean) => void): void {
    done(verifySignature(spki, algorithm, message, signature))
  },
}

// SHA-1 is absent on purpose.
const VERIFIERS: Record<string, { type: string; hash: string | null } | undefined> = {
  'ecdsa-sha256': { type: 'ec', hash: 'sha256' },
  'ecdsa-sha384': { type: 'ec', hash: 'sha384' },
  'ecdsa-sha512': { type: 'ec', hash: 'sha512' },
  'rsa-pkcs1-sha256': { type: 'rsa', hash: 'sha256' },
  'rsa-pkcs1-sha384': { type: 'rsa', hash: 'sha384' },
  'rsa-pkcs1-sha512': { type: 'rsa', hash: 'sha512' },
  ed25519: { type: 'ed25519', hash: null },
  'ml-dsa-44': { type: 'ml-dsa-44', hash: null },
  'ml-dsa-65': { type: 'ml-dsa-65', hash: null },
}

/**
 * Judges a public key for a birth certificate: the key, or why not. FAULTS 73: judged before any signature is verified with it.
 * `algorithm`: what the core read in the same bytes; asking Node for a curve's name costs as much as importing the key.
 */
export function judgeKey(spki: Bytes, algorithm: string): { key: KeyObject } | { reason: string } {
  let key: KeyObject
  try {
    key = importKey(spki)
  } catch {
    return { reason: 'the public key does not parse' }
  }
  const reason = refuse(key, algorithm)
  return reason ? { reason } : { key }
}

function refuse(key: KeyObject, algorithm: string): string | null {
  switch (algorithm) {
    case 'P-256':
    case 'P-384':
      return key.asymmetricKeyType === 'ec' ? null : `key type ${key.asymmetricKeyType}`
    case 'RSA': {
      const { modulusLength, publicExponent } = key.asymmetricKeyDetails ?? {}
      // Above 4096 bits a verify costs more than a birth certificate is worth; e ≠ 65537 is a sign of a home-made generator.
      if (modulusLength === undefined || modulusLength < 2048 || modulusLength > 4096)
        return `RSA of ${modulusLength} bits; 2048 to 4096 are accepted`
      return publicExponent === 65537n ? null : 'RSA exponent other than 65537'
    }
    case 'Ed25519':
    case 'ML-DSA-44':
    case 'ML-DSA-65':
      return null
    default:
      return `key type ${key.asymmetricKeyDetails?.namedCurve ?? key.asymmetricKeyType}`
  }
}

export function sha256(bytes: Bytes): Bytes {
  return hash('sha256', bytes, 'buffer')
}

export function sha256Hex(bytes: Bytes): string {
  return hash('sha256', bytes, 'hex')
}
