// Base64 (RFC 4648 section 4) and PEM (RFC 7468). EST bodies come wrapped, unwrapped, with or without line ends (RFC 8951), so white space
// is nobody's business here; everything else is strict, so that one value has one spelling.

import { type Bytes, utf8Bytes } from './bytes.ts'
import { fail } from './errors.ts'

let ALPHABET = ''
for (let i = 0; i < 64; i++) ALPHABET += String.fromCharCode(i < 26 ? i + 65 : i < 52 ? i + 71 : i < 62 ? i - 4 : 4 * i - 205)

/** Base64 on one line without an end. */
export function base64Of(bytes: Bytes): string {
  let out = ''
  let bits = 0
  let spare = 0
  for (let i = 0; i < bytes.length; i++) {
    bits = (bits << 8) | bytes[i]
    for (spare += 8; spare > 5; ) {
      spare -= 6
      out += ALPHABET[(bits >> spare) & 63]
    }
  }
  if (spare) out += ALPHABET[(bits << (6 - spare)) & 63]
  while (out.length & 3) out += '='
  return out
}

/** Each line ended by a line feed. */
export function inLines(text: string, lineLength: number): string {
  let out = ''
  for (let i = 0; i < text.length; i += lineLength) out += text.slice(i, i + lineLength) + '\n'
  return out
}

/** `lineLength`: characters a line, each line ended by a line feed; 0 for one line without an end. */
export function encodeBase64(bytes: Bytes, lineLength: number): string {
  return lineLength ? inLines(base64Of(bytes), lineLength) : base64Of(bytes)
}

/** By character: its six bits, −2 for white space, −1 for anything else. */
const SEXTETS = new Int8Array(256)
for (let i = 0; i < 256; i++) SEXTETS[i] = ALPHABET.indexOf(String.fromCharCode(i))
SEXTETS[9] = SEXTETS[10] = SEXTETS[13] = SEXTETS[32] = -2

/**
 * Decodes base64 text. White space is skipped anywhere; padding must be present and its spare bits zero. More than `bytesMax` octets,
 * or any other character, throws `base64_malformed`. Takes no more memory than three quarters of the text's length.
 */
export function decodeBase64(text: Bytes, bytesMax: number): Bytes {
  const end = text.length
  const out = new Uint8Array((end * 3) >> 2)
  let length = 0
  let bits = 0
  let spare = 0
  let pads = 0
  for (let i = 0; i < end; i++) {
    const value = SEXTETS[text[i]]
    if (value >= 0 && !pads) {
      // Four at once where they are four: less than half of a small engine's steps.
      const four =
        spare || i + 3 >= end
          ? -1
          : (value << 18) | (SEXTETS[text[i + 1]] << 12) | (SEXTETS[text[i + 2]] << 6) | SEXTETS[text[i + 3]]
      if (four < 0) {
        bits = (bits << 6) | value
        spare += 6
      } else {
        bits = four
        spare = 24
        i += 3
      }
      for (; spare > 7; ) {
        spare -= 8
        out[length++] = bits >> spare
      }
    } else if (value >= -1) {
      if (text[i] !== 0x3d) fail('base64_malformed', 'at ' + i)
      pads++
    }
  }
  // Each pad stands for two spare bits. Six would be a lone character.
  if (length > bytesMax || spare !== 2 * pads || pads > 2 || bits & ((1 << spare) - 1)) fail('base64_malformed', 'padding')
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
