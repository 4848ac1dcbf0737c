// The last look at a certificate before it is signed. Given what is meant, every byte of a TBSCertificate is determined, so the linter reads
// from front to back and holds each byte against its own idea of it: a change anywhere is refused, and so is any other spelling of the same
// content. It shares no code and no constant with the template that wrote the bytes; one error has to be made twice to pass. Allocates
// nothing, since every certificate passes here between two signatures.

import { type Bytes, bytesOfHex, type Certificate, signatureAlgorithmIdentifier } from '@birthmark/device-sdk/core'
import type { CertificateDetails } from './certificate-template.ts'
import type { Issuer } from './issuer-key.ts'

/** A rule of an operator's own: what is wrong, or null. */
export type Lint = (certificate: Certificate, details: CertificateDetails) => string | null

/** The linter of one issuer: what is wrong with the TBSCertificate that is about to be signed, or null. */
export type Linter = (tbs: Bytes, details: CertificateDetails) => string | null

const VERSION_3 = bytesOfHex('a003020102')
// Extensions as RFC 5280 4.2.1 spells them, whole or up to the part that varies.
const NOT_A_CA = bytesOfHex('300c0603551d130101ff04023000') // basicConstraints, critical, {}
const DIGITAL_SIGNATURE_ONLY = bytesOfHex('300e0603551d0f0101ff040403020780') // keyUsage, critical
const EXTENDED_KEY_USAGE_HEAD = bytesOfHex('0603551d25')
const CLIENT_AUTH = '2b06010505070302'
const SUBJECT_KEY_ID_OF_20 = bytesOfHex('301d0603551d0e04160414')
const AUTHORITY_KEY_ID_HEAD = bytesOfHex('0603551d23')
const ALTERNATIVE_NAME_HEAD = bytesOfHex('0603551d11')
// 2.25.188379731
const FLEET_HEAD = bytesOfHex('060569d9e9e453')
const DISTRIBUTION_POINTS_HEAD = bytesOfHex('0603551d1f')
const INFORMATION_ACCESS_HEAD = bytesOfHex('06082b06010505070101')
const OCSP_HEAD = bytesOfHex('06082b06010505073001')
const COMMON_NAME_HEAD = bytesOfHex('0603550403')
const SERIAL_NUMBER_HEAD = bytesOfHex('0603550405')

/** Where a reader stands; −1 once something was not as it should be. Functions below take and return such positions. */
type At = number

function same(bytes: Bytes, at: At, expected: Bytes, length = expected.length): At {
  if (at < 0 || at + length > bytes.length) return -1
  for (let i = 0; i < length; i++) if (bytes[at + i] !== expected[i]) return -1
  return at + length
}

function sameText(bytes: Bytes, at: At, ascii: string): At {
  if (at < 0 || at + ascii.length > bytes.length) return -1
  for (let i = 0; i < ascii.length; i++) {
    const c = ascii.charCodeAt(i)
    if (c < 0x20 || c > 0x7e || bytes[at + i] !== c) return -1
  }
  return at + ascii.length
}

/** The octets of `text` in UTF-8. Only what a profile's own text may hold outside ASCII takes the slower way. */
function sameUtf8(bytes: Bytes, at: At, text: string): At {
  const ascii = sameText(bytes, at, text)
  if (ascii >= 0 || !/[^\x20-\x7e]/.test(text) || /[\u0000-\u001f\u007f-\u009f]/.test(text)) return ascii
  return same(bytes, at, new TextEncoder().encode(text))
}

/** An OBJECT IDENTIFIER given as hex of its content. */
function sameOid(bytes: Bytes, at: At, oid: string): At {
  const end = endOf(bytes, at)
  const from = enterTo(bytes, at, 0x06, end)
  if (from < 0 || oid.length === 0 || (end - from) * 2 !== oid.length) return -1
  for (let i = from; i < end; i++) {
    const two = bytes[i]
    if (HEX[two >> 4] !== oid[(i - from) * 2] || HEX[two & 15] !== oid[(i - from) * 2 + 1]) return -1
  }
  return end
}

const HEX = '0123456789abcdef'

