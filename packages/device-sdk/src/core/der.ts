// Strict DER (X.690): definite minimal lengths, low tags, canonical values. A reader that walks by offsets and copies nothing,
// and a writer. It does not recurse, so nesting costs no stack; how deep a structure goes is fixed by the parser that reads it.

import { type Bytes, compareBytes, concatBytes, hexOf } from './bytes.ts'
import { fail } from './errors.ts'

export const BOOLEAN = 0x01
export const INTEGER = 0x02
export const BIT_STRING = 0x03
export const OCTET_STRING = 0x04
export const NULL = 0x05
export const OBJECT_IDENTIFIER = 0x06
export const UTF8_STRING = 0x0c
export const PRINTABLE_STRING = 0x13
export const IA5_STRING = 0x16
export const UTC_TIME = 0x17
export const GENERALIZED_TIME = 0x18
export const SEQUENCE = 0x30
export const SET = 0x31

/** Real OIDs take at most 20 octets, a 2.25 UUID arc 20; 64 leaves room and keeps comparison cheap. */
export const oidBytesMax = 64

/** One element: `bytes[start..body)` is the header, `bytes[body..end)` the content. Offsets into the caller's bytes. */
export interface Element {
  bytes: Bytes
  tag: number
  start: number
  body: number
  end: number
}

/**
 * Reads the header of the element at `at`, which must end at or before `end`.
 * Throws `der_malformed` on truncation, high tag numbers, and indefinite or non-minimal lengths (X.690 10.1).
 */
export function readElement(bytes: Bytes, at: number, end: number): Element {
  if (at + 2 > end) fail('der_malformed', 'truncated at ' + at)
  const tag = bytes[at]
  if ((tag & 31) === 31) fail('der_malformed', 'high tag number at ' + at)
  let length = bytes[at + 1]
  let body = at + 2
  if (length >= 0x80) {
    const octets = length & 0x7f
    // Three octets reach 16 MiB, beyond every body limit of this project; four could overflow 31-bit engines.
    if (octets === 0 || octets > 3) fail('der_malformed', 'length form at ' + at)
    if (body + octets > end) fail('der_malformed', 'truncated at ' + at)
    if (bytes[body] === 0) fail('der_malformed', 'non-minimal length at ' + at)
    length = 0
    for (let i = 0; i < octets; i++) length = (length << 8) | bytes[body++]
    if (length < 0x80) fail('der_malformed', 'non-minimal length at ' + at)
  }
  if (length > end - body) fail('der_malformed', 'truncated at ' + at)
  return { bytes: bytes, tag: tag, start: at, body: body, end: body + length }
}

/** Reads `bytes` as exactly one element of `tag`; trailing bytes are refused. */
export function readWhole(bytes: Bytes, tag: number): Element {
  const element = readElement(bytes, 0, bytes.length)
  if (element.end !== bytes.length) fail('der_malformed', 'trailing bytes')
  return expectTag(element, tag)
}

export function expectTag(element: Element | undefined, tag: number): Element {
  if (!element || element.tag !== tag) fail('der_malformed', 'expected tag ' + tag + (element ? ' at ' + element.start : ''))
  return element as Element
}

/** The elements inside a constructed one, in order. More than `most` throws `der_limit`. */
export function childrenOf(parent: Element, most: number): Element[] {
  const out: Element[] = []
  let at = parent.body
  while (at < parent.end) {
    if (out.length >= most) fail('der_limit', 'more than ' + most + ' elements at ' + parent.start)
    const child = readElement(parent.bytes, at, parent.end)
    out.push(child)
    at = child.end
  }
  return out
}

/** Header and content, a view on the received bytes. */
export function encodingOf(element: Element): Bytes {
  return element.bytes.subarray(element.start, element.end)
}

/** Content only, a view on the received bytes. */
export function contentOf(element: Element): Bytes {
  return element.bytes.subarray(element.body, element.end)
}

/** Content octets of a canonical INTEGER: minimal, sign included. */
export function integerBytes(element: Element): Bytes {
  const content = contentOf(expectTag(element, INTEGER))
  if (content.length === 0) fail('der_malformed', 'empty INTEGER')
  if (content.length > 1 && ((content[0] === 0 && content[1] < 0x80) || (content[0] === 0xff && content[1] >= 0x80)))
    fail('der_malformed', 'non-minimal INTEGER')
  return content
}

/** A non-negative INTEGER up to 2^31 - 1. Larger or negative throws `der_malformed`. */
export function smallInteger(element: Element): number {
  const content = integerBytes(element)
  if (content[0] >= 0x80 || content.length > 4) fail('der_malformed', 'INTEGER out of range')
  let value = 0
  for (let i = 0; i < content.length; i++) value = (value << 8) | content[i]
  return value
}

export function booleanValue(element: Element): boolean {
  const content = contentOf(expectTag(element, BOOLEAN))
  if (content.length !== 1 || (content[0] !== 0 && content[0] !== 0xff)) fail('der_malformed', 'BOOLEAN')
  return content[0] === 0xff
}

/**
 * An OBJECT IDENTIFIER as the lower-case hex of its content octets. Arcs are never turned into numbers, so an arc of
 * any size (2.25's are 128 bits) costs a string comparison and no arithmetic.
 */
