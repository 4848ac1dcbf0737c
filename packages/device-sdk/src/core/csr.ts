// PKCS#10 certification requests (RFC 2986): parsed by a server, assembled in two steps by a device whose key may answer later:
// csrInfo() → sign → csrAssemble(). A parsed CSR is well formed; whether its signature verifies is still to be asked.

import { publicKeyOf, signatureAlgorithmIdentifier, signatureAlgorithmOf } from './algorithm.ts'
import type { Bytes } from './bytes.ts'
import { type Extension, readExtensions } from './certificate.ts'
import {
  encodeBits,
  encodeElement,
  encodeOid,
  encodeSequence,
  encodeSetOf,
  encodingOf,
  octetBits,
  oidValue,
  partsOf,
  readWhole,
  SEQUENCE,
  SET,
  smallInteger,
  wholeParts,
} from './der.ts'
import { attributesOf, stringOf } from './distinguished-name.ts'
import { fail } from './errors.ts'

/** An ML-DSA-65 request with every extension we know is below 8 KiB. */
export const csrBytesMax = 16384
const attributesMax = 16
const valuesMax = 8

export const EXTENSION_REQUEST = '2a864886f70d01090e' // 1.2.840.113549.1.9.14
export const CHALLENGE_PASSWORD = '2a864886f70d010907' // 1.2.840.113549.1.9.7

export interface Csr {
  der: Bytes
  /** CertificationRequestInfo as received: what the requester signed. */
  info: Bytes
  /** DER Name, possibly empty. What a device asks for, not what it gets. */
  subject: Bytes
  spki: Bytes
  /** As in Certificate. */
  keyAlgorithm: string
  keyBits: number
  attributes: { oid: string; values: Bytes[] }[]
  signatureAlgorithm: string
  signature: Bytes
}

/**
 * Parses one DER CSR from anyone. Throws `der_malformed`, `der_limit`, `csr_malformed`.
 * Attributes must differ in type but may come in any order, since not every client sorts its SET.
 */
export function parseCsr(der: Bytes): Csr {
  if (der.length > csrBytesMax) fail('der_limit', 'CSR')
  const outer = wholeParts(der, 3, 3)
  const fields = partsOf(outer[0], SEQUENCE, 4, 4)
  if (smallInteger(fields[0])) fail('csr_malformed', 'version')
  attributesOf(fields[1])
  const key = publicKeyOf(fields[2])
  const seen: string[] = []
  const attributes = partsOf(fields[3], 0xa0, 0, attributesMax).map(item => {
    const parts = partsOf(item, SEQUENCE, 2, 2)
    const oid = oidValue(parts[0])
    if (seen.indexOf(oid) >= 0) fail('csr_malformed', 'attribute')
    seen.push(oid)
    return { oid: oid, values: partsOf(parts[1], SET, 1, valuesMax).map(encodingOf) }
  })
  return {
    der: der,
    info: encodingOf(outer[0]),
    subject: encodingOf(fields[1]),
    spki: encodingOf(fields[2]),
    keyAlgorithm: key.algorithm,
    keyBits: key.bits,
    attributes: attributes,
    signatureAlgorithm: signatureAlgorithmOf(outer[1]),
    signature: octetBits(outer[2]),
  }
}

/** The only value of an attribute; null when the attribute is absent. Several values throw `csr_malformed`. */
function singleValue(csr: Csr, oid: string): Bytes | null {
  for (let i = 0; i < csr.attributes.length; i++) {
    if (csr.attributes[i].oid !== oid) continue
    if (csr.attributes[i].values.length !== 1) fail('csr_malformed', 'several values')
    return csr.attributes[i].values[0]
  }
  return null
}

/** The extensions asked for (RFC 2985 5.4.2), [] when none. An empty list is tolerated: RFC 7030's own example has one. */
export function requestedExtensions(csr: Csr): Extension[] {
  const value = singleValue(csr, EXTENSION_REQUEST)
  return value ? readExtensions(readWhole(value, SEQUENCE)) : []
}

/** The challengePassword (RFC 2985 5.4.1; RFC 7030 3.5 puts the channel binding here), or null. At most 255 characters. */
export function challengePassword(csr: Csr): string | null {
  const value = singleValue(csr, CHALLENGE_PASSWORD)
  if (!value) return null
  const text = stringOf(readWhole(value, value[0]))
  if (text === null || text.length === 0 || text.length > 255) fail('csr_malformed', 'challengePassword')
  return text
}

/** One DER Attribute for `csrInfo`; `values` are whole DER elements. */
export function encodeAttribute(oid: string, values: Bytes[]): Bytes {
  return encodeSequence([encodeOid(oid), encodeSetOf(values)])
}

/** The SubjectPublicKeyInfo of a CSR of one's own making, nothing else looked at. */
export function csrKey(der: Bytes): Bytes {
  return encodingOf(partsOf(wholeParts(der, 3, 3)[0], SEQUENCE, 4, 4)[2])
}

/** CertificationRequestInfo to be signed. `attributes`: whole DER Attributes; several in the order of their bytes (X.690 11.6). */
export function csrInfo(subject: Bytes, spki: Bytes, attributes: Bytes[]): Bytes {
  // The version, INTEGER 0, is written out.
  return encodeSequence([new Uint8Array([2, 1, 0]), subject, spki, encodeElement(0xa0, attributes)])
}

/** The CSR from its signed parts. `signature` in X.509 form (for ECDSA the DER of r and s). */
export function csrAssemble(info: Bytes, algorithm: string, signature: Bytes): Bytes {
  return encodeSequence([info, signatureAlgorithmIdentifier(algorithm), encodeBits(signature)])
}
