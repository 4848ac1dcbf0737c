import { describe, expect, it } from 'vitest'
import { hexOf } from './bytes.ts'
import { type CborValue, encodeCbor } from './cbor.ts'
import { ecdsaDerOfRaw, ecdsaRawOfDer, encodeSign1, parseSign1, sign1Header, sign1ToBeSigned } from './cose.ts'

const payload = new Uint8Array([1, 2, 3])
const signature = new Uint8Array(64).fill(9)
const header = sign1Header(-7)
const message = (parts: CborValue[]): Uint8Array => encodeCbor({ tag: 18, value: parts })
const noOpen = { map: [] }

describe('parseSign1', () => {
  it('reads back what encodeSign1 wrote, tagged or not', () => {
    const bytes = encodeSign1(header, new Uint8Array(8), payload, signature)
    expect(parseSign1(bytes)).toMatchObject({ algorithm: -7, keyId: new Uint8Array(8), payload, signature })
    expect(parseSign1(bytes.subarray(1)).algorithm).toBe(-7)
  })

  it('[RFC 9052 3] takes an empty protected header in either form, and no algorithm from it', () => {
    for (const empty of [new Uint8Array(0), new Uint8Array([0xa0])]) {
      const read = parseSign1(message([empty, noOpen, payload, signature]))
      expect(read.algorithm).toBe(0)
      // In the Sig_structure both are the empty string.
      expect(hexOf(sign1ToBeSigned(empty, payload))).toBe('846a5369676e6174757265314040' + '43010203')
    }
  })

  const refused: [string, Uint8Array][] = [
    ['another tag', encodeCbor({ tag: 98, value: [header, noOpen, payload, signature] })],
    ['a tag around the tag', encodeCbor({ tag: 18, value: { tag: 18, value: [header, noOpen, payload, signature] } })],
    ['a detached payload', message([header, noOpen, null, signature])],
    ['three fields', message([header, noOpen, payload])],
    ['a protected header that is no map', message([encodeCbor(1), noOpen, payload, signature])],
    [
      'a critical header',
      message([
        encodeCbor({
          map: [
            [1, -7],
            [2, [99]],
          ],
        }),
        noOpen,
        payload,
        signature,
      ]),
    ],
    [
      'an unknown protected header',
      message([
        encodeCbor({
          map: [
            [1, -7],
            [99, 0],
          ],
        }),
        noOpen,
        payload,
        signature,
      ]),
    ],
    ['an algorithm by name', message([encodeCbor({ map: [[1, 'ES256']] }), noOpen, payload, signature])],
    ['an unknown unprotected header', message([header, { map: [[99, 0]] }, payload, signature])],
    ['an algorithm in the open', message([new Uint8Array(0), { map: [[1, -7]] }, payload, signature])],
    ['a key id that is no byte string', message([header, { map: [[4, 'key']] }, payload, signature])],
  ]
  for (const [what, bytes] of refused) {
    it(`[F7] refuses ${what}`, () => {
      expect(() => parseSign1(bytes)).toThrow(/^(cose|cbor)_malformed/)
    })
  }
})

describe('ECDSA signatures', () => {
  it('turn from r ‖ s to DER and back, with leading zeros and high bits', () => {
    for (const fill of [0x00, 0x01, 0x7f, 0x80, 0xff]) {
      const raw = new Uint8Array(64).fill(fill)
      raw[31] = 1
      raw[63] = 2
      expect(hexOf(ecdsaRawOfDer(ecdsaDerOfRaw(raw), 32))).toBe(hexOf(raw))
    }
  })

  it('are refused when odd, empty, negative or too long', () => {
    expect(() => ecdsaDerOfRaw(new Uint8Array(63))).toThrow('cose_malformed')
    expect(() => ecdsaDerOfRaw(new Uint8Array(0))).toThrow('cose_malformed')
    expect(() => ecdsaRawOfDer(new Uint8Array(Buffer.from('3006020180020101', 'hex')), 32)).toThrow('cose_malformed')
    expect(() => ecdsaRawOfDer(ecdsaDerOfRaw(new Uint8Array(96).fill(1)), 32)).toThrow('cose_malformed')
  })
})
