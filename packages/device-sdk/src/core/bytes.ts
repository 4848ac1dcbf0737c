// Byte strings: the comparisons and conversions that an engine without TextEncoder or Buffer lacks.

export type Bytes = Uint8Array

export function equalBytes(a: Bytes, b: Bytes): boolean {
  if (a.length !== b.length) return false
  // Every byte is looked at, so that the time says nothing about where two values differ.
  let difference = 0
  for (let i = 0; i < a.length; i++) difference |= a[i] ^ b[i]
  return difference === 0
}

/** Bytewise lexicographic order, a prefix first: that of DER sets and of deterministic CBOR keys. Negative, zero or positive. */
export function compareBytes(a: Bytes, b: Bytes): number {
  const shorter = Math.min(a.length, b.length)
  for (let i = 0; i < shorter; i++) if (a[i] !== b[i]) return a[i] - b[i]
  return a.length - b.length
}

export function concatBytes(parts: Bytes[]): Bytes {
  let length = 0
  for (let i = 0; i < parts.length; i++) length += parts[i].length
  const out = new Uint8Array(length)
  let at = 0
  for (let i = 0; i < parts.length; i++) {
    out.set(parts[i], at)
    at += parts[i].length
  }
  return out
}

const HEX = '0123456789abcdef'

/** Lower-case hexadecimal, two digits a byte. */
export function hexOf(bytes: Bytes): string {
  let out = ''
  for (let i = 0; i < bytes.length; i++) out += HEX[bytes[i] >> 4] + HEX[bytes[i] & 15]
  return out
}

/** Bytes of an even-length hexadecimal literal. For constants in source; not a parser for input from outside. */
export function bytesOfHex(hex: string): Bytes {
  const out = new Uint8Array(hex.length >> 1)
  for (let i = 0; i < out.length; i++) out[i] = parseInt(hex.slice(2 * i, 2 * i + 2), 16)
  return out
}

/** UTF-8 bytes of a string. A lone surrogate becomes U+FFFD, as the platform's encoders do. */
export function utf8Bytes(text: string): Bytes {
  const out: number[] = []
  for (let i = 0; i < text.length; i++) {
    let c = text.charCodeAt(i)
    if (c >> 11 === 27) {
      const low = text.charCodeAt(i + 1)
      const paired = c < 0xdc00 && low >> 10 === 55
      // 0x10000 + ((c - 0xd800) << 10) + low - 0xdc00
      c = paired ? (c << 10) + low - 0x35fdc00 : 0xfffd
      if (paired) i++
    }
    let more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3
    out.push(more ? ((0xff << (7 - more)) & 0xff) | (c >> (6 * more)) : c)
    while (more--) out.push(0x80 | ((c >> (6 * more)) & 63))
  }
  return new Uint8Array(out)
}

/** The string of strictly valid UTF-8 (RFC 3629: no overlong form, no surrogate, nothing above U+10FFFF), or null. */
export function utf8Text(bytes: Bytes): string | null {
  let out = ''
  let i = 0
  while (i < bytes.length) {
    let c = bytes[i++]
    if (c >= 0x80) {
      if (c < 0xc2 || c > 0xf4) return null
      const more = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3
      c &= 63 >> more
      for (let n = 0; n < more; n++) {
        const next = bytes[i++]
        if ((next & 0xc0) !== 0x80) return null
        c = (c << 6) | (next & 63)
      }
      // Two octets cannot be overlong from 0xc2 on; 27 << 11 are the surrogates.
      if ((more > 1 && c < (more > 2 ? 0x10000 : 0x800)) || c > 0x10ffff || c >> 11 === 27) return null
      if (c >= 0x10000) {
        out += String.fromCharCode(0xd7c0 + (c >> 10))
        c = 0xdc00 | (c & 1023)
      }
    }
    out += String.fromCharCode(c)
  }
  return out
}
