// X.509 v3 certificates (RFC 5280 section 4), parsed once into the values that decisions are made of. What comes back is
// well formed and nothing more: no signature was checked, no issuer asked, no clock read. All byte strings are views on the input.

import { publicKeyOf, signatureAlgorithmOf } from './algorithm.ts'
import { type Bytes, bytesOfHex, equalBytes } from './bytes.ts'
import {
  BIT_STRING,
  bad,
  booleanValue,
  contentOf,
  type Element,
  encodingOf,
  expectTag,
  integerBytes,
  namedBits,
  OCTET_STRING,
  octetBits,
  oidValue,
  partsOf,
  readWhole,
  SEQUENCE,
  smallInteger,
  timeValue,
  wholeParts,
} from './der.ts'
import { attributesOf } from './distinguished-name.ts'
import { fail } from './errors.ts'

/** Real certificates end at 2 KiB, ML-DSA-65 ones at 6; every body above is refused before it is read. */
export const certificateBytesMax = 16384
const extensionsMax = 32
const generalNamesMax = 64
const keyPurposesMax = 32

export const SUBJECT_KEY_ID = '551d0e' // 2.5.29.14
export const KEY_USAGE = '551d0f' // 2.5.29.15
export const SUBJECT_ALT_NAME = '551d11' // 2.5.29.17
export const BASIC_CONSTRAINTS = '551d13' // 2.5.29.19
export const NAME_CONSTRAINTS = '551d1e' // 2.5.29.30
export const AUTHORITY_KEY_ID = '551d23' // 2.5.29.35
export const EXTENDED_KEY_USAGE = '551d25' // 2.5.29.37

/** Bits of `keyUsage` (RFC 5280 4.2.1.3). */
export const DIGITAL_SIGNATURE = 1
export const KEY_CERT_SIGN = 32

export interface Extension {
  oid: string
  critical: boolean
  /** Content of extnValue. */
  value: Bytes
}

/**
 * A GeneralName: context number 0 to 8 and content (of the explicit Name for 4). The content is as received: a dNSName may hold a NUL or a
 * line end, and a kind may come constructed that should not. `checkNameConstraints` holds names to their form where they will be compared or shown.
 */
export interface GeneralName {
  tag: number
  value: Bytes
}

export interface Certificate {
  der: Bytes
  /** What the issuer signed, as received. */
  tbs: Bytes
  /** Content octets, positive, 1 to 20. */
  serial: Bytes
  /** DER Names. */
  issuer: Bytes
  subject: Bytes
  /** Seconds since 1970. 99991231235959Z, "no well-defined end", is 253402300799. */
  notBefore: number
  notAfter: number
  /** DER SubjectPublicKeyInfo. */
  spki: Bytes
  /** P-256, P-384, P-521, RSA, Ed25519, ML-DSA-44, ML-DSA-65, or '' for any other. */
  keyAlgorithm: string
  /** RSA modulus, EC field, otherwise the length of the key; 0 when the algorithm is not known. */
  keyBits: number
  /** ecdsa-sha256, rsa-pkcs1-sha256, rsa-pss-sha256, ed25519, ml-dsa-44, …, or ''. */
  signatureAlgorithm: string
  signature: Bytes
  extensions: Extension[]
  isCa: boolean
  /** pathLenConstraint, −1 when there is none. */
  pathLength: number
  /** Named bits, bit 0 (digitalSignature) lowest; −1 when absent. */
  keyUsage: number
  extendedKeyUsage: string[] | null
  subjectAltNames: GeneralName[]
  subjectKeyId: Bytes | null
  authorityKeyId: Bytes | null
}

function malformed(detail: string): never {
  return fail('certificate_malformed', detail)
}

/** The extension of type `oid`, or null. */
export function extensionOf(certificate: Certificate, oid: string): Extension | null {
  for (let i = 0; i < certificate.extensions.length; i++)
    if (certificate.extensions[i].oid === oid) return certificate.extensions[i]
  return null
}

/** An Extensions value, also of a CSR. A type that occurs twice throws `der_malformed`. */
export function readExtensions(list: Element): Extension[] {
  const seen: string[] = []
  return partsOf(list, SEQUENCE, 0, extensionsMax).map(item => {
    const parts = partsOf(item, SEQUENCE, 2, 3)
    const oid = oidValue(parts[0])
    const marked = parts.length > 2
    // DEFAULT FALSE: an encoded FALSE is not DER (X.690 11.5).
    if (seen.indexOf(oid) >= 0 || (marked && !booleanValue(parts[1]))) bad(item.head)
    seen.push(oid)
    return { oid: oid, critical: marked, value: contentOf(expectTag(parts[parts.length - 1], OCTET_STRING)) }
  })
}

