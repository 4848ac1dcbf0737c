import { describe, expect, it } from 'vitest'
import { hexOf } from './bytes.ts'
import { decodeCbor, encodeCbor, mapEntries } from './cbor.ts'
import { codeOf } from './errors.ts'

const limits = { depthMax: 4, itemsMax: 20 }

function codeFor(hex: string): string | null {
  try {
    decodeCbor(new Uint8Array(Buffer.from(hex, 'hex')), limits)
    return null
  } catch (error) {
    return codeOf(error)
  }
}

describe('decodeCbor', () => {
  const refused: [string, string][] = [
    ['nothing at all', ''],
    ['trailing bytes', '0000'],
    ['a duplicate key', 'a201000100'],
    ['unsorted keys', 'a202000100'],
    ['keys sorted by length, as RFC 7049 had it', 'a3810000f50061610a'],
    ['an integer that would fit in fewer bytes', '1817'],
    ['a length that would fit in fewer bytes', '580100'],
    ['a 64-bit length that would fit in 32', '5b0000000000000001aa'],
    ['an integer beyond 2^53', '1b0020000000000000'],
    ['an indefinite array', '9f00ff'],
    ['an indefinite string', '5f4100ff'],
    ['a break by itself', 'ff'],
    ['a float', 'f93c00'],
    ['a float in a map', 'a100fb3ff199999999999a'],
    ['undefined', 'f7'],
    ['a two-byte simple value', 'f8ff'],
    ['a reserved length', '1c'],
    ['text that is not UTF-8', '61ff'],
    ['an overlong UTF-8 form', '62c080'],
    ['a truncated string', '42aa'],
    ['a truncated length', '19aa'],
    ['a tag without content', 'd2'],
    ['a depth of six', '818181818100'],
    ['more items than allowed', `94${'00'.repeat(20)}`],
    ['an array of 2^32 − 1 that is not there', '9affffffff'],
    ['a map of 2^53 − 1 that is not there', 'bb001fffffffffffff'],
    ['a bignum of 64 KB', `c25a00010000${'ff'.repeat(16)}`],
  ]
  for (const [what, hex] of refused) {
    it(`[F7] refuses ${what}`, () => {
      expect(codeFor(hex)).toBe('cbor_malformed')
    })
  }

  it('takes both ends of the integers', () => {
    for (const number of [0, 23, 24, 255, 256, 65535, 65536, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1, -1, -24, -25, -(2 ** 53)])
      expect(decodeCbor(encodeCbor(number), limits)).toBe(number)
  })

  it('gives byte strings as views on what was received', () => {
    const bytes = encodeCbor(new Uint8Array([1, 2]))
    expect((decodeCbor(bytes, limits) as Uint8Array).buffer).toBe(bytes.buffer)
  })
})

describe('encodeCbor', () => {
  it('[RFC 8949 4.2.1] sorts map keys by their encoded bytes', () => {
    const map: [number | string, number][] = [
      ['aa', 1],
      [100, 2],
      ['z', 3],
      [-1, 4],
      [10, 5],
    ]
    expect(hexOf(encodeCbor({ map }))).toBe('a50a05186402200461' + '7a03' + '62616101')
  })

  it('writes -0 as 0', () => {
    expect(hexOf(encodeCbor(-0))).toBe('00')
  })

  it('[F7] refuses fractions, what is no number, what is too large, and a repeated key', () => {
    const repeated = () =>
      encodeCbor({
        map: [
          [1, 0],
          [1, 1],
        ],
      })
    for (const bad of [0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, -(2 ** 53) - 2])
      expect(() => encodeCbor(bad)).toThrow('cbor_malformed')
    expect(repeated).toThrow('cbor_malformed')
  })
})

describe('mapEntries', () => {
  it('refuses everything but a map', () => {
    for (const value of [null, 0, 'map', true, new Uint8Array(1), [], { tag: 1, value: { map: [] } }])
      expect(() => mapEntries(value)).toThrow('cbor_malformed')
    expect(mapEntries({ map: [[1, 2]] })).toEqual([[1, 2]])
  })
})
