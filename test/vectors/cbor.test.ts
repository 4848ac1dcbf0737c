import { readFileSync } from 'node:fs'
import { type CborValue, codeOf, decodeCbor, encodeCbor, hexOf } from '@birthmark/device-sdk/core'
import { Decoder, Encoder } from 'cbor-x'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { vectorFile } from './folder.ts'

const limits = { depthMax: 8, itemsMax: 1000 }
const bytesOf = (hex: string) => new Uint8Array(Buffer.from(hex, 'hex'))

function decodeOrCode(bytes: Uint8Array): { value: CborValue } | string {
  try {
    return { value: decodeCbor(bytes, limits) }
  } catch (error) {
    const code = codeOf(error)
    if (code === null) throw error
    return code
  }
}

/** As the vectors spell it in JSON; null where JSON can't. */
function plain(value: CborValue): unknown {
  if (value === null || typeof value !== 'object') return value
  if (value instanceof Uint8Array) return Buffer.from(value)
  if (Array.isArray(value)) return value.map(plain)
  if ('tag' in value) return { tag: value.tag, value: plain(value.value) }
  return Object.fromEntries(value.map.map(([key, item]) => [String(key), plain(item)]))
}

describe('CBOR appendix A', () => {
  const file = vectorFile('cbor', 'appendix_a.json')
  if (!file) {
    // A suite without a test would fail, where it is only left out.
    it.skip('vectors at hand', () => {})
    return
  }
  const vectors: { hex: string; roundtrip: boolean; decoded?: unknown; diagnostic?: string }[] = JSON.parse(
    readFileSync(file, 'utf8'),
  )
  // What signed bytes never hold: numbers beyond 2^53, floats (f9 fa fb, also inside a tag), undefined and unassigned simple values.
  const beyond = /^(1bf{16}|3bf{16}|f[789ab].*|f0|c1fb.*)$/

  for (const vector of vectors) {
    if (!vector.roundtrip || beyond.test(vector.hex)) {
      it(`[RFC 8949 4.2.1] refuses ${vector.hex.slice(0, 24)} (${vector.diagnostic ?? JSON.stringify(vector.decoded)})`, () => {
        expect(decodeOrCode(bytesOf(vector.hex))).toBe('cbor_malformed')
      })
    } else {
      it(`[RFC 8949 A] reads and writes ${vector.hex.slice(0, 24)}`, () => {
        const value = decodeCbor(bytesOf(vector.hex), limits)
        if ('decoded' in vector && !vector.hex.startsWith('c')) expect(plain(value)).toEqual(vector.decoded)
        expect(hexOf(encodeCbor(value))).toBe(vector.hex)
      })
    }
  }

  it('accepts exactly the part that signed bytes use', () => {
    expect(vectors.filter(({ hex }) => typeof decodeOrCode(bytesOf(hex)) !== 'string')).toHaveLength(42)
    expect(vectors).toHaveLength(82)
  })
})

const scalar = fc.oneof(
  fc.integer({ min: -1000, max: 1000 }),
  fc.maxSafeInteger(),
  fc.string({ unit: 'grapheme', maxLength: 30 }),
  fc.uint8Array({ maxLength: 40 }),
  fc.boolean(),
  fc.constant(null),
)
const value: fc.Memo<CborValue> = fc.memo(depth =>
  depth <= 1
    ? scalar
    : fc.oneof(
        scalar,
        fc.array(value(depth - 1), { maxLength: 5 }),
        fc.record({ tag: fc.nat(100_000).map(n => n + 70_000), value: value(depth - 1) }),
        fc
          .uniqueArray(fc.tuple(fc.oneof(fc.integer(), fc.string({ maxLength: 5 })), value(depth - 1)), {
            maxLength: 5,
            selector: ([key]) => `${typeof key}${key}`,
          })
          .map(map => ({ map })),
      ),
)

describe('CBOR against another decoder', () => {
  it('[F7] cbor-x reads what we write as we read it', () => {
    const decoder = new Decoder({ mapsAsObjects: false, useRecords: false })
    const untagged = fc.letrec(tie => ({
      node: fc.oneof(
        { maxDepth: 3 },
        scalar,
        fc.array(tie('node'), { maxLength: 5 }),
        fc
          .uniqueArray(fc.tuple(fc.integer(), tie('node')), { maxLength: 5, selector: ([key]) => key })
          .map(map => ({ map: map as [CborValue, CborValue][] })),
      ),
    })).node as fc.Arbitrary<CborValue>
    const same = (ours: CborValue, theirs: unknown): boolean => {
      if (typeof theirs === 'bigint') return BigInt(ours as number) === theirs
      if (ours instanceof Uint8Array) return Buffer.compare(Buffer.from(ours), Buffer.from(theirs as Uint8Array)) === 0
      if (Array.isArray(ours))
        return Array.isArray(theirs) && ours.length === theirs.length && ours.every((item, i) => same(item, theirs[i]))
      if (ours !== null && typeof ours === 'object' && 'map' in ours)
        return (
          theirs instanceof Map && theirs.size === ours.map.length && ours.map.every(([key, item]) => same(item, theirs.get(key)))
        )
      return ours === theirs
    }
    fc.assert(fc.property(untagged, input => same(input, decoder.decode(encodeCbor(input)))))
  })

  it('reads what cbor-x writes where that happens to be deterministic, and nothing else', () => {
    const encoder = new Encoder({ useRecords: false, variableMapSize: true })
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.integer(), fc.string(), fc.boolean(), fc.constant(null))), input => {
        const bytes = new Uint8Array(encoder.encode(input))
        const read = decodeOrCode(bytes)
        if (typeof read !== 'string') expect(hexOf(encodeCbor(read.value))).toBe(hexOf(bytes))
        expect(hexOf(encodeCbor(input))).toBe(hexOf(encodeCbor(decodeCbor(encodeCbor(input), limits))))
      }),
    )
  })

  it('[F7] whatever is accepted has that one encoding', () => {
    fc.assert(
      fc.property(value(4), fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }), (input, edits) => {
        const bytes = encodeCbor(input)
        expect(hexOf(encodeCbor(decodeCbor(bytes, limits)))).toBe(hexOf(bytes))
        for (const [at, byte] of edits) bytes[at % bytes.length] = byte
        const read = decodeOrCode(bytes)
        if (typeof read !== 'string') expect(hexOf(encodeCbor(read.value))).toBe(hexOf(bytes))
        else expect(read).toBe('cbor_malformed')
      }),
    )
  })
})
