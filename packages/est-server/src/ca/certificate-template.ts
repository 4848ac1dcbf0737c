// The TBSCertificate of an operational certificate (LDevID), written rather than assembled: what does not vary with the device is encoded
// once per issuer, and a certificate is one allocation with the rest set in between (RFC 5280 4.1; DESIGN: 15 times faster than a library).

import {
  AUTHORITY_KEY_ID,
  BASIC_CONSTRAINTS,
  BOOLEAN,
  type Bytes,
  bytesOfHex,
  COMMON_NAME,
  EXTENDED_KEY_USAGE,
  encodeElement,
  encodeFleetExtension,
  encodeName,
  encodeSequence,
  GENERALIZED_TIME,
  INTEGER,
  KEY_USAGE,
  type Membership,
  OBJECT_IDENTIFIER,
  OCTET_STRING,
  SERIAL_NUMBER,
  SUBJECT_ALT_NAME,
  SUBJECT_KEY_ID,
  signatureAlgorithmIdentifier,
  UTC_TIME,
} from '@birthmark/device-sdk/core'
import type { Issuer } from './issuer-key.ts'

export const CLIENT_AUTH = '2b06010505070302' // 1.3.6.1.5.5.7.3.2

export interface CertificateDetails {
  deviceId: string
  serial: Bytes
  notBefore: number
  notAfter: number
  /** DER SubjectPublicKeyInfo, from the CSR: the one thing that is. */
  spki: Bytes
  /** SHA-256 of it. */
  spkiSha256: Bytes
  /** Alternative name, null for none. */
  uri: string | null
  membership: Membership
}

/** LDevID subject: CN and serialNumber, both the device id. */
export function deviceSubject(deviceId: string): Bytes {
  return encodeName([
    { oid: COMMON_NAME, value: deviceId },
    { oid: SERIAL_NUMBER, value: deviceId },
  ])
}

/** RFC 7093 2 (4), truncated as its other methods are: the hash is at hand, and RFC 5280 leaves the method open. */
export function subjectKeyId(spkiSha256: Bytes): Bytes {
  return spkiSha256.subarray(0, 20)
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

/** The template of one issuer. Its result is what the issuer signs. */
export function certificateTemplate(issuer: Issuer): (details: CertificateDetails) => Bytes {
  const version = encodeElement(0xa0, [encodeElement(INTEGER, [new Uint8Array([2])])])
  const algorithmAndIssuer = Buffer.concat([signatureAlgorithmIdentifier(issuer.algorithm), issuer.certificate.subject])
  const fixedExtensions = Buffer.concat([
    // cA is DEFAULT FALSE, so DER leaves it out; critical as 4.2.1.9 allows, so that nobody overlooks it.
    extension(BASIC_CONSTRAINTS, true, encodeSequence([])),
    // digitalSignature: bit 0 of one octet, seven unused.
    extension(KEY_USAGE, true, new Uint8Array([0x03, 0x02, 0x07, 0x80])),
    extension(EXTENDED_KEY_USAGE, false, encodeSequence([encodeElement(OBJECT_IDENTIFIER, [bytesOfHex(CLIENT_AUTH)])])),
    extension(AUTHORITY_KEY_ID, false, encodeSequence([encodeElement(0x80, [issuer.keyId])])),
  ])
  // Of one length for all certificates: everything but its last 20 octets.
  const keyIdHead = extension(SUBJECT_KEY_ID, false, encodeElement(OCTET_STRING, [new Uint8Array(20)])).subarray(0, -20)
  return d => {
    const extensions = [fixedExtensions, keyIdHead, subjectKeyId(d.spkiSha256), encodeFleetExtension(d.membership)]
    if (d.uri !== null)
      extensions.push(extension(SUBJECT_ALT_NAME, false, encodeSequence([encodeElement(0x86, [Buffer.from(d.uri, 'latin1')])])))
    return encodeSequence([
      version,
      encodeElement(INTEGER, [d.serial]),
      algorithmAndIssuer,
      encodeSequence([encodeTime(d.notBefore), encodeTime(d.notAfter)]),
      deviceSubject(d.deviceId),
      d.spki,
      encodeElement(0xa3, [encodeSequence(extensions)]),
    ])
  }
}
