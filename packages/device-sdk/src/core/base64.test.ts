import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeBase64, decodePem, encodeBase64, encodePem } from './base64.ts'
import { utf8Bytes } from './bytes.ts'
import { codeOf } from './errors.ts'

function decode(text: string, most = 1000): string | null {
  try {
    return Buffer.from(decodeBase64(utf8Bytes(text), most)).toString('latin1')
  } catch (error) {
    return codeOf(error)
  }
}

describe('base64', () => {
  it('[RFC 4648 10] gives the test vectors', () => {
    for (const [plain, text] of [
      ['', ''],
      ['f', 'Zg=='],
      ['fo', 'Zm8='],
      ['foo', 'Zm9v'],
      ['foob', 'Zm9vYg=='],
      ['fooba', 'Zm9vYmE='],
      ['foobar', 'Zm9vYmFy'],
    ]) {
      expect(encodeBase64(utf8Bytes(plain), 0)).toBe(text)
      expect(decode(text)).toBe(plain)
    }
  })

  it('agrees with the platform on any bytes, wrapped or not', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.constantFrom(0, 4, 64, 76), (bytes, line) => {
        const text = encodeBase64(bytes, line)
        expect(text.replace(/\n/g, '')).toBe(Buffer.from(bytes).toString('base64'))
        if (line) for (const row of text.split('\n')) expect(row.length).toBeLessThanOrEqual(line)
        expect(Buffer.from(decodeBase64(utf8Bytes(text), 300)).equals(Buffer.from(bytes))).toBe(true)
      }),
    )
  })

  it('[F4][RFC 8951 3.1] takes white space anywhere', () => {
    expect(decode(' Zm\r\n9v\tYg\n= =\r\n')).toBe('foob')
  })

  it('[F4] takes nothing else', () => {
    for (const text of [
      'Zg',
      'Zg=',
      'Z',
      'Zg===',
      'Zg==Zg==',
      '=Zg=',
      '====',
      'Zm9v=',
      'Zm9v====',
      'Zh==',
      'Zm9=',
      'Zm-v',
      'Zm_v',
      'Zm9v\0',
      'Zm9é',
      '-----BEGIN X-----',
      'Zm9v!',
    ])
      expect([text, decode(text)]).toEqual([text, 'base64_malformed'])
  })

  it('stops at the octets allowed', () => {
    expect(decode('Zm9vYmFy', 6)).toBe('foobar')
    expect(decode('Zm9vYmFy', 5)).toBe('base64_malformed')
    expect(decode('Zm9vYg==', 4)).toBe('foob')
    expect(decode('A'.repeat(100_000), 4)).toBe('base64_malformed')
  })
})

describe('PEM', () => {
  const block = (label: string, text: string) => encodePem(label, utf8Bytes(text))

  it('[RFC 7468] reads the blocks of one label, with whatever is written around them', () => {
    const text = `subject=x\n${block('CERTIFICATE', 'one')}\nkey:\n${block('EC PARAMETERS', 'no')}${block('CERTIFICATE', 'two')}the end`
    expect(decodePem(text, 'CERTIFICATE', 2).map(b => Buffer.from(b).toString())).toEqual(['one', 'two'])
    expect(decodePem(utf8Bytes(text.replace(/\n/g, '\r\n')), 'CERTIFICATE', 2)).toHaveLength(2)
    expect(decodePem(text, 'PUBLIC KEY', 2)).toEqual([])
    expect(
      block('X', 'a'.repeat(100))
        .split('\n')
        .map(line => line.length),
    ).toEqual([17, 64, 64, 8, 15, 0])
  })

  it('refuses too many, too large, and blocks without end', () => {
    expect(() => decodePem(block('A', '1') + block('A', '2'), 'A', 1)).toThrow('base64_malformed')
    expect(() => decodePem('-----BEGIN A-----\nZg==', 'A', 1)).toThrow('base64_malformed')
    expect(() => decodePem('-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\n\nZg==\n-----END A-----', 'A', 1)).toThrow(
      'base64_malformed',
    )
    expect(() => decodePem(' '.repeat(600_000), 'A', 1)).toThrow('base64_malformed')
  })
})
