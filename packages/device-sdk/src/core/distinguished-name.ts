// Distinguished names (RFC 5280 4.1.2.4): reading attributes, writing names, comparing and printing them. A name stays the DER
// bytes it came as; nothing here says that whoever bears it is entitled to it.

import { type Bytes, bytesOfHex, equalBytes, hexOf, utf8Bytes, utf8Text } from './bytes.ts'
import {
  bad,
  contentOf,
  type Element,
  encodeElement,
  encodeOid,
  encodeSequence,
  IA5_STRING,
  oidValue,
  PRINTABLE_STRING,
  partsOf,
  readWhole,
  SEQUENCE,
  SET,
  UTF8_STRING,
} from './der.ts'
import { fail } from './errors.ts'

export const COMMON_NAME = '550403' // 2.5.4.3
export const SERIAL_NUMBER = '550405' // 2.5.4.5
export const COUNTRY = '550406' // 2.5.4.6
export const LOCALITY = '550407' // 2.5.4.7
export const STATE = '550408' // 2.5.4.8
export const ORGANIZATION = '55040a' // 2.5.4.10
export const ORGANIZATIONAL_UNIT = '55040b' // 2.5.4.11
export const EMAIL_ADDRESS = '2a864886f70d010901' // 1.2.840.113549.1.9.1
export const DOMAIN_COMPONENT = '0992268993f22c640119' // 0.9.2342.19200300.100.1.25

/** Real names have at most a dozen attributes in 300 bytes; these keep comparison of hostile ones cheap. */
const nameBytesMax = 1024
const relativeNamesMax = 32
const attributesMax = 8

/** One AttributeTypeAndValue. `first`: it opens a relative name (several attributes may share one). */
export interface NameAttribute {
  oid: string
  value: Element
  text: string
  first: boolean
}

/** Text of a UTF8String, PrintableString or IA5String; null for any other type and for octets that are not such text. */
export function stringOf(value: Element): string | null {
  const tag = value.tag
  const text = tag === UTF8_STRING || tag === PRINTABLE_STRING || tag === IA5_STRING ? utf8Text(contentOf(value)) : null
  return text && tag !== UTF8_STRING && text.length < value.end - value.content ? null : text
}

/**
 * The attributes of an RDNSequence, in order. Throws der_*, also for a value that is not text of the three types above: RFC 5280 4.1.2.4
 * keeps TeletexString, BMPString and UniversalString for subjects of the last century, and no device chain we know has them.
 */
export function attributesOf(name: Element): NameAttribute[] {
  const out: NameAttribute[] = []
  if (name.end - name.head > nameBytesMax) fail('der_limit', 'name')
  partsOf(name, SEQUENCE, 0, relativeNamesMax).forEach(set => {
    partsOf(set, SET, 1, attributesMax).forEach((member, at) => {
      const pair = partsOf(member, SEQUENCE, 2, 2)
      const text = stringOf(pair[1])
      out.push({ oid: oidValue(pair[0]), value: pair[1], text: text === null ? bad(pair[1].head) : text, first: !at })
    })
  })
  return out
}

/**
 * The value of the one attribute of type `oid` in a DER name. Null when it is absent or occurs twice (which of two would be meant?).
 * The text may hold any character, NUL too: check it against the alphabet you expect.
 */
export function nameAttribute(name: Bytes, oid: string): string | null {
  const values = attributesOf(readWhole(name, SEQUENCE)).filter(attribute => attribute.oid === oid)
  return values.length === 1 ? values[0].text : null
}

/** RFC 5280 7.1: case and runs of spaces do not tell two names apart, nor does Printable against UTF-8. */
function foldedText(text: string): string {
  return text.toLowerCase().replace(/ +/g, ' ').replace(/^ /, '').replace(/ $/, '')
}

/** A name as one folded string a relative name, so that names and name prefixes compare by `===`. */
export function foldedName(name: Bytes): string[] {
  const attributes = attributesOf(readWhole(name, SEQUENCE))
  const out: string[] = []
  for (let i = 0; i < attributes.length; i++) {
    // The length keeps a value that imitates a separator from merging with its neighbour.
    const text = foldedText(attributes[i].text)
    const part = attributes[i].oid + '=' + text.length + ':' + text
    if (attributes[i].first) out.push(part)
    else out[out.length - 1] += '+' + part
  }
  return out
}

/** A name as one string, equal for names that are the same by RFC 5280 7.1: `foldName` of the path rules. */
export function foldName(name: Bytes): string {
  return foldedName(name).join()
}

