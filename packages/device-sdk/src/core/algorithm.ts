// AlgorithmIdentifiers and public keys: which algorithm a DER value names, in one exact spelling each. The whole content of the
// identifier is compared, parameters included, so that NULL against absent (RFC 3279, 5758, 8410, 9881) or an odd PSS mask
// cannot slip through. An algorithm not listed here is named '' and is for the caller to refuse.

import { type Bytes, bytesOfHex, hexOf } from './bytes.ts'
import {
  childrenOf,
  contentOf,
  type Element,
  encodeElement,
  expectTag,
  integerBytes,
  octetBits,
  oidValue,
  readWhole,
  SEQUENCE,
} from './der.ts'
import { type DeviceErrorCode, fail } from './errors.ts'

/** Pairs of name and AlgorithmIdentifier content. */
const SIGNATURES = [
  'ecdsa-sha256', // 1.2.840.10045.4.3.2, RFC 5758 3.2: no parameters
  '06082a8648ce3d040302',
  'ecdsa-sha384',
  '06082a8648ce3d040303',
  'ecdsa-sha512',
  '06082a8648ce3d040304',
  'rsa-pkcs1-sha256', // 1.2.840.113549.1.1.11, RFC 8017 A.2.4: NULL
  '06092a864886f70d01010b0500',
  'rsa-pkcs1-sha384',
  '06092a864886f70d01010c0500',
  'rsa-pkcs1-sha512',
  '06092a864886f70d01010d0500',
  'ed25519', // 1.3.101.112, RFC 8410 3
  '06032b6570',
  'ml-dsa-44', // 2.16.840.1.101.3.4.3.17, RFC 9881 2
  '0609608648016503040311',
  'ml-dsa-65',
  '0609608648016503040312',
  // RSASSA-PSS (1.2.840.113549.1.1.10) with MGF1 on the same hash and a salt of the hash's length, the only form in use (RFC 8446 4.2.3).
  'rsa-pss-sha256',
  '06092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120',
  'rsa-pss-sha384',
  '06092a864886f70d01010a3034a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130',
  'rsa-pss-sha512',
  '06092a864886f70d01010a3034a00f300d06096086480165030402030500a11c301a06092a864886f70d010108300d06096086480165030402030500a203020140',
  // Named so that it can be refused by name: RFC 7030's examples and old TPM makers use it.
  'rsa-pkcs1-sha1',
  '06092a864886f70d0101050500',
]

const KEYS = [
  'P-256', // id-ecPublicKey 1.2.840.10045.2.1 with a named curve, RFC 5480 2.1.1
  '06072a8648ce3d020106082a8648ce3d030107',
  'P-384',
  '06072a8648ce3d020106052b81040022',
  'P-521',
  '06072a8648ce3d020106052b81040023',
  'RSA', // 1.2.840.113549.1.1.1
  '06092a864886f70d0101010500',
  'Ed25519',
  '06032b6570',
  'ML-DSA-44',
  '0609608648016503040311',
  'ML-DSA-65',
  '0609608648016503040312',
]

/** Octets of a public key in its BIT STRING, beside KEYS; EC points uncompressed. 0: not fixed. */
const KEY_BYTES = [65, 97, 133, 0, 32, 1312, 1952]

/** RSASSA-PSS is the longest identifier listed, 65 octets. */
const identifierBytesMax = 80

/** OIDs whose parameters legitimately vary: id-ecPublicKey, RSASSA-PSS. */
const VARIABLE = ['2a8648ce3d0201', '2a864886f70d01010a']

function indexIn(table: string[], identifier: Element, code: DeviceErrorCode): number {
  const content = contentOf(expectTag(identifier, SEQUENCE))
  if (content.length <= identifierBytesMax) {
    const hex = hexOf(content)
    for (let i = 1; i < table.length; i += 2) if (table[i] === hex) return i >> 1
  }
  const oid = oidValue(childrenOf(identifier, 2)[0])
  for (let i = 1; i < table.length; i += 2)
    if (table[i].slice(4, 4 + oid.length) === oid && VARIABLE.indexOf(oid) < 0) fail(code, 'algorithm parameters')
  return -1
}

/** Name of a signature AlgorithmIdentifier, '' when not known. Known OIDs with other parameters throw `code`. */
export function signatureAlgorithmOf(identifier: Element, code: DeviceErrorCode): string {
  const at = indexIn(SIGNATURES, identifier, code)
  return at < 0 ? '' : SIGNATURES[2 * at]
}

/** DER AlgorithmIdentifier of a signature algorithm's name. Throws `certificate_unsupported` for a name not listed. */
export function signatureAlgorithmIdentifier(name: string): Bytes {
  const at = SIGNATURES.indexOf(name)
  if (at < 0) fail('certificate_unsupported', 'algorithm ' + name)
  return encodeElement(SEQUENCE, [bytesOfHex(SIGNATURES[at + 1])])
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

function positive(element: Element, code: DeviceErrorCode): Bytes {
  const octets = integerBytes(element)
  if (octets[0] >= 0x80 || (octets.length === 1 && octets[0] === 0)) fail(code, 'RSA key')
  return octets[0] === 0 ? octets.subarray(1) : octets
}

function rsaKey(octets: Bytes, code: DeviceErrorCode): RsaKey {
  const parts = childrenOf(readWhole(octets, SEQUENCE), 2)
  if (parts.length !== 2) fail(code, 'RSA key')
  return { modulus: positive(parts[0], code), exponent: positive(parts[1], code) }
}

/** Reads a SubjectPublicKeyInfo (RFC 5280 4.1.2.7). A key of the wrong length for its algorithm throws `code`. */
export function publicKeyOf(spki: Element, code: DeviceErrorCode): PublicKey {
  const parts = childrenOf(expectTag(spki, SEQUENCE), 2)
  if (parts.length !== 2) fail(code, 'public key')
  const at = indexIn(KEYS, parts[0], code)
  const octets = octetBits(parts[1])
  if (at < 0) return { algorithm: '', bits: 0 }
  const algorithm = KEYS[2 * at]
  let bits = octets.length * 8
  if (algorithm === 'RSA') {
    const modulus = rsaKey(octets, code).modulus
    bits = modulus.length * 8
    for (let first = modulus[0]; first < 0x80; first <<= 1) bits--
  } else {
    // RFC 5480 2.2 lets points be compressed, which nobody does; one spelling a key keeps key identity simple.
    if (octets.length !== KEY_BYTES[at] || (at < 3 && octets[0] !== 4)) fail(code, 'public key')
    if (at < 3) bits = [256, 384, 521][at]
  }
  return { algorithm: algorithm, bits: bits }
}

/** Modulus and exponent of a DER SubjectPublicKeyInfo; null when it is not RSA. Trust nothing about their values. */
export function rsaKeyOf(spki: Bytes): RsaKey | null {
  const whole = readWhole(spki, SEQUENCE)
  if (publicKeyOf(whole, 'certificate_malformed').algorithm !== 'RSA') return null
  return rsaKey(octetBits(childrenOf(whole, 2)[1]), 'certificate_malformed')
}

/** Whether signatures of algorithm `name` are made by keys of `keyAlgorithm`. */
export function algorithmFitsKey(name: string, keyAlgorithm: string): boolean {
  const family = name.slice(0, 3)
  if (family === 'ecd') return keyAlgorithm[0] === 'P'
  if (family === 'rsa') return keyAlgorithm === 'RSA'
  return name !== '' && name === keyAlgorithm.toLowerCase()
}
