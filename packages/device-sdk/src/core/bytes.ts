// Byte strings: the comparisons and conversions that an engine without TextEncoder or Buffer lacks.

export type Bytes = Uint8Array

export function equalBytes(a: Bytes, b: Bytes): boolean {
  let difference = a.length ^ b.length
  // Every byte is looked at, so that the time says nothing about where two values differ.
  for (let i = difference ? 0 : a.length; i--; ) difference |= a[i] ^ b[i]
  return !difference
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

/** Lower-case hexadecimal, two digits a byte. */
export function hexOf(bytes: Bytes): string {
  let out = ''
  for (let i = 0; i < bytes.length; i++) out += (bytes[i] + 256).toString(16).slice(1)
  return out
}

/** Bytes of an even-length hexadecimal literal. For constants in source; not a parser for input from outside. */
export function bytesOfHex(hex: string): Bytes {
  const out = new Uint8Array(hex.length >> 1)
  for (let i = 0; i < out.length; i++) out[i] = parseInt(hex.slice(2 * i, 2 * i + 2), 16)
  return out
}

/** UTF-8 bytes of a string. A lone surrogate, which has none, throws URIError. */
export function utf8Bytes(text: string): Bytes {
  const coded = encodeURIComponent(text)
  let hex = ''
  for (let i = 0; i < coded.length; i++) hex += coded[i] === '%' ? coded[++i] + coded[++i] : coded.charCodeAt(i).toString(16)
  return bytesOfHex(hex)
}

/**
 * The string of strictly valid UTF-8 (RFC 3629: no overlong form, no surrogate, nothing above U+10FFFF), or null. ECMA-262 19.2.6.5 asks
 * the same of decodeURIComponent, which spares a decoder of our own.
 */
export function utf8Text(bytes: Bytes): string | null {
  let out = ''
  for (let i = 0; i < bytes.length; i++) {
    if (bytes[i] > 0x7f)
      try {
        return decodeURIComponent(hexOf(bytes).replace(/../g, octet => '%' + octet))
      } catch (_error) {
        return null
      }
    out += String.fromCharCode(bytes[i])
  }
  return out
}
