// CBOR for signed bytes: the deterministic form of RFC 8949 4.2.1 and nothing else, so that a value has one encoding and two readers
// never disagree about what was signed. No floats, no undefined, no indefinite lengths. What a value means is left to its reader.

import { type Bytes, compareBytes, concatBytes, utf8Bytes, utf8Text } from './bytes.ts'
import { fail } from './errors.ts'

export interface CborMap {
  map: [CborValue, CborValue][]
}

export interface CborTag {
  tag: number
  value: CborValue
}

/** A number is an integer from -2^53 to 2^53 - 1. A decoded byte string is a view on the received bytes. */
export type CborValue = number | string | boolean | null | Bytes | CborValue[] | CborMap | CborTag

/** `itemsMax` counts every value, keys and containers included: it bounds the memory that a few bytes can ask for. */
export interface CborLimits {
  depthMax: number
  itemsMax: number
}

interface Reader {
  bytes: Bytes
  at: number
  items: number
}

const NUMBER_MAX = 9007199254740991
/** By width in bytes: the least number that needs them. */
const LEAST = [0, 24, 256, 0, 65536, 0, 0, 0, 4294967296]

function malformed(at: number): never {
  return fail('cbor_malformed', 'at ' + at)
}

function readValue(reader: Reader, depth: number): CborValue {
  const bytes = reader.bytes
  const start = reader.at
  if (--reader.items < 0 || depth < 0 || start >= bytes.length) malformed(start)
  const first = bytes[reader.at++]
  const major = first >> 5
  let n = first & 31
  // 7 is floats and simple values: only false, true and null are ours.
  if (major === 7) return n === 22 ? null : n === 20 || n === 21 ? n === 21 : malformed(start)
  if (n > 23) {
    // 28-30 are reserved, 31 is an indefinite length.
    const width = n < 28 ? 1 << (n - 24) : malformed(start)
    n = 0
    // Past the end a byte reads as undefined and the sum as NaN, which the comparison below refuses.
    for (let i = 0; i < width; i++) n = n * 256 + bytes[reader.at++]
    if (!(n >= LEAST[width] && n <= NUMBER_MAX)) malformed(start)
  }
  if (major < 2) return major ? -1 - n : n
  if (major < 4) {
    if (n > bytes.length - reader.at) malformed(start)
    const string = bytes.subarray(reader.at, reader.at + n)
    reader.at += n
    if (major === 2) return string
    const text = utf8Text(string)
    return text === null ? malformed(start) : text
  }
  if (major === 6) return { tag: n, value: readValue(reader, depth - 1) }
  // `n` is not trusted with memory: each turn costs a byte and an item, so the loop ends with the input or the limit.
  const array: CborValue[] = []
  const map: [CborValue, CborValue][] = []
  let before: Bytes | null = null
  for (let i = 0; i < n; i++) {
    const from = reader.at
    const item = readValue(reader, depth - 1)
    if (major === 4) array.push(item)
    else {
      const key = bytes.subarray(from, reader.at)
      // Strictly ascending bytes: sorted, and no key twice.
      if (before && compareBytes(before, key) >= 0) malformed(from)
      before = key
      map.push([item, readValue(reader, depth - 1)])
    }
  }
  return major === 4 ? array : { map: map }
}

/** One value that takes all of `bytes`. Throws `cbor_malformed` for anything not deterministic, not supported, or beyond the limits. */
export function decodeCbor(bytes: Bytes, limits: CborLimits): CborValue {
  const reader: Reader = { bytes: bytes, at: 0, items: limits.itemsMax }
  const value = readValue(reader, limits.depthMax)
  return reader.at === bytes.length ? value : malformed(reader.at)
}

/** The entries of a map, in the order of their encoded keys. Throws `cbor_malformed` for any other value. */
export function mapEntries(value: CborValue): [CborValue, CborValue][] {
  const map = value && (value as CborMap).map
  return Array.isArray(map) ? map : malformed(0)
}

/** A head with its minimal argument, then `parts`. */
function item(major: number, n: number, parts: Bytes[]): Bytes {
  const octets = n < 24 ? 0 : n < 256 ? 1 : n < 65536 ? 2 : n < 4294967296 ? 4 : 8
  const head: Bytes = new Uint8Array(1 + octets)
  let rest = n
  for (let i = octets; i > 0; i--) {
    head[i] = rest % 256
    rest = Math.floor(rest / 256)
  }
  head[0] = (major << 5) | (octets === 0 ? n : octets === 8 ? 27 : 24 + (octets >> 1))
  return concatBytes([head].concat(parts))
}

function compareEntries(a: Bytes[], b: Bytes[]): number {
  return compareBytes(a[0], b[0])
}

/** The one deterministic encoding; map entries may come in any order. Throws `cbor_malformed` for a fraction, a repeated key, or no CBOR value. */
export function encodeCbor(value: CborValue): Bytes {
  if (value === null) return item(7, 22, [])
  if (typeof value === 'boolean') return item(7, value ? 21 : 20, [])
  if (typeof value === 'number') {
    const n = value < 0 ? -1 - value : value
    return n <= NUMBER_MAX && n === Math.floor(n) ? item(value < 0 ? 1 : 0, n, []) : malformed(value)
  }
  if (typeof value === 'string') {
    const text = utf8Bytes(value)
    return item(3, text.length, [text])
  }
  if (value instanceof Uint8Array) return item(2, value.length, [value])
  if (Array.isArray(value)) return item(4, value.length, value.map(encodeCbor))
  if ('tag' in value) return item(6, value.tag, [encodeCbor(value.value)])
  const entries: Bytes[][] = []
  for (let i = 0; i < value.map.length; i++) entries.push(value.map[i].map(encodeCbor))
  entries.sort(compareEntries)
  for (let i = 1; i < entries.length; i++) if (compareEntries(entries[i - 1], entries[i]) === 0) malformed(i)
  return item(5, entries.length, entries.map(concatBytes))
}
