// AlgorithmIdentifiers and public keys: which algorithm a DER value names, in one exact spelling each. The whole content of the
// identifier is compared, parameters included, so that NULL against absent (RFC 8017, 5758, 8410, 9881) or an odd PSS mask cannot slip
// through. An algorithm not listed, or listed and spelt otherwise, is named '' and is for the caller to refuse.

import { type Bytes, bytesOfHex, hexOf } from './bytes.ts'
import {
  bad,
  contentOf,
  type Element,
  encodeElement,
  integerBytes,
  octetBits,
  oidValue,
  partsOf,
  SEQUENCE,
  wholeParts,
} from './der.ts'
import { fail } from './errors.ts'

const RSA_ARC = '06092a864886f70d0101' // 1.2.840.113549.1.1
const SHA2_ARC = '300d06096086480165030402' // a SEQUENCE and 2.16.840.1.101.3.4.2
const EC_KEY = '06072a8648ce3d0201'
const ED25519 = '06032b6570' // 1.3.101.112
const ML_DSA_44 = '0609608648016503040311' // 2.16.840.1.101.3.4.3.17
const ML_DSA_65 = '0609608648016503040312'

/** Signature algorithms: names and, at the same place, the content of their AlgorithmIdentifier. */
const NAMES = ['ed25519', 'ml-dsa-44', 'ml-dsa-65']
const IDENTIFIERS = [ED25519, ML_DSA_44, ML_DSA_65]
for (let i = 0; i < 3; i++) {
  const sha = 'sha' + [256, 384, 512][i]
  const mask = SHA2_ARC + '0' + (i + 1) + '0500'
  NAMES.push('ecdsa-' + sha, 'rsa-pkcs1-' + sha, 'rsa-pss-' + sha)
  IDENTIFIERS.push(
    '06082a8648ce3d04030' + (i + 2), // 1.2.840.10045.4.3.2 to .4, no parameters
    RSA_ARC + '0' + 'bcd'[i] + '0500', // .11 to .13, NULL
    // RSASSA-PSS with MGF1 on the same hash and a salt of its length, the only form in use (RFC 8446 4.2.3).
    RSA_ARC + '0a3034a00f' + mask + 'a11c301a06092a864886f70d010108' + mask + 'a2030201' + [20, 30, 40][i],
  )
}

/** Everything parsed that is not broken: no SHA-1. */
export const defaultAlgorithms = NAMES.slice()

// Named so that it can be refused by name, or allowed for the TPM makers of 2005.
NAMES.push('rsa-pkcs1-sha1')
IDENTIFIERS.push(RSA_ARC + '050500')

/** Keys: name, content of the AlgorithmIdentifier, octets of the key (EC points uncompressed). */
const KEYS: (string | number)[] = [
  'RSA',
  RSA_ARC + '010500',
  0,
  'P-256', // id-ecPublicKey 1.2.840.10045.2.1 with a named curve, RFC 5480 2.1.1
  EC_KEY + '06082a8648ce3d030107',
  65,
  'P-384',
  EC_KEY + '06052b81040022',
  97,
  'P-521',
  EC_KEY + '06052b81040023',
  133,
  'Ed25519',
  ED25519,
  32,
  'ML-DSA-44',
  ML_DSA_44,
  1312,
  'ML-DSA-65',
  ML_DSA_65,
  1952,
]

/** The longest identifier listed is RSASSA-PSS's. */
const identifierBytesMax = 80

/** Content of an AlgorithmIdentifier as hex, '' for one too long to be listed. */
function identifierHex(identifier: Element): string {
  oidValue(partsOf(identifier, SEQUENCE, 1, 2)[0])
  const content = contentOf(identifier)
  return content.length > identifierBytesMax ? '' : hexOf(content)
}

/** Name of a signature AlgorithmIdentifier, '' when not known. */
export function signatureAlgorithmOf(identifier: Element): string {
  return NAMES[IDENTIFIERS.indexOf(identifierHex(identifier))] || ''
}

/** DER AlgorithmIdentifier of a signature algorithm's name. Throws `certificate_unsupported` for a name not listed. */
export function signatureAlgorithmIdentifier(name: string): Bytes {
  const at = NAMES.indexOf(name)
  if (at < 0) fail('certificate_unsupported', name)
  return encodeElement(SEQUENCE, [bytesOfHex(IDENTIFIERS[at])])
}

/** `algorithm`: '' when not known. `bits`: RSA modulus, EC field, or the key's own length; 0 when not known. */
export interface PublicKey {
  algorithm: string
  bits: number
}

/** `modulus`, `exponent`: unsigned big-endian, no leading zero. */
export interface RsaKey {
  modulus: Bytes
  exponent: Bytes
}

/** Reads a SubjectPublicKeyInfo (RFC 5280 4.1.2.7). A key of the wrong form for its algorithm throws `der_malformed`. */
export function publicKeyOf(spki: Element): PublicKey {
  const parts = partsOf(spki, SEQUENCE, 2, 2)
  const octets = octetBits(parts[1])
  const at = KEYS.indexOf(identifierHex(parts[0]))
  if (at < 0) return { algorithm: '', bits: 0 }
  const algorithm = KEYS[at - 1] as string
  const curve = algorithm[0] === 'P'
  let bits = curve ? +algorithm.slice(2) : octets.length * 8
  if (at === 1) {
    const modulus = integerBytes(wholeParts(octets, 2, 2)[0])
    bits = modulus.length * 8
    for (let i = 0; i < 16 && !((modulus[i >> 3] << (i & 7)) & 0x80); i++) bits--
  } else if (octets.length !== KEYS[at + 1] || (curve && octets[0] !== 4))
    // RFC 5480 2.2 lets points be compressed, which nobody does; one spelling a key keeps key identity simple.
    bad(spki.start)
  return { algorithm: algorithm, bits: bits }
}

function positive(element: Element): Bytes {
  const octets = integerBytes(element)
  if (octets[0] > 0x7f) bad(element.start)
  return octets[0] ? octets : octets.subarray(1)
}

/** Modulus and exponent of a DER SubjectPublicKeyInfo; null when it is not RSA. Trust nothing about their values. */
export function rsaKeyOf(spki: Bytes): RsaKey | null {
  const parts = wholeParts(spki, 2, 2)
  if (identifierHex(parts[0]) !== KEYS[1]) return null
  const key = wholeParts(octetBits(parts[1]), 2, 2)
  return { modulus: positive(key[0]), exponent: positive(key[1]) }
}

/** Whether signatures of algorithm `name` are made by keys of `keyAlgorithm`. */
export function algorithmFitsKey(name: string, keyAlgorithm: string): boolean {
  const family = name.split('-')[0]
  return family === 'ecdsa'
    ? keyAlgorithm[0] === 'P'
    : family === 'rsa'
      ? keyAlgorithm === 'RSA'
      : name === keyAlgorithm.toLowerCase()
}
