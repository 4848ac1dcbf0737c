// X.509 v3 certificates (RFC 5280 section 4), parsed once into the values that decisions are made of. What comes back is
// well formed and nothing more: no signature was checked, no issuer asked, no clock read. All byte strings are views on the input.

import { publicKeyOf, signatureAlgorithmOf } from './algorithm.ts'
import { type Bytes, equalBytes } from './bytes.ts'
import {
  BOOLEAN,
  booleanValue,
  childrenOf,
  contentOf,
  type Element,
  encodingOf,
  expectTag,
  INTEGER,
  integerBytes,
  namedBits,
  OCTET_STRING,
  octetBits,
  oidValue,
  readElement,
  readWhole,
  SEQUENCE,
  smallInteger,
  timeValue,
} from './der.ts'
import { attributesOf } from './distinguished-name.ts'
import { type DeviceErrorCode, fail } from './errors.ts'

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

/** A GeneralName: context number 0 to 8 and content (of the explicit Name for 4). */
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

/** An Extensions value. Shared with the extensionRequest of a CSR. A type that occurs twice throws `code`. */
export function readExtensions(list: Element, code: DeviceErrorCode): Extension[] {
  const items = childrenOf(expectTag(list, SEQUENCE), extensionsMax)
  const out: Extension[] = []
  for (let i = 0; i < items.length; i++) {
    const parts = childrenOf(expectTag(items[i], SEQUENCE), 3)
    const oid = oidValue(parts[0])
    for (let j = 0; j < i; j++) if (out[j].oid === oid) fail(code, 'duplicate extension')
    const marked = parts.length === 3
    // DEFAULT FALSE: an encoded FALSE is not DER (X.690 11.5).
    if (marked && !booleanValue(parts[1])) fail(code, 'encoded default')
    out.push({ oid: oid, critical: marked, value: contentOf(expectTag(parts[marked ? 2 : 1], OCTET_STRING)) })
  }
  return out
}

/** Letters, digits, hyphens and dots, the last label not a number, an optional `*.` in front (RFC 5280 4.2.1.6, RFC 1123 2.1). */
export function isHostName(octets: Bytes): boolean {
  const length = octets.length
  let at = octets[0] === 0x2a && octets[1] === 0x2e ? 2 : 0
  let label = at
  let numeric = true
  if (at === length || length > 253) return false
  for (; at <= length; at++) {
    const c = at < length ? octets[at] : 0x2e
    if (c === 0x2e) {
      if (at === label || at - label > 63 || octets[label] === 0x2d || octets[at - 1] === 0x2d) return false
      if (at < length) numeric = true
      label = at + 1
    } else if (c < 0x30 || c > 0x39) {
      const letter = c | 32
      if (c !== 0x2d && (letter < 0x61 || letter > 0x7a)) return false
      numeric = false
    }
  }
  return !numeric
}

/** GeneralNames (RFC 5280 4.2.1.6), each checked for the form of its kind: IA5 without control characters, 4 or 16 octets, a Name. */
function readGeneralNames(list: Element): GeneralName[] {
  const items = childrenOf(expectTag(list, SEQUENCE), generalNamesMax)
  const out: GeneralName[] = []
  if (items.length === 0) malformed('no names')
  for (let i = 0; i < items.length; i++) {
    const kind = items[i].tag & 31
    const constructed = kind === 0 || (kind > 2 && kind < 6)
    if (items[i].tag !== (constructed ? 0xa0 : 0x80) + kind || kind > 8) malformed('name kind')
    const value = contentOf(items[i])
    if (kind === 4) attributesOf(readWhole(value, SEQUENCE), 'certificate_malformed')
    else if (kind === 0) {
      const parts = childrenOf(items[i], 2)
      oidValue(parts[0])
      expectTag(parts[1], 0xa0)
    } else if (constructed) childrenOf(items[i], generalNamesMax)
    else if (kind === 7) {
      if (value.length !== 4 && value.length !== 16) malformed('address')
    } else if (kind !== 8) {
      // A NUL or a line end inside a name has one use: to be read differently further on.
      for (let j = 0; j < value.length; j++) if (value[j] < 0x20 || value[j] > 0x7e) malformed('name text')
      if (kind === 2 && !isHostName(value)) malformed('host name')
    }
    out.push({ tag: kind, value: value })
  }
  return out
}

