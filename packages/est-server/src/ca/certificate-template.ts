// The TBSCertificate of an operational certificate (LDevID), by template: what does not vary with the device is encoded once per issuer and
// profile, the rest is written between (RFC 5280 4.1). lint.ts reads every result back before it is signed.

import {
  AUTHORITY_KEY_ID,
  BASIC_CONSTRAINTS,
  BOOLEAN,
  type Bytes,
  bytesOfHex,
  COMMON_NAME,
  COUNTRY,
  EXTENDED_KEY_USAGE,
  encodeElement,
  encodeName,
  encodeSequence,
  FLEET_EXTENSION,
  GENERALIZED_TIME,
  type GeneralName,
  IA5_STRING,
  INTEGER,
  KEY_USAGE,
  type Membership,
  OBJECT_IDENTIFIER,
  OCTET_STRING,
  PRINTABLE_STRING,
  SEQUENCE,
  SERIAL_NUMBER,
  SET,
  SUBJECT_ALT_NAME,
  SUBJECT_KEY_ID,
  signatureAlgorithmIdentifier,
  UTC_TIME,
  UTF8_STRING,
} from '@birthmark/device-sdk/core'
import { crlFile, crlFolder, ocspPath, shardOf } from '../status-urls.ts'
import { derWriter } from './der-writer.ts'
import type { Issuer } from './issuer-key.ts'

export const CLIENT_AUTH = '2b06010505070302' // 1.3.6.1.5.5.7.3.2
const AUTHORITY_INFORMATION_ACCESS = '2b06010505070101' // 1.3.6.1.5.5.7.1.1
const AD_OCSP = '2b06010505073001' // 1.3.6.1.5.5.7.48.1
const CRL_DISTRIBUTION_POINTS = '551d1f' // 2.5.29.31

export interface CertificateDetails {
  deviceId: string
  serial: Bytes
  notBefore: number
  notAfter: number
  /** DER SubjectPublicKeyInfo, from the CSR: the one thing that is. */
  spki: Bytes
  /** SHA-256 of it. */
  spkiSha256: Bytes
  /** Attributes of the subject in order, printable and within RFC 5280's bounds; null for CN and serialNumber, both the device id. */
  subject: readonly { readonly oid: string; readonly value: string }[] | null
  /** DNS, URI, mail or IP address. */
  alternativeNames: readonly GeneralName[]
  /** Hex OIDs. What is encoded of them is remembered by this object: a profile has one for its life. */
  extendedKeyUsage: readonly string[]
  membership: Membership
}

/** LDevID subject: CN and serialNumber, both the device id. */
export function deviceSubject(deviceId: string): Bytes {
  return encodeName([
    { oid: COMMON_NAME, value: deviceId },
    { oid: SERIAL_NUMBER, value: deviceId },
  ])
}

/** UTCTime through 2049, GeneralizedTime from then on (RFC 5280 4.1.2.5). */
export function encodeTime(seconds: number): Bytes {
  const digits = `${new Date(seconds * 1000).toISOString().slice(0, 19).replace(/[-T:]/g, '')}Z`
  const general = seconds >= 2_524_608_000
  return encodeElement(general ? GENERALIZED_TIME : UTC_TIME, [Buffer.from(general ? digits : digits.slice(2), 'latin1')])
}

function extension(oid: string, critical: boolean, value: Bytes): Bytes {
  const parts = [encodeElement(OBJECT_IDENTIFIER, [bytesOfHex(oid)])]
  if (critical) parts.push(encodeElement(BOOLEAN, [new Uint8Array([0xff])]))
  parts.push(encodeElement(OCTET_STRING, [value]))
  return encodeSequence(parts)
}

/** AuthorityInfoAccessSyntax of one OCSP responder (RFC 5280 4.2.2.1). */
function ocspAt(url: string): Bytes {
  return encodeSequence([encodeSequence([objectIdentifier(AD_OCSP), encodeElement(0x86, [Buffer.from(url, 'latin1')])])])
}