/** Position of the content of the element at `at`, which must be of `tag`, have a minimal length and end at `end`. */
function enterTo(bytes: Bytes, at: At, tag: number, end: At): At {
  if (at < 0 || bytes[at] !== tag) return -1
  const first = bytes[at + 1]
  if (first < 0x80) return at + 2 + first === end ? at + 2 : -1
  if (first === 0x81) return bytes[at + 2] >= 0x80 && at + 3 + bytes[at + 2] === end ? at + 3 : -1
  if (first !== 0x82 || bytes[at + 2] === 0) return -1
  return at + 4 + ((bytes[at + 2] << 8) | bytes[at + 3]) === end ? at + 4 : -1
}

/** End of the element at `at`, as its header says. */
function endOf(bytes: Bytes, at: At): At {
  if (at < 0) return -1
  const first = bytes[at + 1]
  const end =
    first < 0x80 ? at + 2 + first : first === 0x81 ? at + 3 + bytes[at + 2] : at + 4 + ((bytes[at + 2] << 8) | bytes[at + 3])
  return end <= bytes.length ? end : -1
}

/** An INTEGER of `value`, 0 to 2^31 − 1, in its one spelling. */
function sameInteger(bytes: Bytes, at: At, value: number): At {
  const end = endOf(bytes, at)
  let from = enterTo(bytes, at, 0x02, end)
  if (from < 0 || end - from > 4 || end === from || bytes[from] > 0x7f) return -1
  if (end - from > 1 && bytes[from] === 0 && bytes[from + 1] < 0x80) return -1
  let read = 0
  for (; from < end; from++) read = read * 256 + bytes[from]
  return read === value ? end : -1
}

/** The number of two digits. */
const two = (bytes: Bytes, at: number) => bytes[at] * 10 + bytes[at + 1] - 528

/** A UTCTime through 2049 or a GeneralizedTime after it, of `seconds` (RFC 5280 4.1.2.5). */
function sameTime(bytes: Bytes, at: At, seconds: number): At {
  const end = endOf(bytes, at)
  const general = seconds >= 2_524_608_000
  const from = enterTo(bytes, at, general ? 0x18 : 0x17, end)
  if (from < 0 || end - from !== (general ? 15 : 13) || bytes[end - 1] !== 0x5a) return -1
  for (let i = from; i < end - 1; i++) if (bytes[i] < 0x30 || bytes[i] > 0x39) return -1
  const short = two(bytes, from)
  const year = general ? short * 100 + two(bytes, from + 2) : short + (short < 50 ? 2000 : 1900)
  const rest = general ? from + 4 : from + 2
  const month = two(bytes, rest)
  const day = two(bytes, rest + 2)
  const hour = two(bytes, rest + 4)
  const minute = two(bytes, rest + 6)
  const second = two(bytes, rest + 8)
  if (month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || second > 59) return -1
  // Date.UTC carries an excess day into the next month; the number then differs from what is meant, or it is another day's true spelling.
  if (day > 28 && new Date(Date.UTC(year, month - 1, day)).getUTCDate() !== day) return -1
  return Date.UTC(year, month - 1, day, hour, minute, second) === seconds * 1000 ? end : -1
}

/** RelativeDistinguishedName of one attribute whose text is the device id. */
function sameAttribute(bytes: Bytes, at: At, head: Bytes, printable: boolean, id: string): At {
  const end = endOf(bytes, at)
  const value = same(bytes, enterTo(bytes, enterTo(bytes, at, 0x31, end), 0x30, end), head)
  // PrintableString has no underscore (X.680 41.4).
  const text = enterTo(bytes, value, printable && !id.includes('_') ? 0x13 : 0x0c, end)
  return sameText(bytes, text, id) === end ? end : -1
}

function sameFleet(bytes: Bytes, at: At, { fleet, idx, gids }: CertificateDetails['membership']): At {
  const end = endOf(bytes, at)
  const value = enterTo(bytes, same(bytes, enterTo(bytes, at, 0x30, end), FLEET_HEAD), 0x04, end)
  const name = enterTo(bytes, value, 0x30, end)
  const nameEnd = endOf(bytes, name)
  if (sameText(bytes, enterTo(bytes, name, 0x0c, nameEnd), fleet) !== nameEnd) return -1
  let next = enterTo(bytes, sameInteger(bytes, nameEnd, idx), 0x30, end)
  let last = 0
  for (const gid of gids) {
    if (gid <= last || gid > 0x7fffffff) return -1
    last = gid
    next = sameInteger(bytes, next, gid)
  }
  return next === end && gids.length <= 8 && idx >= 0 && idx <= 0x7fffffff ? end : -1
}

