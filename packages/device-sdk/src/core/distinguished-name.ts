// Distinguished names (RFC 5280 4.1.2.4): reading attributes, writing names, comparing and printing them. A name stays the DER
// bytes it came as; nothing here says that whoever bears it is entitled to it.

import { type Bytes, bytesOfHex, equalBytes, hexOf, utf8Bytes, utf8Text } from './bytes.ts'
import {
  childrenOf,
  contentOf,
  type Element,
  encodeElement,
  encodingOf,
  IA5_STRING,
  OBJECT_IDENTIFIER,
  oidValue,
  PRINTABLE_STRING,
  readWhole,
  SEQUENCE,
  SET,
  UTF8_STRING,
} from './der.ts'
import { type DeviceErrorCode, fail } from './errors.ts'

export const COMMON_NAME = '550403' // 2.5.4.3
export const SERIAL_NUMBER = '550405' // 2.5.4.5
export const COUNTRY = '550406' // 2.5.4.6
export const LOCALITY = '550407' // 2.5.4.7
export const STATE = '550408' // 2.5.4.8
export const ORGANIZATION = '55040a' // 2.5.4.10
export const ORGANIZATIONAL_UNIT = '55040b' // 2.5.4.11
export const EMAIL_ADDRESS = '2a864886f70d010901' // 1.2.840.113549.1.9.1
export const DOMAIN_COMPONENT = '0992268993f22c640119' // 0.9.2342.19200300.100.1.25

/** Real names have at most a dozen; these keep comparison of hostile ones cheap. */
const relativeNamesMax = 32
const attributesMax = 8

const BMP_STRING = 0x1e
const UNIVERSAL_STRING = 0x1c

/** One AttributeTypeAndValue. `first`: it opens a relative name (several attributes may share one). */
export interface NameAttribute {
  oid: string
  value: Element
  first: boolean
}

/** The attributes of an RDNSequence, in order. Throws `code` on anything that is not one. */
export function attributesOf(name: Element, code: DeviceErrorCode): NameAttribute[] {
  const out: NameAttribute[] = []
  const sets = childrenOf(name, relativeNamesMax)
  for (let i = 0; i < sets.length; i++) {
    const members = childrenOf(sets[i], attributesMax)
    if (name.tag !== SEQUENCE || sets[i].tag !== SET || members.length === 0) fail(code, 'name')
    for (let j = 0; j < members.length; j++) {
      const pair = childrenOf(members[j], 2)
      if (members[j].tag !== SEQUENCE || pair.length !== 2) fail(code, 'name')
      const length = pair[1].end - pair[1].body
      if ((pair[1].tag === BMP_STRING && length % 2) || (pair[1].tag === UNIVERSAL_STRING && length % 4)) fail(code, 'name string')
      if (pair[1].tag === UTF8_STRING && utf8Text(contentOf(pair[1])) === null) fail(code, 'name string')
      out.push({ oid: oidValue(pair[0]), value: pair[1], first: j === 0 })
    }
  }
  return out
}

/** Text of a UTF8String, PrintableString or IA5String; null for any other type and for octets that are not such text. */
export function stringOf(value: Element): string | null {
  if (value.tag !== UTF8_STRING && value.tag !== PRINTABLE_STRING && value.tag !== IA5_STRING) return null
  const text = utf8Text(contentOf(value))
  return text !== null && value.tag !== UTF8_STRING && text.length !== value.end - value.body ? null : text
}

/**
 * The value of the one attribute of type `oid` in a DER name. Null when it is absent, occurs twice (which of two would be meant?) or
 * is not text. The text may hold any character, NUL too: check it against the alphabet you expect.
 */
export function nameAttribute(name: Bytes, oid: string): string | null {
  const attributes = attributesOf(readWhole(name, SEQUENCE), 'certificate_malformed')
  let found: string | null = null
  let count = 0
  for (let i = 0; i < attributes.length; i++) {
    if (attributes[i].oid !== oid) continue
    found = stringOf(attributes[i].value)
    count++
  }
  return count === 1 ? found : null
}