function readGeneralName(name: Element): GeneralName {
  // Context tags 0x80 to 0x88, and 0xa0 to 0xa8 for the constructed kinds.
  return (name.tag & 0xd0) === 0x80 && (name.tag & 15) < 9 ? { tag: name.tag & 15, value: contentOf(name) } : malformed('name')
}

function readExtensionValue(out: Certificate, extension: Extension): void {
  const oid = extension.oid
  const value = extension.value
  if (oid === KEY_USAGE) out.keyUsage = namedBits(readWhole(value, BIT_STRING))
  else if (oid === BASIC_CONSTRAINTS) {
    const parts = wholeParts(value, 0, 2)
    // An encoded FALSE is not DER, and there is no pathLenConstraint unless cA (4.2.1.9).
    if (parts.length) out.isCa = booleanValue(parts[0]) || malformed('basic constraints')
    if (parts.length > 1) out.pathLength = smallInteger(parts[1])
  } else if (oid === EXTENDED_KEY_USAGE) out.extendedKeyUsage = wholeParts(value, 1, keyPurposesMax).map(oidValue)
  else if (oid === SUBJECT_ALT_NAME) out.subjectAltNames = wholeParts(value, 1, generalNamesMax).map(readGeneralName)
  else if (oid === SUBJECT_KEY_ID) out.subjectKeyId = contentOf(readWhole(value, OCTET_STRING))
  else if (oid === AUTHORITY_KEY_ID) {
    // keyIdentifier [0], authorityCertIssuer [1], authorityCertSerialNumber [2]: the first is enough to choose an issuer by.
    const parts = wholeParts(value, 0, 3)
    if (parts.length && parts[0].tag === 0x80) out.authorityKeyId = contentOf(parts[0])
  }
}

/**
 * Parses one DER certificate; `der` may come from anyone. Throws `der_malformed`, `der_limit`, `certificate_malformed`, and
 * `certificate_unsupported` for versions 1 and 2, which have no way to say that they are not a CA.
 *
 * Serial numbers are positive and at most 20 octets (RFC 5280 4.1.2.2): all that real device chains need, and a serial is half of the key
 * under which a certificate is revoked.
 */
export function parseCertificate(der: Bytes): Certificate {
  if (der.length > certificateBytesMax) fail('der_limit', 'certificate')
  const outer = wholeParts(der, 3, 3)
  const fields = partsOf(outer[0], SEQUENCE, 7, 10)
  if (!equalBytes(encodingOf(fields[0]), bytesOfHex('a003020102'))) fail('certificate_unsupported', 'version')
  const serial = integerBytes(fields[1])
  if (serial[0] > 0x7f || serial.length > 20 || (!serial[0] && serial.length < 2)) malformed('serial')
  // RFC 5280 4.1.1.2: inner and outer identifier are one and the same.
  if (!equalBytes(encodingOf(fields[2]), encodingOf(outer[1]))) malformed('two algorithms')
  if (!attributesOf(fields[3]).length) malformed('issuer')
  const validity = partsOf(fields[4], SEQUENCE, 2, 2)
  const key = publicKeyOf(fields[6])
  // issuerUniqueID and subjectUniqueID are read over, as RFC 5280 4.1.2.8 asks.
  let at = 7
  for (let tag = 0x81; tag < 0x83; tag++)
    if (fields[at] && fields[at].tag === tag && !(contentOf(fields[at++])[0] < 8)) malformed('unique id')
  const out: Certificate = {
    der: der,
    tbs: encodingOf(outer[0]),
    serial: serial,
    issuer: encodingOf(fields[3]),
    subject: encodingOf(fields[5]),
    notBefore: timeValue(validity[0]),
    notAfter: timeValue(validity[1]),
    spki: encodingOf(fields[6]),
    keyAlgorithm: key.algorithm,
    keyBits: key.bits,
    signatureAlgorithm: signatureAlgorithmOf(outer[1]),
    signature: octetBits(outer[2]),
    extensions: fields[at] ? readExtensions(readWhole(contentOf(expectTag(fields[at++], 0xa3)), SEQUENCE)) : [],
    isCa: false,
    pathLength: -1,
    keyUsage: -1,
    extendedKeyUsage: null,
    subjectAltNames: [],
    subjectKeyId: null,
    authorityKeyId: null,
  }
  if (fields[at]) malformed('fields')
  attributesOf(fields[5])
  out.extensions.forEach(extension => {
    readExtensionValue(out, extension)
  })
  return out
}