const objectIdentifier = (oid: string) => encodeElement(OBJECT_IDENTIFIER, [bytesOfHex(oid)])

/** The template of one issuer. Its result is what the issuer signs. */
export function certificateTemplate(issuer: Issuer): (details: CertificateDetails) => Bytes {
  const w = derWriter()
  const version = encodeElement(0xa0, [encodeElement(INTEGER, [new Uint8Array([2])])])
  const algorithmAndIssuer = Buffer.concat([signatureAlgorithmIdentifier(issuer.algorithm), issuer.certificate.subject])
  const base = issuer.statusUrl ?? null
  const fixedExtensionsOf = (purposes: readonly string[]) =>
    Buffer.concat([
      // cA is DEFAULT FALSE, so DER leaves it out; critical as 4.2.1.9 allows, so that nobody overlooks it.
      extension(BASIC_CONSTRAINTS, true, encodeSequence([])),
      // digitalSignature: bit 0 of one octet, seven unused.
      extension(KEY_USAGE, true, new Uint8Array([0x03, 0x02, 0x07, 0x80])),
      extension(EXTENDED_KEY_USAGE, false, encodeSequence(purposes.map(objectIdentifier))),
      extension(AUTHORITY_KEY_ID, false, encodeSequence([encodeElement(0x80, [issuer.keyId])])),
      ...(base === null ? [] : [extension(AUTHORITY_INFORMATION_ACCESS, false, ocspAt(`${base}${ocspPath}`))]),
      // Of one length for all certificates: everything but its last 20 octets, which follow.
      extension(SUBJECT_KEY_ID, false, encodeElement(OCTET_STRING, [new Uint8Array(20)])).subarray(0, -20),
    ])
  const fixedByPurposes = new WeakMap<readonly string[], Bytes>()
  const fixedExtensions = (purposes: readonly string[]) => {
    let fixed = fixedByPurposes.get(purposes)
    if (fixed === undefined) {
      fixed = fixedExtensionsOf(purposes)
      fixedByPurposes.set(purposes, fixed)
    }
    return fixed
  }
  const commonName = objectIdentifier(COMMON_NAME)
  const serialNumber = objectIdentifier(SERIAL_NUMBER)
  const alternativeName = objectIdentifier(SUBJECT_ALT_NAME)
  const fleetExtension = objectIdentifier(FLEET_EXTENSION)
  const distributionPoints = objectIdentifier(CRL_DISTRIBUTION_POINTS)

  // Requests of one second share their two times, so the last ones are kept.
  let validity: Bytes = new Uint8Array()
  let validityOf = ''
  const validityFor = (notBefore: number, notAfter: number) => {
    const of = `${notBefore} ${notAfter}`
    if (of !== validityOf) {
      validity = encodeSequence([encodeTime(notBefore), encodeTime(notAfter)])
      validityOf = of
    }
    return validity
  }

  /** INTEGER of a number below 2^31. */
  const integer = (value: number) => {
    const end = w.mark()
    let rest = value
    do {
      w.put(octets[rest & 0xff])
      rest >>= 8
    } while (rest > 0)
    if (leadingBit(value)) w.put(octets[0])
    w.wrap(INTEGER, end)
  }
  const attribute = (oid: Bytes, tag: number, value: string) => {
    const end = w.mark()
    w.text(value)
    w.wrap(tag, end)
    w.put(oid)
    w.wrap(SEQUENCE, end)
    w.wrap(SET, end)
  }
  const fleetOf = ({ fleet, idx, gids }: Membership) => {
    const end = w.mark()
    for (let i = gids.length - 1; i >= 0; i--) integer(gids[i])
    w.wrap(SEQUENCE, end)
    integer(idx)
    const name = w.mark()
    w.text(fleet)
    w.wrap(UTF8_STRING, name)
    w.wrap(SEQUENCE, end)
    w.wrap(OCTET_STRING, end)
    w.put(fleetExtension)
    w.wrap(SEQUENCE, end)
  }
  let points = ''
  let pointsOf = ''
  /** The one distribution point of the certificate's shard: DistributionPoint → [0] → fullName [0] → URI [6]. */
  const crlAt = (base: string, { fleet, idx }: Membership) => {
    if (fleet !== pointsOf) {
      points = `${base}${crlFolder(issuer.keyId, fleet)}`
      pointsOf = fleet
    }
    const end = w.mark()
    w.text(crlFile(shardOf(idx)))
    w.text(points)
    for (const tag of [0x86, 0xa0, 0xa0, SEQUENCE, SEQUENCE, OCTET_STRING]) w.wrap(tag, end)
    w.put(distributionPoints)
    w.wrap(SEQUENCE, end)
  }
  const alternativeNamesOf = (names: readonly GeneralName[]) => {
    const end = w.mark()
    for (let i = names.length - 1; i >= 0; i--) {
      const name = w.mark()
      w.put(names[i].value)
      w.wrap(0x80 | names[i].tag, name)
    }
    w.wrap(SEQUENCE, end)
    w.wrap(OCTET_STRING, end)
    w.put(alternativeName)
    w.wrap(SEQUENCE, end)
  }
  // An attribute that is the same for every device of a profile is the same object, too.
  const attributes = new WeakMap<object, Bytes>()
  const subjectOf = (subject: NonNullable<CertificateDetails['subject']>) => {
    for (let i = subject.length - 1; i >= 0; i--) {
      let encoded = attributes.get(subject[i])
      if (encoded === undefined) {
        encoded = relativeName(subject[i])
        attributes.set(subject[i], encoded)
      }
      w.put(encoded)
    }
  }

  // Read from the bottom up: the last field is written first.
  return d => {
    const end = w.mark()
    if (d.alternativeNames.length > 0) alternativeNamesOf(d.alternativeNames)
    if (base !== null) crlAt(base, d.membership)
    fleetOf(d.membership)
    // RFC 7093 2 (4), truncated as its other methods are: the hash is at hand, and RFC 5280 leaves the method open.
    w.put(d.spkiSha256.subarray(0, 20))
    w.put(fixedExtensions(d.extendedKeyUsage))
    w.wrap(SEQUENCE, end)
    w.wrap(0xa3, end)
    w.put(d.spki)
    const subject = w.mark()
    if (d.subject === null) {
      // RFC 5280 A.1 wants a PrintableString here, whose alphabet lacks the underscore; readers take UTF8String as well.
      attribute(serialNumber, d.deviceId.includes('_') ? UTF8_STRING : PRINTABLE_STRING, d.deviceId)
      attribute(commonName, UTF8_STRING, d.deviceId)
    } else subjectOf(d.subject)
    w.wrap(SEQUENCE, subject)
    w.put(validityFor(d.notBefore, d.notAfter))
    w.put(algorithmAndIssuer)
    const serial = w.mark()
    w.put(d.serial)
    w.wrap(INTEGER, serial)
    w.put(version)
    w.wrap(SEQUENCE, end)
    return w.take()
  }
}

/** RFC 5280 A.1: country and serialNumber are PrintableStrings, DC and emailAddress IA5Strings, the rest DirectoryStrings. */
function relativeName({ oid, value }: { oid: string; value: string }): Bytes {
  const printable = (oid === SERIAL_NUMBER || oid === COUNTRY) && !value.includes('_')
  // X.520's own attributes have OIDs of three octets.
  const tag = printable ? PRINTABLE_STRING : oid.length > 6 ? IA5_STRING : UTF8_STRING
  return encodeElement(SET, [encodeSequence([objectIdentifier(oid), encodeElement(tag, [Buffer.from(value)])])])
}

const octets = Array.from({ length: 256 }, (_, i) => new Uint8Array([i]))

/** Whether the highest octet of a positive number has its top bit set, so that DER puts a zero in front. */
function leadingBit(value: number): boolean {
  let rest = value
  while (rest > 0xff) rest >>= 8
  return rest >= 0x80
}