/** RFC 5280 7.1 as far as ASCII goes: case and runs of spaces do not tell two names apart, nor does Printable against UTF-8. */
function foldedText(value: Element): string {
  const text = stringOf(value)
  if (text === null) return value.tag + '#' + hexOf(contentOf(value))
  let out = ''
  let gap = false
  for (let i = 0; i < text.length; i++) {
    if (text[i] === ' ') gap = true
    else {
      if (gap && out) out += ' '
      gap = false
      out += text[i]
    }
  }
  return out.toLowerCase()
}

/** A name as one folded string a relative name, so that names and name prefixes compare by `===`. */
export function foldedName(name: Bytes): string[] {
  const attributes = attributesOf(readWhole(name, SEQUENCE), 'certificate_malformed')
  const out: string[] = []
  for (let i = 0; i < attributes.length; i++) {
    // The length keeps a value that imitates a separator from merging with its neighbour.
    const text = foldedText(attributes[i].value)
    const part = attributes[i].oid + '=' + text.length + ':' + text
    if (attributes[i].first) out.push(part)
    else out[out.length - 1] += '+' + part
  }
  return out
}

/** Whether two DER names are the same, bytewise or folded. */
export function sameName(a: Bytes, b: Bytes): boolean {
  return equalBytes(a, b) || foldedName(a).join(',') === foldedName(b).join(',')
}

/** X.680 41.4: letters, digits, space and ' ( ) + , - . / : = ? */
function isPrintable(c: number): boolean {
  return (
    (c >= 0x61 && c <= 0x7a) ||
    (c >= 0x41 && c <= 0x5a) ||
    (c >= 0x27 && c <= 0x3a && c !== 0x2a) ||
    c === 0x20 ||
    c === 0x3d ||
    c === 0x3f
  )
}

/** A name of one attribute a relative name, in the given order. */
export function encodeName(attributes: { oid: string; value: string }[]): Bytes {
  const sets: Bytes[] = []
  for (let i = 0; i < attributes.length; i++) {
    const oid = attributes[i].oid
    const value = utf8Bytes(attributes[i].value)
    let tag = UTF8_STRING
    if (oid === EMAIL_ADDRESS || oid === DOMAIN_COMPONENT) tag = IA5_STRING
    else if (oid === SERIAL_NUMBER || oid === COUNTRY) {
      // RFC 5280 A.1 wants PrintableString here. An id with a character outside its alphabet (`_`) goes as UTF8String
      // rather than as a PrintableString that is none; readers take either.
      tag = PRINTABLE_STRING
      for (let j = 0; j < value.length; j++) if (!isPrintable(value[j])) tag = UTF8_STRING
    }
    sets.push(
      encodeElement(SET, [
        encodeElement(SEQUENCE, [encodeElement(OBJECT_IDENTIFIER, [bytesOfHex(oid)]), encodeElement(tag, [value])]),
      ]),
    )
  }
  return encodeElement(SEQUENCE, sets)
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
  const attributes = attributesOf(readWhole(name, SEQUENCE), 'certificate_malformed')
  const names = SHORT_NAMES.concat(MORE_SHORT_NAMES)
  let out = ''
  let relative = ''
  for (let i = 0; i < attributes.length; i++) {
    const at = names.indexOf(attributes[i].oid)
    const text = stringOf(attributes[i].value)
    let shown = '#' + hexOf(encodingOf(attributes[i].value))
    if (text !== null) {
      shown = ''
      for (let j = 0; j < text.length; j++) {
        const c = text.charCodeAt(j)
        const edge = (j === 0 && (text[j] === ' ' || text[j] === '#')) || (j === text.length - 1 && text[j] === ' ')
        // Control characters leave as hex pairs, so that a name cannot write its own log line.
        if (c < 0x20 || c === 0x7f) shown += '\\' + hexOf(new Uint8Array([c]))
        else shown += edge || ',+"\\<>;='.indexOf(text[j]) >= 0 ? '\\' + text[j] : text[j]
      }
    }
    const part = (at < 0 ? oidText(attributes[i].oid) : names[at + 1]) + '=' + shown
    if (attributes[i].first) {
      if (relative) out = out ? relative + ',' + out : relative
      relative = part
    } else relative += '+' + part
  }
  return relative && out ? relative + ',' + out : relative
}
