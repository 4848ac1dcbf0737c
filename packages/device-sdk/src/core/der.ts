// Strict DER (X.690): definite minimal lengths, low tags, canonical values. A reader that walks by offsets and copies nothing,
// and a writer. It does not recurse, so nesting costs no stack; how deep a structure goes is fixed by the parser that reads it.

import { type Bytes, bytesOfHex, compareBytes, concatBytes, hexOf, utf8Text } from './bytes.ts'
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

/** One element: `bytes[head..content)` is the header, `bytes[content..end)` the content. Offsets into the caller's bytes. */
export interface Element {
  bytes: Bytes
  tag: number
  head: number
  content: number
  end: number
}

/**
 * Throws `der_malformed` for the octet at `at`. Everything malformed says where, and no more: on a device words cost flash, and the offset
 * finds the byte in any dump.
 */
export function bad(at: number): never {
  return fail('der_malformed', 'at ' + at)
}

/**
 * Reads the header of the element at `at`, which must end at or before `end`.
 * Throws `der_malformed` on truncation, high tag numbers, and indefinite or non-minimal lengths (X.690 10.1).
 */
export function readElement(bytes: Bytes, at: number, end: number): Element {
  let body = at + 2
  let length = bytes[at + 1]
  if (length > 0x7f) {
    const octets = length & 0x7f
    length = 0
    // Three octets reach 16 MiB, beyond every body limit of this project; four could overflow 31-bit engines.
    if (octets < 4 && bytes[body]) for (let i = 0; i < octets; i++) length = (length << 8) | bytes[body++]
    if (length < 0x80) bad(at)
  }
  // Written so that undefined, from beyond the bytes, is refused.
  if (!(body + length <= end) || (bytes[at] & 31) === 31) bad(at)
  return { bytes: bytes, tag: bytes[at], head: at, content: body, end: body + length }
}

/** Reads `bytes` as exactly one element of `tag`; trailing bytes are refused. */
export function readWhole(bytes: Bytes, tag: number): Element {
  const element = expectTag(readElement(bytes, 0, bytes.length), tag)
  if (element.end !== bytes.length) bad(element.end)
  return element
}

/** `element` itself, or `der_malformed` when it is absent or of another tag. */
export function expectTag(element: Element | undefined, tag: number): Element {
  return element && element.tag === tag ? element : bad(element ? element.head : -1)
}

/** The elements inside a constructed one, in order. More than `most` throws `der_limit`. */
export function childrenOf(parent: Element, most: number): Element[] {
  const out: Element[] = []
  let at = parent.content
  while (at < parent.end) {
    if (out.length >= most) fail('der_limit', most + ' at ' + parent.head)
    const child = readElement(parent.bytes, at, parent.end)
    out.push(child)
    at = child.end
  }
  return out
}

/** The `least` to `most` elements of one of `tag`. Fewer throws `der_malformed`, more `der_limit`. */
export function partsOf(element: Element | undefined, tag: number, least: number, most: number): Element[] {
  const out = childrenOf(expectTag(element, tag), most)
  return out.length < least ? bad((element as Element).head) : out
}

/** The same for bytes that are one SEQUENCE and nothing else. */
export function wholeParts(bytes: Bytes, least: number, most: number): Element[] {
  return partsOf(readWhole(bytes, SEQUENCE), SEQUENCE, least, most)
}

/** Header and content, a view on the received bytes. */
export function encodingOf(element: Element): Bytes {
  return element.bytes.subarray(element.head, element.end)
}

/** Content only, a view on the received bytes. */
export function contentOf(element: Element): Bytes {
  return element.bytes.subarray(element.content, element.end)
}

/** Content octets of a canonical INTEGER: minimal, sign included. */
export function integerBytes(element: Element): Bytes {
  const content = contentOf(expectTag(element, INTEGER))
  // Nine equal bits in front are one octet too many (X.690 8.3.2).
  const nine = content.length > 1 ? (content[0] << 1) | (content[1] >> 7) : content.length
  return nine % 511 ? content : bad(element.head)
}

