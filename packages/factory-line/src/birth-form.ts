// What a birth certificate says (IDevID, IEEE 802.1AR-2018 8): the serial number of the unit in its subject, no expiry, a signature key,
// and, where the product has a hardware type, its hardwareModuleName (RFC 4108 5).

import {
  type Bytes,
  COMMON_NAME,
  DIGITAL_SIGNATURE,
  encodeName,
  encodeOid,
  ORGANIZATION,
  parseCertificate,
  SERIAL_NUMBER,
  signatureAlgorithmIdentifier,
  utf8Bytes,
} from '@birthmark/device-sdk/core'
import { type Authority, keyIdOf } from './authority.ts'
import { certificateSerial, encodeToBeSigned, encodeValidity, neverExpires } from './certificate-form.ts'
import { authorityKeyId, hardwareModuleName, keyUsage, subjectAltNames, subjectKeyId } from './extensions.ts'

export interface BirthProfile {
  organization: string | null
  /** Whether CN repeats the serial number, for tools that show only CN. */
  commonName: boolean
  /** hwType as DER content octets in hex; null leaves the SAN out. */
  hardwareType: string | null
}

/** 2.25.173384554803375693927015184412267940168: the hardware type of a product that has not been given one of its own. */
export const UNASSIGNED_HARDWARE = '698284f0d3a3b58192b6d3a7fed286c5a4da9248'

type BirthForm = (unit: { serial: string; spki: Bytes }, now: number, random: (length: number) => Bytes) => Bytes

/**
 * What of a birth certificate is the same for every unit of an issuing CA is encoded once, and the rest is put between: the same octets as
 * `encodeBirthForm`, at a tenth of its time. The serial has been judged: ASCII, 1 to 64 characters, of which `_` alone is none of PrintableString's.
 */
export function birthForm(profile: BirthProfile, issuing: Authority): BirthForm {
  const issuer = parseCertificate(issuing.certificate)
  const version = Buffer.from('a003020102', 'hex')
  const algorithm = signatureAlgorithmIdentifier(issuing.key.algorithm)
  const organization = profile.organization ? nameContent({ oid: ORGANIZATION, value: profile.organization }) : new Uint8Array(0)
  const usage = keyUsage(DIGITAL_SIGNATURE)
  const authority = authorityKeyId(issuer.subjectKeyId ?? keyIdOf(issuer.spki))
  const subjectKey = subjectKeyId(new Uint8Array(20)).subarray(0, -20)
  let dates = new Uint8Array(0)
  let datesOf = -1
  return ({ serial, spki }, now, random) => {
    if (now !== datesOf) {
      dates = new Uint8Array(encodeValidity(now, neverExpires))
      datesOf = now
    }
    const name = Buffer.from(serial, 'latin1')
    const subject = [organization]
    if (profile.commonName) subject.push(element(0x31, [element(0x30, [COMMON_NAME_OID, element(0x0c, [name])])]))
    subject.push(element(0x31, [element(0x30, [SERIAL_NUMBER_OID, element(serial.includes('_') ? 0x0c : 0x13, [name])])]))
    const extensions = [usage, subjectKey, keyIdOf(spki), authority]
    if (profile.hardwareType) extensions.push(subjectAltNames([hardwareModuleName(profile.hardwareType, name)]))
    return element(0x30, [
      version,
      element(0x02, [certificateSerial(now, random)]),
      algorithm,
      issuer.subject,
      dates,
      element(0x30, subject),
      spki,
      element(0xa3, [element(0x30, extensions)]),
    ])
  }
}

const COMMON_NAME_OID = encodeOid(COMMON_NAME)
const SERIAL_NUMBER_OID = encodeOid(SERIAL_NUMBER)

/** A name's only attribute, without the SEQUENCE around it: its length is below 128. */
function nameContent(attribute: { oid: string; value: string }): Bytes {
  return encodeName([attribute]).subarray(2)
}

/** As the core's encodeElement, in one copy. Content below 64 KiB. */
function element(tag: number, parts: Bytes[]): Bytes {
  let length = 0
  for (const part of parts) length += part.length
  const head = length < 0x80 ? 2 : length < 0x100 ? 3 : 4
  const bytes = Buffer.allocUnsafe(head + length)
  bytes[0] = tag
  bytes[1] = head === 2 ? length : 0x7e + head
  if (head === 3) bytes[2] = length
  if (head === 4) bytes.writeUInt16BE(length, 2)
  let at = head
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}

/** The same by the general encoder: for one unit, and what `birthForm` is held against. */
export function encodeBirthForm(
  unit: { serial: string; spki: Bytes },
  profile: BirthProfile,
  issuing: Authority,
  now: number,
  random: (length: number) => Bytes,
): Bytes {
  const issuer = parseCertificate(issuing.certificate)
  const attributes = [{ oid: SERIAL_NUMBER, value: unit.serial }]
  if (profile.commonName) attributes.unshift({ oid: COMMON_NAME, value: unit.serial })
  if (profile.organization) attributes.unshift({ oid: ORGANIZATION, value: profile.organization })
  const extensions = [
    keyUsage(DIGITAL_SIGNATURE),
    subjectKeyId(keyIdOf(unit.spki)),
    authorityKeyId(issuer.subjectKeyId ?? keyIdOf(issuer.spki)),
  ]
  if (profile.hardwareType) extensions.push(subjectAltNames([hardwareModuleName(profile.hardwareType, utf8Bytes(unit.serial))]))
  return encodeToBeSigned(
    {
      serial: certificateSerial(now, random),
      issuer: issuer.subject,
      subject: encodeName(attributes),
      notBefore: now,
      notAfter: neverExpires,
      spki: unit.spki,
      extensions,
    },
    issuing.key.algorithm,
  )
}