/** A subject of a profile's own: one attribute a relative name. */
function sameSubject(bytes: Bytes, at: At, subject: NonNullable<CertificateDetails['subject']>): At {
  let next = at
  for (const { oid, value } of subject) {
    const end = endOf(bytes, next)
    const pair = enterTo(bytes, enterTo(bytes, next, 0x31, end), 0x30, end)
    const text = sameOid(bytes, pair, oid)
    // serialNumber and country; then what is not of X.520: mail address and domain component.
    const printable = (oid === '550405' || oid === '550406') && !value.includes('_')
    const tag = printable ? 0x13 : oid.startsWith('5504') ? 0x0c : 0x16
    next = sameUtf8(bytes, enterTo(bytes, text, tag, end), value)
    if (next < 0 || next !== end) return -1
  }
  return next
}

function samePurposes(bytes: Bytes, at: At, purposes: readonly string[]): At {
  const end = endOf(bytes, at)
  const value = enterTo(bytes, same(bytes, enterTo(bytes, at, 0x30, end), EXTENDED_KEY_USAGE_HEAD), 0x04, end)
  let next = enterTo(bytes, value, 0x30, end)
  // Without clientAuth a device could never renew.
  if (purposes[0] !== CLIENT_AUTH) return -1
  for (const purpose of purposes) next = sameOid(bytes, next, purpose)
  return next === end ? end : -1
}

function sameAlternativeNames(bytes: Bytes, at: At, names: CertificateDetails['alternativeNames']): At {
  const end = endOf(bytes, at)
  const value = enterTo(bytes, same(bytes, enterTo(bytes, at, 0x30, end), ALTERNATIVE_NAME_HEAD), 0x04, end)
  let next = enterTo(bytes, value, 0x30, end)
  for (const { tag, value: content } of names) {
    const nameEnd = endOf(bytes, next)
    const from = enterTo(bytes, next, 0x80 + tag, nameEnd)
    // Mail, DNS and URI are ASCII (RFC 5280 4.2.1.6); an address has 4 or 16 octets.
    if (tag !== 1 && tag !== 2 && tag !== 6 && !(tag === 7 && (content.length === 4 || content.length === 16))) return -1
    next = same(bytes, from, content)
    if (next < 0 || next !== nameEnd || content.length === 0) return -1
    if (tag !== 7) for (let i = from; i < next; i++) if (bytes[i] < 0x21 || bytes[i] > 0x7e) return -1
  }
  return next === end ? end : -1
}

/** cRLDistributionPoints of one URL: `base`/crl/<first 8 octets of the key identifier>/<fleet>/<idx in units of 4,096>.crl. */
function sameDistributionPoint(
  bytes: Bytes,
  at: At,
  base: string,
  issuer: string,
  { fleet, idx }: CertificateDetails['membership'],
): At {
  const end = endOf(bytes, at)
  let next = enterTo(bytes, same(bytes, enterTo(bytes, at, 0x30, end), DISTRIBUTION_POINTS_HEAD), 0x04, end)
  for (let i = 0; i < distributionPointTags.length; i++) next = enterTo(bytes, next, distributionPointTags[i], end)
  const name = sameText(bytes, sameText(bytes, next, base), '/crl/')
  const folder = sameText(bytes, sameText(bytes, sameText(bytes, sameText(bytes, name, issuer), '/'), fleet), '/')
  return sameText(bytes, sameText(bytes, folder, String((idx - (idx % 4096)) / 4096)), '.crl') === end ? end : -1
}

// DistributionPoints, DistributionPoint, distributionPoint [0], fullName [0], uniformResourceIdentifier [6] (RFC 5280 4.2.1.13).
const distributionPointTags = [0x30, 0x30, 0xa0, 0xa0, 0x86]

/** authorityInfoAccess of one OCSP responder: `base`/ocsp. */
function sameResponder(bytes: Bytes, at: At, base: string): At {
  const end = endOf(bytes, at)
  const value = enterTo(bytes, same(bytes, enterTo(bytes, at, 0x30, end), INFORMATION_ACCESS_HEAD), 0x04, end)
  const access = same(bytes, enterTo(bytes, enterTo(bytes, value, 0x30, end), 0x30, end), OCSP_HEAD)
  return sameText(bytes, sameText(bytes, enterTo(bytes, access, 0x86, end), base), '/ocsp') === end ? end : -1
}

