import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { bytesOfHex, compareBytes, concatBytes, equalBytes, hexOf, utf8Bytes, utf8Text } from './bytes.ts'

describe('bytes', () => {
  it('compare by value and length', () => {
    const of = (...octets: number[]) => new Uint8Array(octets)
    expect([equalBytes(of(1, 2), of(1, 2)), equalBytes(of(1, 2), of(1, 3)), equalBytes(of(1), of(1, 0))]).toEqual([
      true,
      false,
      false,
    ])
    expect(hexOf(concatBytes([of(1), of(), of(2, 255)]))).toBe('0102ff')
    expect([of(2), of(1, 1), of(1)].sort(compareBytes).map(hexOf)).toEqual(['01', '0101', '02'])
    fc.assert(fc.property(fc.uint8Array(), bytes => equalBytes(bytesOfHex(hexOf(bytes)), bytes)))
  })

  it('[RFC 3629] agree with the platform on UTF-8, both ways', () => {
    const encoder = new TextEncoder()
    const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
    fc.assert(
      fc.property(
        fc.string({ unit: 'binary' }),
        text => equalBytes(utf8Bytes(text), encoder.encode(text)) && utf8Text(encoder.encode(text)) === text,
      ),
    )
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 6 }), bytes => {
        let theirs: string | null = null
        try {
          theirs = decoder.decode(bytes)
        } catch {}
        return utf8Text(bytes) === theirs
      }),
      { numRuns: 2000 },
    )
    // Overlong forms, surrogates, beyond U+10FFFF, cut short, stray continuation.
    for (const hex of ['c080', 'c1bf', 'e09fbf', 'f08fbfbf', 'eda080', 'edbfbf', 'f4908080', 'f5808080', 'c3', 'e282', '80', 'ff'])
      expect([hex, utf8Text(bytesOfHex(hex))]).toEqual([hex, null])
    expect(() => utf8Bytes('\ud800')).toThrow(URIError)
  })
})
