// Which public keys may get a certificate at all. Asked before any signature is verified with the key: a key chosen by an attacker decides
// how long that takes. FAULTS 73; CA/Browser Forum Baseline Requirements 6.1.6 for the RSA numbers.

import { type Csr, rsaKeyOf } from '@birthmark/device-sdk/core'
import { type Refusal, refusal } from './refusal.ts'

/** Beyond 4,096 bits a verification costs as much as eight P-256 ones and no device gains by it. */
const rsaBitsMin = 2048
const rsaBitsMax = 4096

// A modulus with a factor this small was not made by any key generator: the odd primes below 256.
const smallPrimes = [
  3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113, 127, 131,
  137, 139, 149, 151, 157, 163, 167, 173, 179, 181, 191, 193, 197, 199, 211, 223, 227, 229, 233, 239, 241, 251,
]

function remainder(modulus: Uint8Array, by: number): number {
  let rest = 0
  for (const octet of modulus) rest = (rest * 256 + octet) % by
  return rest
}

/** Null when the key will do. Core's parser has seen to the encoding: one spelling a key, EC points uncompressed. */
export function keyRefusal(csr: Pick<Csr, 'keyAlgorithm' | 'keyBits' | 'spki'>, allowed: readonly string[]): Refusal | null {
  if (!allowed.includes(csr.keyAlgorithm))
    return refusal('key_unsupported', `key algorithm ${csr.keyAlgorithm || 'unknown'}; allowed: ${allowed.join(', ')}`)
  if (csr.keyAlgorithm !== 'RSA') return null
  if (csr.keyBits < rsaBitsMin || csr.keyBits > rsaBitsMax)
    return refusal('key_weak', `RSA modulus of ${csr.keyBits} bits; ${rsaBitsMin} to ${rsaBitsMax} are allowed`)
  const rsa = rsaKeyOf(csr.spki)
  if (rsa === null) return refusal('key_unsupported', 'not an RSA key')
  const { modulus, exponent } = rsa
  if (exponent.length !== 3 || exponent[0] !== 1 || exponent[1] !== 0 || exponent[2] !== 1)
    return refusal('key_weak', 'RSA public exponent other than 65537')
  if ((modulus[modulus.length - 1] & 1) === 0) return refusal('key_weak', 'RSA modulus is even')
  const factor = smallPrimes.find(prime => remainder(modulus, prime) === 0)
  return factor === undefined ? null : refusal('key_weak', `RSA modulus is divisible by ${factor}`)
}
