// Base64 (RFC 4648 section 4) and PEM (RFC 7468). EST bodies come wrapped, unwrapped, with or without line ends (RFC 8951), so white space
// is nobody's business here; everything else is strict, so that one value has one spelling.

import { type Bytes, utf8Bytes } from './bytes.ts'
import { fail } from './errors.ts'

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'

/** `lineLength`: characters a line, each line ended by a line feed; 0 for one line without an end. */
export function encodeBase64(bytes: Bytes, lineLength: number): string {
  let out = ''
  let lineStart = 0
  for (let i = 0; i < bytes.length; i += 3) {
    const left = bytes.length - i
    const b = bytes[i]
    const c = left > 1 ? bytes[i + 1] : 0
    const d = left > 2 ? bytes[i + 2] : 0
    out +=
      ALPHABET[b >> 2] +
      ALPHABET[((b & 3) << 4) | (c >> 4)] +
      (left > 1 ? ALPHABET[((c & 15) << 2) | (d >> 6)] : '=') +
      (left > 2 ? ALPHABET[d & 63] : '=')
    if (lineLength && (out.length - lineStart >= lineLength || left < 4)) {
      out += '\n'
      lineStart = out.length
    }
  }
  return out
}

/** The six bits of a character, −1 for white space, −2 for anything else. */
function sextet(c: number): number {
  if (c >= 0x41 && c <= 0x5a) return c - 0x41
  if (c >= 0x61 && c <= 0x7a) return c - 0x47
  if (c >= 0x30 && c <= 0x39) return c + 4
  if (c === 0x2b) return 62
  if (c === 0x2f) return 63
  return c === 0x20 || c === 9 || c === 10 || c === 13 ? -1 : -2
}

/**
 * Decodes base64 text. White space is skipped anywhere; padding must be present and its spare bits zero. More than `bytesMax` octets,
 * or any other character, throws `base64_malformed`. Takes at most 3/4 of the text's length in memory.
 */
export function decodeBase64(text: Bytes, bytesMax: number): Bytes {
  const out = new Uint8Array(Math.min(bytesMax, (text.length * 3) >> 2))
  let length = 0
  let bits = 0
  let count = 0
  let pads = 0
  for (let i = 0; i < text.length; i++) {
    const value = sextet(text[i])
    if (value === -1) continue
    if (text[i] === 0x3d) pads++
    else {
      if (value < 0 || pads) fail('base64_malformed', 'character at ' + i)
      bits = ((bits << 6) | value) & 0xffffff
    }
    count++
    if (count % 4) continue
    const octets = 3 - pads
    if (pads > 2) fail('base64_malformed', 'padding')
    bits <<= 6 * pads
    if (bits & ((1 << (8 * pads)) - 1)) fail('base64_malformed', 'spare bits')
    if (length + octets > bytesMax) fail('base64_malformed', 'more than ' + bytesMax + ' bytes')
    for (let j = 0; j < octets; j++) out[length++] = (bits >> (16 - 8 * j)) & 0xff
    bits = 0
  }
  if (count % 4) fail('base64_malformed', 'length')
  return out.subarray(0, length)
}

/** A chain of 32 ML-DSA certificates. */
const pemBytesMax = 524288

/**
 * The DER bodies between `-----BEGIN label-----` and `-----END label-----`, at most `most` of them, in order; [] when there is none.
 * Text around the blocks is explanation (RFC 7468 2) and blocks of other labels are passed over. Throws `base64_malformed`.
 */
export function decodePem(text: string | Bytes, label: string, most: number): Bytes[] {
  const octets = typeof text === 'string' ? utf8Bytes(text) : text
  if (octets.length > pemBytesMax) fail('base64_malformed', 'PEM size')
  const begin = utf8Bytes('-----BEGIN ' + label + '-----')
  const end = utf8Bytes('-----END ' + label + '-----')
  const find = function (what: Bytes, from: number): number {
    for (let i = from; i + what.length <= octets.length; i++) {
      let j = 0
      while (j < what.length && octets[i + j] === what[j]) j++
      if (j === what.length) return i
    }
    return -1
  }
  const out: Bytes[] = []
  for (let at = find(begin, 0); at >= 0; at = find(begin, at)) {
    if (out.length >= most) fail('base64_malformed', 'more than ' + most + ' PEM blocks')
    const body = at + begin.length
    at = find(end, body)
    if (at < 0) fail('base64_malformed', 'PEM end')
    out.push(decodeBase64(octets.subarray(body, at), pemBytesMax))
  }
  return out
}

/** One PEM block, 64 characters a line. */
export function encodePem(label: string, der: Bytes): string {
  return '-----BEGIN ' + label + '-----\n' + encodeBase64(der, 64) + '-----END ' + label + '-----\n'
}