/** A non-negative INTEGER up to 2^31 - 1. Larger or negative throws `der_malformed`. */
export function smallInteger(element: Element): number {
  const content = integerBytes(element)
  let value = 0
  for (let i = 0; i < content.length; i++) value = (value << 8) | content[i]
  return content[0] > 0x7f || content.length > 4 ? bad(element.head) : value
}

export function booleanValue(element: Element): boolean {
  const value = hexOf(contentOf(expectTag(element, BOOLEAN)))
  return value === 'ff' || (value !== '00' && bad(element.head))
}

/**
 * An OBJECT IDENTIFIER as the lower-case hex of its content octets. Arcs are never turned into numbers, so an arc of
 * any size (2.25's are 128 bits) costs a string comparison and no arithmetic.
 */
export function oidValue(element: Element): string {
  const content = contentOf(expectTag(element, OBJECT_IDENTIFIER))
  let first = true
  for (let i = 0; i < content.length; i++) {
    // An arc may not start with a padding octet, and the last octet must end one.
    if (first && content[i] === 0x80) bad(element.head)
    first = content[i] < 0x80
  }
  return first && content.length && content.length <= oidBytesMax ? hexOf(content) : bad(element.head)
}

/** The octets of a BIT STRING with no unused bits, as keys and signatures have. */
export function octetBits(element: Element): Bytes {
  const content = contentOf(expectTag(element, BIT_STRING))
  return content[0] === 0 ? content.subarray(1) : bad(element.head)
}

/**
 * The first 32 named bits, bit 0 as the lowest bit of the result. Unused bits must be zero (X.690 11.2.1). Trailing zero bits, which
 * 11.2.2 has removed, are let pass: the TPM CAs of Infineon write keyUsage so, and the value is the same either way.
 */
export function namedBits(element: Element): number {
  const content = contentOf(expectTag(element, BIT_STRING))
  const unused = content[0]
  const last = content.length - 1
  if (!(unused < 8) || last > 4 || (last ? content[last] & ((1 << unused) - 1) : unused)) bad(element.head)
  let bits = 0
  for (let i = 0; i < 8 * last; i++) if (content[1 + (i >> 3)] & (0x80 >> (i & 7))) bits |= 1 << i
  return bits
}

/**
 * Seconds since 1970-01-01T00:00:00Z of a UTCTime or GeneralizedTime in the only form RFC 5280 4.1.2.5 allows
 * (seconds present, `Z`, no fraction).
 */
export function timeValue(element: Element): number {
  const short = element.tag === UTC_TIME
  const text = utf8Text(contentOf(short ? element : expectTag(element, GENERALIZED_TIME))) || ''
  // Two digits stand for 1950 to 2049.
  const full = (short ? (text < '5' ? '20' : '19') : '') + text
  const iso = full.replace(/^(\d\d\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6.000Z')
  const time = Date.parse(iso)
  // Engines differ over 30 February, month 13, 24:00 and what is no date at all: only a moment that reads the same again is one. The length is
  // asked for because what the pattern does not match stays as it was, and may be ISO's own spelling, of 24 or 27 characters.
  return full.length === 15 && new Date(time).toJSON() === iso ? time / 1000 : bad(element.head)
}

/** Encodes one element. `content` is the parts of its content, concatenated. */
export function encodeElement(tag: number, content: Bytes[]): Bytes {
  const body = concatBytes(content)
  const header = [tag, body.length]
  if (body.length > 0x7f) {
    header[1] = 0x80
    for (let rest = body.length; rest; rest >>= 8) {
      header.splice(2, 0, rest & 0xff)
      header[1]++
    }
  }
  return concatBytes([new Uint8Array(header), body])
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

/** OBJECT IDENTIFIER of the hex of its content octets. */
export function encodeOid(oid: string): Bytes {
  return encodeElement(OBJECT_IDENTIFIER, [bytesOfHex(oid)])
}

/** SET OF in DER order (X.690 11.6). */
export function encodeSetOf(parts: Bytes[]): Bytes {
  return encodeElement(SET, [concatBytes(parts.slice().sort(compareBytes))])
}
