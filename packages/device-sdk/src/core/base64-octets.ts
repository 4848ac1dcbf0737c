// Base64 as octets, straight to where they will stand: for who writes it thousands of times a second, and to whom a string on the way would be
// garbage a moment later.

import { type Bytes, utf8Bytes } from './bytes.ts'

const ALPHABET = /* @__PURE__ */ utf8Bytes('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/')
const PADDING = 0x3d

/** How many octets `length` octets take in base64. */
export function base64Length(length: number): number {
  return 4 * Math.ceil(length / 3)
}

/** Writes `bytes[begin..end)` in base64 (RFC 4648 4, padded) from `at` on, where there must be room; returns where it ends. */
export function writeBase64(room: Bytes, at: number, bytes: Bytes, begin: number, end: number): number {
  const whole = end - ((end - begin) % 3)
  let to = at
  for (let i = begin; i < whole; i += 3) {
    const three = (bytes[i] << 16) | (bytes[i + 1] << 8) | bytes[i + 2]
    room[to++] = ALPHABET[three >> 18]
    room[to++] = ALPHABET[(three >> 12) & 63]
    room[to++] = ALPHABET[(three >> 6) & 63]
    room[to++] = ALPHABET[three & 63]
  }
  const rest = end - whole
  if (rest === 0) return to
  const last = (bytes[whole] << 16) | (rest === 2 ? bytes[whole + 1] << 8 : 0)
  room[to++] = ALPHABET[last >> 18]
  room[to++] = ALPHABET[(last >> 12) & 63]
  room[to++] = rest === 2 ? ALPHABET[(last >> 6) & 63] : PADDING
  room[to++] = PADDING
  return to
}
