// Keys that sign on the line, and the check of a signature. A software key is a PKCS#8 file that only its owner may read;
// a key in an HSM implements the same interface.

import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto'
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

/** A fresh P-256 key and its PKCS#8 PEM, for whoever stores it. */
export function generateSigningKey(): { key: SigningKey; pem: string } {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return { key: softwareKey(privateKey), pem: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string }
}

/** Reads a P-256 PKCS#8 key. A file that others may read is refused: whoever read it may already sign. */
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

function softwareKey(privateKey: KeyObject): SigningKey {
  if (privateKey.asymmetricKeyType !== 'ec' || privateKey.asymmetricKeyDetails?.namedCurve !== 'prime256v1')
    throw new FactoryError('authority_mismatch', 'the line signs with P-256 keys')
  return {
    spki: createPublicKey(privateKey).export({ type: 'spki', format: 'der' }),
    algorithm: 'ecdsa-sha256',
    sign: async message => sign('sha256', message, privateKey),
  }
}

/** Whether `signature` over `message` is by `spki`. Algorithms that are not named here, and keys that do not parse, are false. */
export function verifySignature(spki: Bytes, algorithm: string, message: Bytes, signature: Bytes): boolean {
  const known = VERIFIERS[algorithm]
  if (!known) return false
  try {
    const key = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })
    if (key.asymmetricKeyType !== known.type) return false
    return verify(known.hash, message, key, signature)
  } catch {
    // A malformed key or signature: what it claims was not proven.
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

/** Public keys that a birth certificate may carry; null, or why not. FAULTS 73: judged before any signature is verified with it. */
export function refuseKey(spki: Bytes): string | null {
  let key: KeyObject
  try {
    key = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })
  } catch {
    return 'the public key does not parse'
  }
  const details = key.asymmetricKeyDetails ?? {}
  switch (key.asymmetricKeyType) {
    case 'ec':
      return details.namedCurve === 'prime256v1' || details.namedCurve === 'secp384r1' ? null : `curve ${details.namedCurve}`
    case 'rsa':
      // Above 4096 bits a verify costs more than a birth certificate is worth; e ≠ 65537 is a sign of a home-made generator.
      if (details.modulusLength === undefined || details.modulusLength < 2048 || details.modulusLength > 4096)
        return `RSA of ${details.modulusLength} bits; 2048 to 4096 are accepted`
      return details.publicExponent === 65537n ? null : 'RSA exponent other than 65537'
    case 'ed25519':
    case 'ml-dsa-44':
    case 'ml-dsa-65':
      return null
    default:
      return `key type ${key.asymmetricKeyType}`
  }
}

export function sha256(bytes: Bytes): Bytes {
  return createHash('sha256').update(bytes).digest()
}

export function sha256Hex(bytes: Bytes): string {
  return createHash('sha256').update(bytes).digest('hex')
}