/** A linter without rules of an operator's own. */
function exactLinter(issuer: Issuer): Linter {
  const algorithm = signatureAlgorithmIdentifier(issuer.algorithm)
  const { subject: issuerName, notAfter: issuerEnd } = issuer.certificate
  const { keyId } = issuer
  const statusUrl = issuer.statusUrl ?? null
  const keyName = Buffer.from(keyId.subarray(0, 8)).toString('hex')
  return (tbs, d) => {
    const end = tbs.length
    let at = same(tbs, enterTo(tbs, 0, 0x30, end), VERSION_3)
    if (at < 0) return 'not a version 3 TBSCertificate'
    // Always 16 octets, positive and minimal by the first of them.
    if (tbs[at] !== 0x02 || tbs[at + 1] !== 16 || d.serial.length !== 16 || d.serial[0] < 1 || d.serial[0] > 0x7f) return 'serial'
    at = same(tbs, at + 2, d.serial)
    if (at < 0) return 'serial'
    at = same(tbs, at, algorithm)
    if (at < 0) return 'signature algorithm'
    at = same(tbs, at, issuerName)
    if (at < 0) return 'issuer'
    const validityEnd = endOf(tbs, at)
    at = sameTime(tbs, sameTime(tbs, enterTo(tbs, at, 0x30, validityEnd), d.notBefore), d.notAfter)
    if (at < 0 || at !== validityEnd || d.notBefore >= d.notAfter) return 'validity'
    if (d.notAfter > issuerEnd) return 'validity beyond the issuer'
    const subjectEnd = endOf(tbs, at)
    at = enterTo(tbs, at, 0x30, subjectEnd)
    if (d.subject === null) {
      at = sameAttribute(tbs, at, COMMON_NAME_HEAD, false, d.deviceId)
      at = sameAttribute(tbs, at, SERIAL_NUMBER_HEAD, true, d.deviceId)
    } else at = sameSubject(tbs, at, d.subject)
    if (at < 0 || at !== subjectEnd) return 'subject'
    at = same(tbs, at, d.spki)
    if (at < 0) return 'public key'
    at = enterTo(tbs, enterTo(tbs, at, 0xa3, end), 0x30, end)
    if (at < 0) return 'extensions'
    at = same(tbs, at, NOT_A_CA)
    if (at < 0) return 'basic constraints'
    at = same(tbs, at, DIGITAL_SIGNATURE_ONLY)
    if (at < 0) return 'key usage'
    at = samePurposes(tbs, at, d.extendedKeyUsage)
    if (at < 0) return 'extended key usage'
    const authorityEnd = endOf(tbs, at)
    at = enterTo(tbs, same(tbs, enterTo(tbs, at, 0x30, authorityEnd), AUTHORITY_KEY_ID_HEAD), 0x04, authorityEnd)
    at = same(tbs, enterTo(tbs, enterTo(tbs, at, 0x30, authorityEnd), 0x80, authorityEnd), keyId)
    if (at < 0 || at !== authorityEnd) return 'authority key identifier'
    if (statusUrl !== null) at = sameResponder(tbs, at, statusUrl)
    if (at < 0) return 'authority information access'
    at = same(tbs, same(tbs, at, SUBJECT_KEY_ID_OF_20), d.spkiSha256, 20)
    if (at < 0) return 'subject key identifier'
    at = sameFleet(tbs, at, d.membership)
    if (at < 0) return 'fleet extension'
    if (statusUrl !== null) at = sameDistributionPoint(tbs, at, statusUrl, keyName, d.membership)
    if (at < 0) return 'CRL distribution point'
    if (d.alternativeNames.length > 0) at = sameAlternativeNames(tbs, at, d.alternativeNames)
    return at === end ? null : 'alternative name'
  }
}

export function createLinter(issuer: Issuer, more: readonly Lint[], parse: (tbs: Bytes) => Certificate): Linter {
  const exact = exactLinter(issuer)
  if (more.length === 0) return exact
  return (tbs, details) => {
    try {
      let wrong = exact(tbs, details)
      for (let i = 0; i < more.length && wrong === null; i++) wrong = more[i](parse(tbs), details)
      return wrong
    } catch (error) {
      // A rule that failed: nobody knows that the certificate is good.
      return error instanceof Error ? error.message : String(error)
    }
  }
}