export function oidValue(element: Element): string {
  const content = contentOf(expectTag(element, OBJECT_IDENTIFIER))
  if (content.length === 0 || content.length > oidBytesMax) fail('der_malformed', 'OID length')
  let first = true
  for (let i = 0; i < content.length; i++) {
    // An arc may not start with a padding octet, and the last octet must end one.
    if (first && content[i] === 0x80) fail('der_malformed', 'non-minimal OID arc')
    first = content[i] < 0x80
  }
  if (!first) fail('der_malformed', 'truncated OID arc')
  return hexOf(content)
}

/** The octets of a BIT STRING with no unused bits, as keys and signatures have. */
export function octetBits(element: Element): Bytes {
  const content = contentOf(expectTag(element, BIT_STRING))
  if (content.length === 0 || content[0] !== 0) fail('der_malformed', 'BIT STRING unused bits')
  return content.subarray(1)
}

/**
 * The first 32 named bits, bit 0 as the lowest bit of the result. Unused bits must be zero (X.690 11.2.1). Trailing zero bits, which
 * 11.2.2 has removed, are let pass: the TPM CAs of Infineon write keyUsage so, and the value is the same either way.
 */
export function namedBits(element: Element): number {
  const content = contentOf(expectTag(element, BIT_STRING))
  const unused = content[0]
  const last = content[content.length - 1]
  if (content.length === 0 || content.length > 5 || unused > 7 || (last & ((1 << unused) - 1) && content.length > 1))
    fail('der_malformed', 'BIT STRING')
  if (content.length === 1 && unused) fail('der_malformed', 'BIT STRING')
  let bits = 0
  for (let i = 1; i < content.length; i++) for (let b = 0; b < 8; b++) if (content[i] & (0x80 >> b)) bits |= 1 << (8 * (i - 1) + b)
  return bits
}

/** Days from 1970-01-01 to a Gregorian date. */
function daysTo(year: number, month: number, day: number): number {
  const y = month <= 2 ? year - 1 : year
  const era = Math.floor(y / 400)
  const yearOfEra = y - era * 400
  const dayOfYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1
  return era * 146097 + yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear - 719468
}

const MONTH_DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]

/**
 * Seconds since 1970-01-01T00:00:00Z of a UTCTime or GeneralizedTime in the only form RFC 5280 4.1.2.5 allows
 * (seconds present, `Z`, no fraction; UTCTime up to 2049, GeneralizedTime from 2050 on).
 */
export function timeValue(element: Element): number {
  const content = contentOf(element)
  const general = element.tag === GENERALIZED_TIME
  if (!general) expectTag(element, UTC_TIME)
  const digits = general ? 14 : 12
  if (content.length !== digits + 1 || content[digits] !== 0x5a) fail('der_malformed', 'time form')
  const pair = function (at: number): number {
    const tens = content[at] - 48
    const ones = content[at + 1] - 48
    if (tens < 0 || tens > 9 || ones < 0 || ones > 9) fail('der_malformed', 'time digit')
    return tens * 10 + ones
  }
  const at = general ? 4 : 2
  let year = general ? pair(0) * 100 + pair(2) : pair(0)
  if (!general) year += year < 50 ? 2000 : 1900
  const month = pair(at)
  const day = pair(at + 2)
  const hour = pair(at + 4)
  const minute = pair(at + 6)
  const second = pair(at + 8)
  const leap = month === 2 && year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0) ? 1 : 0
  if (month < 1 || month > 12 || day < 1 || day > MONTH_DAYS[month - 1] + leap || hour > 23 || minute > 59 || second > 59)
    fail('der_malformed', 'time value')
  return daysTo(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
}

/** Encodes one element. `content` is the parts of its content, concatenated. */
export function encodeElement(tag: number, content: Bytes[]): Bytes {
  let length = 0
  for (let i = 0; i < content.length; i++) length += content[i].length
  const header = length < 0x80 ? 2 : length < 0x100 ? 3 : length < 0x10000 ? 4 : 5
  if (length > 0xffffff) fail('der_limit', 'element of ' + length + ' bytes')
  const out = new Uint8Array(header + length)
  out[0] = tag
  if (header === 2) out[1] = length
  else {
    out[1] = 0x80 | (header - 2)
    for (let i = 0; i < header - 2; i++) out[header - 1 - i] = (length >> (8 * i)) & 0xff
  }
  let at = header
  for (let i = 0; i < content.length; i++) {
    out.set(content[i], at)
    at += content[i].length
  }
  return out
}

/** INTEGER of a non-negative number below 2^53. */
export function encodeInteger(value: number): Bytes {
  const octets: number[] = []
  let rest = value
  do {
    octets.unshift(rest % 256)
    rest = Math.floor(rest / 256)
  } while (rest > 0)
  if (octets[0] >= 0x80) octets.unshift(0)
  return encodeElement(INTEGER, [new Uint8Array(octets)])
}

/** INTEGER of unsigned big-endian octets. */
export function encodeUnsigned(octets: Bytes): Bytes {
  let at = 0
  while (at < octets.length - 1 && octets[at] === 0) at++
  const trimmed = octets.subarray(at)
  return encodeElement(INTEGER, trimmed[0] >= 0x80 ? [new Uint8Array(1), trimmed] : [trimmed])
}

/** BIT STRING of whole octets. */
export function encodeBits(octets: Bytes): Bytes {
  return encodeElement(BIT_STRING, [new Uint8Array(1), octets])
}

export function encodeSequence(parts: Bytes[]): Bytes {
  return encodeElement(SEQUENCE, parts)
}

/** SET OF in DER order (X.690 11.6). */
export function encodeSetOf(parts: Bytes[]): Bytes {
  return encodeElement(SET, [concatBytes(parts.slice().sort(compareBytes))])
}