function readExtensionValues(out: Certificate): void {
  for (let i = 0; i < out.extensions.length; i++) {
    const extension = out.extensions[i]
    const oid = extension.oid
    if (oid.slice(0, 4) !== '551d') continue
    const whole = readElement(extension.value, 0, extension.value.length)
    if (whole.end !== extension.value.length) malformed('extension')
    if (oid === KEY_USAGE) {
      out.keyUsage = namedBits(whole)
      if (out.keyUsage === 0) malformed('no key usage')
    } else if (oid === BASIC_CONSTRAINTS) {
      const parts = childrenOf(expectTag(whole, SEQUENCE), 2)
      let at = 0
      if (parts.length && parts[0].tag === BOOLEAN) {
        if (!booleanValue(parts[at++])) malformed('encoded default')
        out.isCa = true
      }
      if (at < parts.length) {
        // 4.2.1.9: no pathLenConstraint unless cA.
        if (!out.isCa) malformed('path length')
        out.pathLength = smallInteger(parts[at++])
      }
      if (at < parts.length) malformed('basic constraints')
    } else if (oid === EXTENDED_KEY_USAGE) {
      const parts = childrenOf(expectTag(whole, SEQUENCE), keyPurposesMax)
      if (parts.length === 0) malformed('no purpose')
      out.extendedKeyUsage = []
      for (let j = 0; j < parts.length; j++) out.extendedKeyUsage.push(oidValue(parts[j]))
    } else if (oid === SUBJECT_ALT_NAME) out.subjectAltNames = readGeneralNames(whole)
    else if (oid === SUBJECT_KEY_ID) {
      out.subjectKeyId = contentOf(expectTag(whole, OCTET_STRING))
      if (extension.critical) malformed('critical key id')
    } else if (oid === AUTHORITY_KEY_ID) {
      const parts = childrenOf(expectTag(whole, SEQUENCE), 3)
      let last = -1
      for (let j = 0; j < parts.length; j++) {
        const tag = parts[j].tag
        if ((tag & 31) <= last || (tag !== 0x80 && tag !== 0xa1 && tag !== 0x82)) malformed('authority key id')
        last = tag & 31
        if (tag === 0x80) out.authorityKeyId = contentOf(parts[j])
      }
      if (extension.critical) malformed('critical key id')
    }
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
  if (der.length > certificateBytesMax) fail('der_limit', 'certificate size')
  const outer = childrenOf(readWhole(der, SEQUENCE), 3)
  if (outer.length !== 3) malformed('not a certificate')
  const fields = childrenOf(expectTag(outer[0], SEQUENCE), 10)
  if (fields.length < 7) malformed('fields')
  const version = fields[0].tag === 0xa0 ? childrenOf(fields[0], 1)[0] : null
  if (!version || version.tag !== INTEGER || smallInteger(version) !== 2) fail('certificate_unsupported', 'version')
  const serial = integerBytes(fields[1])
  if (serial[0] >= 0x80 || serial.length > 20 || (serial.length === 1 && serial[0] === 0)) malformed('serial')
  // RFC 5280 4.1.1.2: inner and outer identifier are one and the same.
  if (!equalBytes(encodingOf(fields[2]), encodingOf(outer[1]))) malformed('two signature algorithms')
  const validity = childrenOf(expectTag(fields[4], SEQUENCE), 2)
  if (validity.length !== 2) malformed('validity')
  if (attributesOf(fields[3], 'certificate_malformed').length === 0) malformed('empty issuer')
  const named = attributesOf(fields[5], 'certificate_malformed').length > 0
  const key = publicKeyOf(fields[6], 'certificate_malformed')
  // issuerUniqueID and subjectUniqueID are read over, as RFC 5280 4.1.2.8 asks.
  let at = 7
  for (let tag = 0x81; tag < 0x83; tag++) if (at < fields.length && fields[at].tag === tag) at++
  let extensions: Extension[] = []
  if (at < fields.length) {
    extensions = readExtensions(readWhole(contentOf(expectTag(fields[at++], 0xa3)), SEQUENCE), 'certificate_malformed')
    if (extensions.length === 0) malformed('no extensions')
  }
  if (at !== fields.length) malformed('fields')
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
    signatureAlgorithm: signatureAlgorithmOf(outer[1], 'certificate_malformed'),
    signature: octetBits(outer[2]),
    extensions: extensions,
    isCa: false,
    pathLength: -1,
    keyUsage: -1,
    extendedKeyUsage: null,
    subjectAltNames: [],
    subjectKeyId: null,
    authorityKeyId: null,
  }
  readExtensionValues(out)
  if (!named) {
    // 4.1.2.6: a CA has a name; anyone else without one carries it in a critical subjectAltName.
    const names = extensionOf(out, SUBJECT_ALT_NAME)
    if (out.isCa || !names || !names.critical) malformed('empty subject')
  }
  return out
}
