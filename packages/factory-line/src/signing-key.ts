// Keys that sign on the line, and the check of a signature. A software key is a PKCS#8 file that only its owner may read;
// a key in an HSM implements the same interface.

import { createPrivateKey, createPublicKey, generateKeyPairSync, hash, type KeyObject, sign, verify } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { algorithmFitsKey, type Bytes, hexOf, type RsaKey, rsaKeyOf } from '@birthmark/device-sdk/core'
import { FactoryError } from './errors.ts'

export interface SigningKey {
  /** DER SubjectPublicKeyInfo. */
  spki: Bytes
  /** A signature algorithm name of the core, such as `ecdsa-sha256`. */
  algorithm: string
  /** Hashes and signs; the signature in X.509 form. A key of this process answers at once, one in a token later. */
  sign(message: Bytes): Bytes | Promise<Bytes>
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
    sign: message => sign(hash, message, privateKey),
  }
}

/** With what a key of this kind signs, public or private. Throws `authority_mismatch` for a kind that nothing here signs with. */
export function algorithmOf(key: KeyObject): [algorithm: string, hash: string | null] {
  const { namedCurve } = key.asymmetricKeyDetails ?? {}
  const type = key.asymmetricKeyType
  if (type === 'ec' && namedCurve === 'prime256v1') return ['ecdsa-sha256', 'sha256']
  if (type === 'ec' && namedCurve === 'secp384r1') return ['ecdsa-sha384', 'sha384']
  if (type === 'rsa') return ['rsa-pkcs1-sha256', 'sha256']
  if (type === 'ed25519' || type === 'ml-dsa-44' || type === 'ml-dsa-65') return [type, null]
  throw new FactoryError('authority_mismatch', `the line does not sign with keys of type ${namedCurve ?? type}`)
}

/** As PEM: Node takes a string straight to OpenSSL, and DER in an object only after it was taken for two other things by throwing. */
function pemOf(spki: Bytes): string {
  const base64 = Buffer.from(spki.buffer, spki.byteOffset, spki.length).toString('base64')
  return `-----BEGIN PUBLIC KEY-----\n${base64}\n-----END PUBLIC KEY-----`
}

/** Throws when the bytes are no key. */
export function importKey(spki: Bytes): KeyObject {
  return createPublicKey(pemOf(spki))
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

/**
 * The same for a key that is used this once and that the core has read as `keyAlgorithm`: a KeyObject is neither made nor collected. A key that
 * does not parse is false.
 */
export function verifyOnce(spki: Bytes, keyAlgorithm: string, algorithm: string, message: Bytes, signature: Bytes): boolean {
  const known = VERIFIERS[algorithm]
  return !!known && algorithmFitsKey(algorithm, keyAlgorithm) && check(pemOf(spki), known.hash, message, signature)
}

/** The same with a key that was imported before. */
export function verifyWithKey(key: KeyObject, algorithm: string, message: Bytes, signature: Bytes): boolean {
  const known = VERIFIERS[algorithm]
  return !!known && key.asymmetricKeyType === known.type && check(key, known.hash, message, signature)
}

function check(key: KeyObject | string, hash: string | null, message: Bytes, signature: Bytes): boolean {
  try {
    return verify(hash, message, key, signature)
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
 * Why a public key is not for a birth certificate, or null. FAULTS 73: judged before any signature is verified with it, and from the DER alone,
 * so that OpenSSL meets only keys of sizes that it handles quickly. `algorithm`: what the core read in the same bytes.
 */
export function refuseKey(spki: Bytes, algorithm: string): string | null {
  switch (algorithm) {
    case 'RSA': {
      const { modulus, exponent } = rsaKeyOf(spki) as RsaKey
      const bits = modulus.length * 8 - Math.clz32(modulus[0]) + 24
      // Above 4096 bits a verify costs more than a birth certificate is worth; e ≠ 65537 is a sign of a home-made generator.
      if (bits < 2048 || bits > 4096) return `RSA of ${bits} bits; 2048 to 4096 are accepted`
      return hexOf(exponent) === '010001' ? null : 'RSA exponent other than 65537'
    }
    case 'P-256':
    case 'P-384':
    case 'Ed25519':
    case 'ML-DSA-44':
    case 'ML-DSA-65':
      return null
    default:
      return `keys of type ${algorithm || 'unknown'}`
  }
}

export function sha256(bytes: Bytes): Bytes {
  return hash('sha256', bytes, 'buffer')
}

export function sha256Hex(bytes: Bytes): string {
  return hash('sha256', bytes, 'hex')
}
