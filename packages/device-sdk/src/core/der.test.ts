import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { bytesOfHex, hexOf, utf8Bytes } from './bytes.ts'
import {
  booleanValue,
  childrenOf,
  encodeElement,
  encodeInteger,
  encodeSetOf,
  encodeUnsigned,
  GENERALIZED_TIME,
  INTEGER,
  integerBytes,
  namedBits,
  octetBits,
  oidValue,
  readElement,
  readWhole,
  SEQUENCE,
  smallInteger,
  timeValue,
  UTC_TIME,
} from './der.ts'
import { codeOf } from './errors.ts'

const element = (hex: string) => readElement(bytesOfHex(hex), 0, hex.length / 2)

function outcome(read: () => unknown): unknown {
  try {
    return read()
  } catch (error) {
    return codeOf(error)
  }
}

const time = (tag: number, text: string) => outcome(() => timeValue(readWhole(encodeElement(tag, [utf8Bytes(text)]), tag)))

/** What a time says, by the letter of RFC 5280 4.1.2.5.1 and .2 and the Gregorian calendar; asks no engine what a date is. */
function grammarTime(tag: number, text: string): number | 'der_malformed' {
  const fields = (tag === UTC_TIME ? /^(..)(..)(..)(..)(..)(..)Z$/ : /^(....)(..)(..)(..)(..)(..)Z$/).exec(text)?.slice(1)
  if (!fields?.every(field => /^[0-9]+$/.test(field))) return 'der_malformed'
  const [written, month, day, hour, minute, second] = fields.map(Number)
  const year = tag === UTC_TIME ? written + (written < 50 ? 2000 : 1900) : written
  const leap = (of: number) => of % 4 === 0 && (of % 100 !== 0 || of % 400 === 0)
  const months = [31, leap(year) ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
  if (!(day >= 1 && day <= months[month - 1] && hour < 24 && minute < 60 && second < 60)) return 'der_malformed'
  // Leap days before the first of January, counted as if they began with year 0; 719,528 days lie between that and 1970.
  const leapDays = year === 0 ? 0 : 1 + Math.floor((year - 1) / 4) - Math.floor((year - 1) / 100) + Math.floor((year - 1) / 400)
  const days = 365 * year + leapDays - 719_528 + months.slice(0, month - 1).reduce((sum, length) => sum + length, 0) + day - 1
  return ((days * 24 + hour) * 60 + minute) * 60 + second
}

describe('reading DER', () => {
  it('[X.690 10.1] takes definite, minimal lengths alone', () => {
    expect(outcome(() => readWhole(bytesOfHex('3000'), SEQUENCE).end)).toBe(2)
    // Indefinite; long form below 128; leading zero octet; four octets; reserved 0xff; content cut short; header cut short; high tag.
    for (const hex of ['30800000', '30810100', '3082007f', '308400000001', '30ff00', '300500', '3081', '30', '', '1f8100'])
      expect([hex, outcome(() => readWhole(bytesOfHex(hex), SEQUENCE))]).toEqual([hex, 'der_malformed'])
  })

  it('[F1] counts elements before it makes them', () => {
    expect(outcome(() => childrenOf(element('3006050005000500'), 2))).toBe('der_limit')
    expect(childrenOf(element('3006050005000500'), 3).length).toBe(3)
  })

  it('[X.690 8.3.2] integers are minimal', () => {
    for (const hex of ['0200', '02020001', '0202ff80']) expect(outcome(() => integerBytes(element(hex)))).toBe('der_malformed')
    for (const hex of ['020100', '0201ff', '02020080', '0202ff7f']) expect(hexOf(integerBytes(element(hex)))).toBe(hex.slice(4))
    expect(smallInteger(element('02047fffffff'))).toBe(0x7fffffff)
    for (const hex of ['0201ff', '02050080000000']) expect(outcome(() => smallInteger(element(hex)))).toBe('der_malformed')
  })

  it('[X.690 11.1] booleans are 00 or ff', () => {
    expect([booleanValue(element('0101ff')), booleanValue(element('010100'))]).toEqual([true, false])
    for (const hex of ['010101', '0100', '0102ffff']) expect(outcome(() => booleanValue(element(hex)))).toBe('der_malformed')
  })

  it('[F3] OIDs of any arc are compared and never counted; 64 octets at most', () => {
    expect(oidValue(element('06032a8648'.padEnd(10, '0').replace(/48$/, '01')))).toBe('2a8601')
    const arc = 'ff'.repeat(62) + '7f'
    expect(oidValue(element(`0640${'2a'}${arc}`))).toBe(`2a${arc}`)
    expect(outcome(() => oidValue(element(`0641${'2a'}${'ff'.repeat(63)}7f`)))).toBe('der_malformed')
    // Empty; a padding octet; an arc that does not end.
    for (const hex of ['0600', '06032a8001', '06022a81', '060180'])
      expect(outcome(() => oidValue(element(hex)))).toBe('der_malformed')
  })

  it('bit strings of keys and signatures are whole octets', () => {
    expect(hexOf(octetBits(element('030300abcd')))).toBe('abcd')
    for (const hex of ['0300', '030201fe']) expect(outcome(() => octetBits(element(hex)))).toBe('der_malformed')
    expect(namedBits(element('03020780'))).toBe(1)
    expect(namedBits(element('030100'))).toBe(0)
    for (const hex of ['0300', '030101', '03020781', '0306000000000000'])
      expect(outcome(() => namedBits(element(hex)))).toBe('der_malformed')
  })

  it('[RFC 5280 4.1.2.5] times have one form, and name a moment that was', () => {
    for (const [text, at] of [
      ['19700101000000Z', 0],
      ['20000229120000Z', Date.UTC(2000, 1, 29, 12)],
      ['20241231235959Z', Date.UTC(2024, 11, 31, 23, 59, 59)],
      ['00010101000000Z', Date.parse('0001-01-01T00:00:00Z')],
      ['99991231235959Z', Date.UTC(9999, 11, 31, 23, 59, 59)],
    ] as [string, number][])
      expect([text, time(GENERALIZED_TIME, text)]).toEqual([text, at / 1000])
    expect(time(UTC_TIME, '491231235959Z')).toBe(Date.UTC(2049, 11, 31, 23, 59, 59) / 1000)
    expect(time(UTC_TIME, '500101000000Z')).toBe(Date.UTC(1950, 0) / 1000)
    for (const text of [
      '20230229000000Z',
      '20230230000000Z',
      '20230431000000Z',
      '20231301000000Z',
      '20230001000000Z',
      '20230100000000Z',
      '20230132000000Z',
      '20231232000000Z',
      '20230101240000Z',
      '20230101006000Z',
      '20230101000060Z',
      '2023010100000Z',
      '202301010000Z',
      '20230101000000',
      '20230101000000.5Z',
      '20230101000000+0000',
      ' 0230101000000Z',
      '2023010100000٠Z',
      '230101000000Z',
      '020230101000000Z',
      '20230101000000Z\n',
      '',
    ])
      expect([text, time(GENERALIZED_TIME, text)]).toEqual([text, 'der_malformed'])
    for (const text of ['2301010000Z', '230101000000', '20230101000000Z', '230230000000Z'])
      expect([text, time(UTC_TIME, text)]).toEqual([text, 'der_malformed'])
  })

  it('[F1] [RFC 5280 4.1.2.5] what an engine reads as a date is no time of DER', () => {
    const spellings = ['2024-01-01T00:00:00.000Z', '+020240-01-01T00:00:00.000Z', '-000001-01-01T00:00:00.000Z', 'Mon, 01 Jan 2024']
    // Also without what a UTCTime's century would stand in for.
    for (const text of spellings.concat(spellings.map(text => text.slice(2))))
      for (const tag of [UTC_TIME, GENERALIZED_TIME]) expect([tag, text, time(tag, text)]).toEqual([tag, text, 'der_malformed'])
  })

  it('[F1] [RFC 5280 4.1.2.5] takes a time in that grammar alone, whatever else its octets are', () => {
    const digits = (length: number, least: number, most: number) =>
      fc.integer({ min: least, max: most }).map(value => String(value).padStart(length, '0'))
    // At and beyond the borders of each field.
    const fields = [digits(2, 0, 99), digits(2, 0, 13), digits(2, 0, 32), digits(2, 0, 25), digits(2, 0, 61), digits(2, 0, 61)]
    const der = fc.tuple(fc.constantFrom('', '00', '19', '20', '99'), ...fields).map(parts => `${parts.join('')}Z`)
    const moment = fc.date({ min: new Date(-8.64e15), max: new Date(8.64e15), noInvalidDate: true })
    const spoken = moment.chain(date =>
      fc.constantFrom(
        date.toISOString(),
        date.toISOString().slice(2),
        date.toISOString().replace('.000', ''),
        date.toUTCString(),
        String(date),
      ),
    )
    const anything = fc.string({ unit: fc.constantFrom(...'0123456789Z+-:.,T \u0660'), maxLength: 28 })
    const change = fc.record({
      at: fc.nat(28),
      put: fc.string({ unit: fc.constantFrom(...'019Z-:+ '), maxLength: 2 }),
      instead: fc.nat(2),
    })
    const changed = fc
      .tuple(der, fc.array(change, { maxLength: 2 }))
      .map(([text, changes]) =>
        changes.reduce((before, { at, put, instead }) => before.slice(0, at) + put + before.slice(at + instead), text),
      )
    let read = 0
    fc.assert(
      fc.property(fc.constantFrom(UTC_TIME, GENERALIZED_TIME), fc.oneof(der, spoken, anything, changed), (tag, text) => {
        const expected = grammarTime(tag, text)
        if (typeof expected === 'number') read++
        expect([text, time(tag, text)]).toEqual([text, expected])
      }),
      { numRuns: 20_000 },
    )
    expect(read).toBeGreaterThan(500)
  })
})

describe('writing DER', () => {
  it('uses the shortest length at every border', () => {
    for (const length of [0, 127, 128, 255, 256, 65535, 65536]) {
      const der = encodeElement(4, [new Uint8Array(length)])
      expect(readWhole(der, 4).content).toBe(der.length - length)
    }
  })

  it('keeps integers positive and minimal', () => {
    for (const [value, hex] of [
      [0, '020100'],
      [127, '02017f'],
      [128, '02020080'],
      [0x7fffffff, '02047fffffff'],
      [2 ** 40, '0206010000000000'],
    ] as [number, string][])
      expect(hexOf(encodeInteger(value))).toBe(hex)
    expect(hexOf(encodeUnsigned(bytesOfHex('0000ff')))).toBe('020200ff')
    expect(hexOf(encodeUnsigned(bytesOfHex('00')))).toBe('020100')
    expect(integerBytes(readWhole(encodeUnsigned(bytesOfHex('80')), INTEGER)).length).toBe(2)
  })

  it('[X.690 11.6] sorts a SET OF by its bytes', () => {
    expect(hexOf(encodeSetOf([bytesOfHex('020102'), bytesOfHex('0101ff'), bytesOfHex('020101')]))).toBe('31090101ff020101020102')
  })
})
