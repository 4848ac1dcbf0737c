// Keys, hash and randomness on Moddable. A private key is a number of 32 octets in non-volatile storage, which the firmware encrypts (NVS or flash
// encryption); it leaves this file only for Moddable's ECDSA. Every secret number, a signature's included, comes from the chip's own source.

import type { Hash, KeyStore, Rng } from '../../agent/ports.ts'
import { type Bytes, bytesOfHex, hexOf } from '../../core/bytes.ts'
import { deviceError } from '../../core/errors.ts'
import { spkiOfPoint } from '../../core/p256-spki.ts'
import type { ModdableCrypto, ModdablePreference } from './modules.ts'

const DOMAIN = 'birthmark.key'
/** The order of P-256's group (SEC 2, 2.4.2). */
const order = BigInt('0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551')

/** A view's own octets in a buffer of their own: Moddable's modules take buffers. */
function bufferOf(bytes: Bytes): ArrayBuffer {
  return new Uint8Array(bytes).buffer
}

export function moddableHash(crypto: ModdableCrypto): Hash {
  return {
    sha256(bytes) {
      const digest = new crypto.Digest('SHA256')
      digest.write(bufferOf(bytes))
      return new Uint8Array(digest.close())
    },
  }
}

/** Throws `random_unavailable` where the source gives too little or nothing but one octet over and over. */
export function moddableRng(crypto: ModdableCrypto): Rng {
  return {
    random(length) {
      const bytes = new Uint8Array(crypto.entropy(length))
      // 8 equal octets in a row come once in 10^17: a source that is off.
      if (bytes.length !== length || (length > 7 && bytes.every(one => one === bytes[0]))) throw deviceError('random_unavailable')
      return bytes
    },
  }
}

/** 1 … order − 1, from 8 octets more than it has: its bias is below 2⁻⁶⁴ (FIPS 186-5 A.2.1). */
function secretNumber(rng: Rng): bigint {
  return (BigInt('0x' + hexOf(rng.random(40))) % (order - BigInt(1))) + BigInt(1)
}

export interface ModdableKeys extends KeyStore {
  /** An ECDSA signature, DER, over a SHA-256 digest: TLS keeps no more of what it signs. Throws `key_unavailable`, `random_unavailable`. */
  signDigest(slot: string, digest: Bytes): Bytes
}

export function moddableKeys(crypto: ModdableCrypto, preference: ModdablePreference): ModdableKeys {
  const rng = moddableRng(crypto)
  const hash = moddableHash(crypto)
  const read = (slot: string): Bytes | null => {
    const found = preference.get(DOMAIN, slot)
    return found instanceof ArrayBuffer && found.byteLength === 32 ? new Uint8Array(found) : null
  }
  const spkiOf = (key: Bytes): Bytes => spkiOfPoint(new Uint8Array(new crypto.Curve('secp256r1').dh(bufferOf(key))))
  const signDigest = (slot: string, digest: Bytes): Bytes => {
    const key = read(slot)
    if (!key) throw deviceError('key_unavailable', slot)
    const curve = new crypto.Curve('secp256r1')
    curve.k = secretNumber(rng)
    return new Uint8Array(new crypto.ECDSA(BigInt('0x' + hexOf(key)), curve).sign(bufferOf(digest), true))
  }
  return {
    algorithm: 'ecdsa-sha256',
    signDigest,
    generate(slot, done) {
      let key: Bytes
      try {
        key = bytesOfHex(secretNumber(rng).toString(16).padStart(64, '0'))
        preference.set(DOMAIN, slot, bufferOf(key))
        // What did not reach the medium must not be enrolled.
        if (hexOf(read(slot) || new Uint8Array(0)) !== hexOf(key)) throw deviceError('store_write', slot)
      } catch (error) {
        done((error as { code?: string }).code ? (error as never) : deviceError('store_write', String(error)), null)
        return
      }
      done(null, spkiOf(key))
    },
    publicKey(slot, done) {
      const key = read(slot)
      done(null, key && spkiOf(key))
    },
    sign(slot, message, done) {
      let signature: Bytes
      try {
        signature = signDigest(slot, hash.sha256(message))
      } catch (error) {
        done((error as { code?: string }).code ? (error as never) : deviceError('key_unavailable', String(error)), null)
        return
      }
      done(null, signature)
    },
  }
}
