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

/** Signature algorithms: name and content of the AlgorithmIdentifier, by turns. */
const SIGNATURES =
  // 1.2.840.10045.4.3.2 to .4, no parameters
  (
    'ecdsa-sha256 06082a8648ce3d040302 ecdsa-sha384 06082a8648ce3d040303 ecdsa-sha512 06082a8648ce3d040304 ' +
    // 1.2.840.113549.1.1.11 to .13, NULL
    'rsa-pkcs1-sha256 06092a864886f70d01010b0500 rsa-pkcs1-sha384 06092a864886f70d01010c0500 rsa-pkcs1-sha512 06092a864886f70d01010d0500 ' +
    // RSASSA-PSS, .10, with MGF1 on the same hash and a salt of its length, the only form in use (RFC 8446 4.2.3).
    'rsa-pss-sha256 06092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120 ' +
    'rsa-pss-sha384 06092a864886f70d01010a3034a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130 ' +
    'rsa-pss-sha512 06092a864886f70d01010a3034a00f300d06096086480165030402030500a11c301a06092a864886f70d010108300d06096086480165030402030500a203020140 ' +
    // 1.3.101.112; 2.16.840.1.101.3.4.3.17 and .18
    'ed25519 06032b6570 ml-dsa-44 0609608648016503040311 ml-dsa-65 0609608648016503040312 ' +
    // .5, named so that it can be refused by name, or allowed for the TPM makers of 2005.
    'rsa-pkcs1-sha1 06092a864886f70d0101050500'
  ).split(' ')

/** Everything parsed that is not broken: no SHA-1. */
export const defaultAlgorithms = /* @__PURE__ */ SIGNATURES.filter((name, i) => !(i & 1) && name !== 'rsa-pkcs1-sha1')

/** Keys: name, content of the AlgorithmIdentifier, octets of the key (EC points uncompressed). */
const KEYS =
  // 1.2.840.113549.1.1.1; id-ecPublicKey 1.2.840.10045.2.1 with a named curve, RFC 5480 2.1.1
  (
    'RSA 06092a864886f70d0101010500 0 P-256 06072a8648ce3d020106082a8648ce3d030107 65 ' +
    'P-384 06072a8648ce3d020106052b81040022 97 P-521 06072a8648ce3d020106052b81040023 133 ' +
    'Ed25519 06032b6570 32 ML-DSA-44 0609608648016503040311 1312 ML-DSA-65 0609608648016503040312 1952'
  ).split(' ')

/** Content of an AlgorithmIdentifier as hex, to be found in a table. */
function identifierHex(identifier: Element): string {
  oidValue(partsOf(identifier, SEQUENCE, 1, 2)[0])
  return hexOf(contentOf(identifier))
}

/** Name of a signature AlgorithmIdentifier, '' when not known. */
export function signatureAlgorithmOf(identifier: Element): string {
  return SIGNATURES[SIGNATURES.indexOf(identifierHex(identifier)) - 1] || ''
}

/** DER AlgorithmIdentifier of a signature algorithm's name. Throws `certificate_unsupported` for a name not listed. */
export function signatureAlgorithmIdentifier(name: string): Bytes {
  const at = SIGNATURES.indexOf(name)
  if (at < 0) fail('certificate_unsupported', name)
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

/** Reads a SubjectPublicKeyInfo (RFC 5280 4.1.2.7). A key of the wrong form for its algorithm throws `der_malformed`. */
export function publicKeyOf(spki: Element): PublicKey {
  const parts = partsOf(spki, SEQUENCE, 2, 2)
  const octets = octetBits(parts[1])
  const at = KEYS.indexOf(identifierHex(parts[0]))
  const algorithm = KEYS[at - 1]
  if (!algorithm) return { algorithm: '', bits: 0 }
  const curve = algorithm[0] === 'P'
  let bits = curve ? +algorithm.slice(2) : octets.length * 8
  if (at === 1) {
    const modulus = integerBytes(wholeParts(octets, 2, 2)[0])
    bits = modulus.length * 8 - 8
    for (let first = modulus[0]; first; first >>= 1) bits++
  } else if (octets.length !== +KEYS[at + 1] || (curve && octets[0] !== 4))
    // RFC 5480 2.2 lets points be compressed, which nobody does; one spelling a key keeps key identity simple.
    bad(spki.head)
  return { algorithm: algorithm, bits: bits }
}

function positive(element: Element): Bytes {
  const octets = integerBytes(element)
  if (octets[0] > 0x7f) bad(element.head)
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
  const family = keyAlgorithm[0] === 'P' ? 'ecdsa' : keyAlgorithm.toLowerCase()
  return (name + '-').indexOf(family + '-') === 0
}