/** Whether two DER names are the same, bytewise or folded. */
export function sameName(a: Bytes, b: Bytes): boolean {
  return equalBytes(a, b) || foldName(a) === foldName(b)
}

/** X.680 41.4: letters, digits, space and '()+,-./:=? */
const PRINTABLE = /^[ '-)+-:=?a-z]*$/i

function relativeName(oid: string, tag: number, value: string): Bytes {
  return encodeElement(SET, [encodeSequence([encodeOid(oid), encodeElement(tag, [utf8Bytes(value)])])])
}

/**
 * RFC 5280 A.1 wants PrintableString for serialNumber and country. A value with a character outside its alphabet (`_`) goes as UTF8String
 * rather than as a PrintableString that is none; readers take either.
 */
function printableName(oid: string, value: string): Bytes {
  return relativeName(oid, PRINTABLE.test(value) ? PRINTABLE_STRING : UTF8_STRING, value)
}

/** A name of one attribute a relative name, in the given order. */
export function encodeName(attributes: { oid: string; value: string }[]): Bytes {
  const sets: Bytes[] = []
  for (let i = 0; i < attributes.length; i++) {
    const oid = attributes[i].oid
    const value = attributes[i].value
    // Of the others, what is not of X.520 (three octets) is emailAddress or domainComponent, IA5Strings both.
    if (oid === SERIAL_NUMBER || oid === COUNTRY) sets.push(printableName(oid, value))
    else sets.push(relativeName(oid, oid.length > 6 ? IA5_STRING : UTF8_STRING, value))
  }
  return encodeSequence(sets)
}

/** The name a device asks for: its id, 1 to 64 characters, as CN and serialNumber. */
export function encodeDeviceName(id: string): Bytes {
  return encodeSequence([relativeName(COMMON_NAME, UTF8_STRING, id), printableName(SERIAL_NUMBER, id)])
}

/** Dotted form of an OID given as hex, for people. An arc beyond 2^53 is shown as hex. */
export function oidText(oid: string): string {
  const octets = bytesOfHex(oid)
  let out = ''
  let arc = 0
  let from = 0
  for (let i = 0; i < octets.length; i++) {
    arc = arc * 128 + (octets[i] & 127)
    if (octets[i] >= 0x80) continue
    const text = arc <= 9007199254740991 ? '' + arc : '0x' + oid.slice(2 * from, 2 * i + 2)
    if (out) out += '.' + text
    else out = arc < 80 ? (arc < 40 ? '0.' + arc : '1.' + (arc - 40)) : '2.' + (arc - 80)
    arc = 0
    from = i + 1
  }
  return out
}

const SHORT_NAMES = [COMMON_NAME, 'CN', SERIAL_NUMBER, 'serialNumber', COUNTRY, 'C', LOCALITY, 'L', STATE, 'ST', ORGANIZATION, 'O']
const MORE_SHORT_NAMES = [ORGANIZATIONAL_UNIT, 'OU', EMAIL_ADDRESS, 'emailAddress', DOMAIN_COMPONENT, 'DC']

/** A DER name in the string form of RFC 4514 (last relative name first), for logs and people; never for comparing. */
export function nameText(name: Bytes): string {
  const attributes = attributesOf(readWhole(name, SEQUENCE))
  const names = SHORT_NAMES.concat(MORE_SHORT_NAMES)
  let out = ''
  let relative = ''
  for (let i = 0; i < attributes.length; i++) {
    const at = names.indexOf(attributes[i].oid)
    const text = attributes[i].text
    let shown = ''
    for (let j = 0; j < text.length; j++) {
      const c = text.charCodeAt(j)
      const edge = (j === 0 && (text[j] === ' ' || text[j] === '#')) || (j === text.length - 1 && text[j] === ' ')
      // Control characters leave as hex pairs, so that a name cannot write its own log line.
      if (c < 0x20 || c === 0x7f) shown += '\\' + hexOf(new Uint8Array([c]))
      else shown += edge || ',+"\\<>;='.indexOf(text[j]) >= 0 ? '\\' + text[j] : text[j]
    }
    const part = (at < 0 ? oidText(attributes[i].oid) : names[at + 1]) + '=' + shown
    if (attributes[i].first) {
      if (relative) out = out ? relative + ',' + out : relative
      relative = part
    } else relative += '+' + part
  }
  return relative && out ? relative + ',' + out : relative
}
