// What a birth certificate says (IDevID, IEEE 802.1AR-2018 8): the serial number of the unit in its subject, no expiry, a signature key,
// and, where the product has a hardware type, its hardwareModuleName (RFC 4108 5).

import {
  type Bytes,
  COMMON_NAME,
  DIGITAL_SIGNATURE,
  encodeElement,
  encodeName,
  encodeOid,
  ORGANIZATION,
  parseCertificate,
  SERIAL_NUMBER,
  SUBJECT_ALT_NAME,
  signatureAlgorithmIdentifier,
  utf8Bytes,
} from '@birthmark/device-sdk/core'
import { type Authority, keyIdOf } from './authority.ts'
import { certificateSerial, encodeToBeSigned, encodeValidity, neverExpires, writeCertificateSerial } from './certificate-form.ts'
import { authorityKeyId, HARDWARE_MODULE_NAME, hardwareModuleName, keyUsage, subjectAltNames, subjectKeyId } from './extensions.ts'

export interface BirthProfile {
  organization: string | null
  /** Whether CN repeats the serial number, for tools that show only CN. */
  commonName: boolean
  /** hwType as DER content octets in hex; null leaves the SAN out. */
  hardwareType: string | null
}

/** 2.25.137778946: the hardware type of a product that has not been given one of its own. */
export const UNASSIGNED_HARDWARE = '69c1d9ae02'

/** `spkiSha256`: of the whole SubjectPublicKeyInfo, hex; its first 160 bits are the key's id, as keyIdOf() says. */
type BirthForm = (
  unit: { serial: string; spki: Bytes; spkiSha256: string },
  now: number,
  random: (length: number) => Bytes,
) => Bytes

// Forms differ by the lengths of serial and key alone, of which an order has a few; RSA keys of odd sizes could make more.
const formsMax = 64

/**
 * A birth certificate's form is encoded once for each length of serial and key, and a unit's own octets are put into a copy: the same octets
 * as `encodeBirthForm`, at a fiftieth of its time. The serial has been judged: ASCII, 1 to 64 characters, of which `_` alone is none of
 * PrintableString's.
 */
export function birthForm(profile: BirthProfile, issuing: Authority): BirthForm {
  const issuer = parseCertificate(issuing.certificate)
  const organization = profile.organization ? nameContent({ oid: ORGANIZATION, value: profile.organization }) : new Uint8Array(0)
  const authority = authorityKeyId(issuer.subjectKeyId ?? keyIdOf(issuer.spki))
  const make = (nameBytes: number, printable: boolean, keyBytes: number): Piece => {
    const name = slot('name', nameBytes)
    const attribute = (oid: Bytes, tag: number): Piece => wrap(0x31, [wrap(0x30, [fixed(oid), wrap(tag, [name])])])
    const subject = [fixed(organization)]
    if (profile.commonName) subject.push(attribute(COMMON_NAME_OID, 0x0c))
    subject.push(attribute(SERIAL_NUMBER_OID, printable ? 0x13 : 0x0c))
    const extensions = [
      fixed(keyUsage(DIGITAL_SIGNATURE)),
      fixed(subjectKeyId(new Uint8Array(20)).subarray(0, -20)),
      slot('keyId', 20),
      fixed(authority),
    ]
    if (profile.hardwareType) {
      // The same nesting as extensions.ts writes, around a serial that is not there yet.
      const module = wrap(0x30, [fixed(encodeOid(profile.hardwareType)), wrap(0x04, [name])])
      const other = wrap(0xa0, [fixed(encodeOid(HARDWARE_MODULE_NAME)), wrap(0xa0, [module])])
      extensions.push(wrap(0x30, [fixed(encodeOid(SUBJECT_ALT_NAME)), wrap(0x04, [wrap(0x30, [other])])]))
    }
    return wrap(0x30, [
      fixed(Buffer.from('a003020102', 'hex')),
      wrap(0x02, [slot('number', 16)]),
      fixed(signatureAlgorithmIdentifier(issuing.key.algorithm)),
      fixed(issuer.subject),
      slot('dates', encodeValidity(0, neverExpires).length),
      wrap(0x30, subject),
      slot('key', keyBytes),
      wrap(0xa3, [wrap(0x30, extensions)]),
    ])
  }
  const forms = new Map<number, Piece>()
  let dates: Bytes = new Uint8Array(0)
  let datesOf = -1
  return ({ serial, spki, spkiSha256 }, now, random) => {
    if (now !== datesOf) {
      dates = encodeValidity(now, neverExpires)
      datesOf = now
    }
    const printable = !serial.includes('_')
    // A serial has at most 64 characters.
    const kind = (spki.length * 2 + Number(printable)) * 128 + serial.length
    let form = forms.get(kind)
    if (!form) {
      if (forms.size >= formsMax) forms.clear()
      form = make(serial.length, printable, spki.length)
      forms.set(kind, form)
    }
    const bytes = Buffer.from(form.bytes)
    for (const { what, at } of form.slots) {
      if (what === 'name') bytes.write(serial, at, 'latin1')
      else if (what === 'key') bytes.set(spki, at)
      else if (what === 'keyId') bytes.write(spkiSha256, at, 20, 'hex')
      else if (what === 'dates') bytes.set(dates, at)
      else writeCertificateSerial(bytes, at, now, random)
    }
    return bytes
  }
}

/** DER with places that each unit fills with its own octets. */
interface Piece {
  bytes: Bytes
  slots: { what: 'number' | 'dates' | 'name' | 'key' | 'keyId'; at: number }[]
}

const fixed = (bytes: Bytes): Piece => ({ bytes, slots: [] })
const slot = (what: Piece['slots'][number]['what'], length: number): Piece => ({
  bytes: new Uint8Array(length),
  slots: [{ what, at: 0 }],
})

/** One element around `parts`. */
function wrap(tag: number, parts: Piece[]): Piece {
  const bytes = encodeElement(
    tag,
    parts.map(part => part.bytes),
  )
  let at = bytes.length
  for (const part of parts) at -= part.bytes.length
  const slots: Piece['slots'] = []
  for (const part of parts) {
    for (const each of part.slots) slots.push({ what: each.what, at: at + each.at })
    at += part.bytes.length
  }
  return { bytes, slots }
}

const COMMON_NAME_OID = encodeOid(COMMON_NAME)
const SERIAL_NUMBER_OID = encodeOid(SERIAL_NUMBER)

/** A name's only attribute, without the SEQUENCE around it: its length is below 128. */
function nameContent(attribute: { oid: string; value: string }): Bytes {
  return encodeName([attribute]).subarray(2)
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
