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

function malformed(detail: string, at: number): never {
  return fail('cbor_malformed', detail + ' at ' + at)
}

function readValue(reader: Reader, depth: number): CborValue {
  const bytes = reader.bytes
  const start = reader.at
  if (--reader.items < 0 || depth < 0) malformed('limit', start)
  if (start >= bytes.length) malformed('truncated', start)
  const first = bytes[reader.at++]
  const major = first >> 5
  let n = first & 31
  if (major === 7) {
    if (n === 20 || n === 21) return n === 21
    return n === 22 ? null : malformed('float or simple value', start)
  }
  if (n > 23) {
    // 28-30 are reserved, 31 is an indefinite length.
    const width = n < 28 ? 1 << (n - 24) : malformed('length form', start)
    if (width > bytes.length - reader.at) malformed('truncated', start)
    n = 0
    for (let i = 0; i < width; i++) n = n * 256 + bytes[reader.at++]
    if (n < (width === 1 ? 24 : Math.pow(256, width >> 1)) || n > 9007199254740991) malformed('number', start)
  }
  if (major === 0) return n
  if (major === 1) return -1 - n
  if (major < 4) {
    if (n > bytes.length - reader.at) malformed('truncated', start)
    const string = bytes.subarray(reader.at, reader.at + n)
    reader.at += n
    if (major === 2) return string
    const text = utf8Text(string)
    return text === null ? malformed('UTF-8', start) : text
  }
  if (major === 6) return { tag: n, value: readValue(reader, depth - 1) }
  // `n` is not trusted with memory: each turn costs a byte and an item, so both loops end with the input or the limit.
  if (major === 4) {
    const array: CborValue[] = []
    for (let i = 0; i < n; i++) array.push(readValue(reader, depth - 1))
    return array
  }
  const map: [CborValue, CborValue][] = []
  let before: Bytes | null = null
  for (let i = 0; i < n; i++) {
    const from = reader.at
    const key = readValue(reader, depth - 1)
    const encoded = bytes.subarray(from, reader.at)
    // Strictly ascending bytes: sorted, and no key twice.
    if (before && compareBytes(before, encoded) >= 0) malformed('map key', from)
    before = encoded
    map.push([key, readValue(reader, depth - 1)])
  }
  return { map: map }
}

/** One value that takes all of `bytes`. Throws `cbor_malformed` for anything not deterministic, not supported, or beyond the limits. */
export function decodeCbor(bytes: Bytes, limits: CborLimits): CborValue {
  const reader: Reader = { bytes: bytes, at: 0, items: limits.itemsMax }
  const value = readValue(reader, limits.depthMax)
  if (reader.at !== bytes.length) malformed('trailing bytes', reader.at)
  return value
}

function head(major: number, n: number): Bytes {
  if (n < 24) return new Uint8Array([(major << 5) | n])
  const power = n < 256 ? 0 : n < 65536 ? 1 : n < 4294967296 ? 2 : 3
  const out = new Uint8Array(1 + (1 << power))
  out[0] = (major << 5) | (24 + power)
  let rest = n
  for (let i = out.length - 1; i > 0; i--) {
    out[i] = rest % 256
    rest = Math.floor(rest / 256)
  }
  return out
}

/** The one deterministic encoding; map entries may come in any order. Throws `cbor_malformed` for a fraction, a repeated key, or no CBOR value. */
export function encodeCbor(value: CborValue): Bytes {
  if (value === true || value === false || value === null) return head(7, value === null ? 22 : value ? 21 : 20)
  if (typeof value === 'number') {
    const n = value < 0 ? -1 - value : value
    if (!(n <= 9007199254740991) || n !== Math.floor(n)) malformed('number', value)
    return head(value < 0 ? 1 : 0, n)
  }
  if (typeof value === 'string') {
    const text = utf8Bytes(value)
    return concatBytes([head(3, text.length), text])
  }
  if (value instanceof Uint8Array) return concatBytes([head(2, value.length), value])
  const parts: Bytes[] = []
  if (value instanceof Array) {
    parts.push(head(4, value.length))
    for (let i = 0; i < value.length; i++) parts.push(encodeCbor(value[i]))
  } else if ('tag' in value) parts.push(head(6, value.tag), encodeCbor(value.value))
  else {
    const entries: Bytes[][] = []
    for (let i = 0; i < value.map.length; i++) entries.push([encodeCbor(value.map[i][0]), encodeCbor(value.map[i][1])])
    entries.sort(function (a, b) {
      return compareBytes(a[0], b[0])
    })
    parts.push(head(5, entries.length))
    for (let i = 0; i < entries.length; i++) {
      if (i > 0 && compareBytes(entries[i - 1][0], entries[i][0]) === 0) malformed('map key', i)
      parts.push(entries[i][0], entries[i][1])
    }
  }
  return concatBytes(parts)
}
