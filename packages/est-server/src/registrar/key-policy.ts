// Which public keys may get a certificate at all. Asked before any signature is verified with the key: a key chosen by an attacker decides
// how long that takes. FAULTS 73; CA/Browser Forum Baseline Requirements 6.1.6 for the RSA numbers.

import { bytesOfHex, type Csr, equalBytes, rsaKeyOf } from '@birthmark/device-sdk/core'
import { type Refusal, refusal } from './refusal.ts'
import { modulusWeakness } from './rsa-weakness.ts'

/**
 * Encodings of the eight points of small order on edwards25519 and their second spellings, without the sign bit. With such a key anybody signs:
 * signatures that verify for it are made without a private key (RFC 8032 leaves the check to protocols).
 */
const smallOrder = [
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
].map(bytesOfHex)

function hasSmallOrder(spki: Uint8Array): boolean {
  const key = spki.slice(-32)
  key[31] &= 0x7f
  return smallOrder.some(point => equalBytes(point, key))
}

/** Beyond 4,096 bits a verification costs as much as eight P-256 ones and no device gains by it. */
const rsaBitsMin = 2048
const rsaBitsMax = 4096

/** Null when the key will do. Core's parser has seen to the encoding: one spelling a key, EC points uncompressed. */
export function keyRefusal(csr: Pick<Csr, 'keyAlgorithm' | 'keyBits' | 'spki'>, allowed: readonly string[]): Refusal | null {
  if (!allowed.includes(csr.keyAlgorithm))
    return refusal('key_unsupported', `key algorithm ${csr.keyAlgorithm || 'unknown'}; allowed: ${allowed.join(', ')}`)
  if (csr.keyAlgorithm === 'Ed25519' && hasSmallOrder(csr.spki)) return refusal('key_weak', 'a point of small order')
  if (csr.keyAlgorithm !== 'RSA') return null
  if (csr.keyBits < rsaBitsMin || csr.keyBits > rsaBitsMax)
    return refusal('key_weak', `RSA modulus of ${csr.keyBits} bits; ${rsaBitsMin} to ${rsaBitsMax} are allowed`)
  const rsa = rsaKeyOf(csr.spki)
  if (rsa === null) return refusal('key_unsupported', 'not an RSA key')
  const { modulus, exponent } = rsa
  if (exponent.length !== 3 || exponent[0] !== 1 || exponent[1] !== 0 || exponent[2] !== 1)
    return refusal('key_weak', 'RSA public exponent other than 65537')
  if ((modulus[modulus.length - 1] & 1) === 0) return refusal('key_weak', 'RSA modulus is even')
  const weakness = modulusWeakness(modulus)
  return weakness === null ? null : refusal('key_weak', `RSA modulus: ${weakness}`)
}
