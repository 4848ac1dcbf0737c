import { describe, expect, it } from 'vitest'
import { type Bytes, bytesOfHex, utf8Bytes } from './bytes.ts'
import {
  encodeElement,
  encodeOid,
  encodeSequence,
  IA5_STRING,
  PRINTABLE_STRING,
  readWhole,
  SEQUENCE,
  SET,
  UTF8_STRING,
} from './der.ts'
import {
  attributesOf,
  COMMON_NAME,
  COUNTRY,
  DOMAIN_COMPONENT,
  encodeName,
  nameAttribute,
  nameText,
  ORGANIZATION,
  oidText,
  SERIAL_NUMBER,
  sameName,
} from './distinguished-name.ts'
import { codeOf } from './errors.ts'

const attribute = (oid: string, tag: number, value: Bytes) => encodeSequence([encodeOid(oid), encodeElement(tag, [value])])
const named = (...relative: Bytes[][]) => encodeSequence(relative.map(members => encodeElement(SET, members)))
const cn = (tag: number, text: string) => named([attribute(COMMON_NAME, tag, utf8Bytes(text))])

describe('nameAttribute', () => {
  it('reads the three string types', () => {
    expect(nameAttribute(cn(UTF8_STRING, 'Gerät ☃'), COMMON_NAME)).toBe('Gerät ☃')
    expect(nameAttribute(cn(PRINTABLE_STRING, 'device'), COMMON_NAME)).toBe('device')
    expect(nameAttribute(cn(IA5_STRING, 'a@b'), COMMON_NAME)).toBe('a@b')
    expect(nameAttribute(cn(UTF8_STRING, 'x'), SERIAL_NUMBER)).toBeNull()
  })

  it('[F8] does not choose between two, and hides no NUL', () => {
    const twice = named(
      [attribute(COMMON_NAME, UTF8_STRING, utf8Bytes('a'))],
      [attribute(COMMON_NAME, UTF8_STRING, utf8Bytes('b'))],
    )
    expect(nameAttribute(twice, COMMON_NAME)).toBeNull()
    expect(nameAttribute(cn(UTF8_STRING, 'good\0evil'), COMMON_NAME)).toBe('good\0evil')
  })

  it('[F2] a name is relative names of typed text', () => {
    const outcome = (name: Bytes) => {
      try {
        return attributesOf(readWhole(name, SEQUENCE)).length
      } catch (error) {
        return codeOf(error)
      }
    }
    expect(
      outcome(named([attribute(COMMON_NAME, UTF8_STRING, utf8Bytes('a')), attribute(COUNTRY, UTF8_STRING, utf8Bytes('b'))])),
    ).toBe(2)
    expect(outcome(encodeSequence([]))).toBe(0)
    for (const bad of [
      named([]),
      encodeSequence([encodeSequence([attribute(COMMON_NAME, UTF8_STRING, utf8Bytes('a'))])]),
      named([encodeSequence([encodeOid(COMMON_NAME)])]),
      named([attribute(COMMON_NAME, UTF8_STRING, bytesOfHex('c0af'))]),
      named([attribute(COMMON_NAME, PRINTABLE_STRING, bytesOfHex('c3a4'))]),
      // TeletexString, BMPString.
      named([attribute(COMMON_NAME, 0x14, utf8Bytes('a'))]),
      named([attribute(COMMON_NAME, 0x1e, bytesOfHex('0061'))]),
    ])
      expect(outcome(bad)).toBe('der_malformed')
    const one = [attribute(COMMON_NAME, UTF8_STRING, utf8Bytes('a'))]
    expect(outcome(named(...new Array(32).fill(one)))).toBe(32)
    expect(outcome(named(...new Array(33).fill(one)))).toBe('der_limit')
    expect(outcome(cn(UTF8_STRING, 'x'.repeat(1000)))).toBe(1)
    expect(outcome(cn(UTF8_STRING, 'x'.repeat(1010)))).toBe('der_limit')
  })
})

describe('sameName', () => {
  it('[RFC 5280 7.1] folds case, runs of spaces and string types', () => {
    expect(sameName(cn(UTF8_STRING, '  Good   CA '), cn(PRINTABLE_STRING, 'good ca'))).toBe(true)
    expect(sameName(cn(UTF8_STRING, 'goodca'), cn(UTF8_STRING, 'good ca'))).toBe(false)
    expect(sameName(cn(UTF8_STRING, 'a'), cn(UTF8_STRING, 'a\0'))).toBe(false)
  })

  it('tells order, type and grouping apart, whatever the values spell', () => {
    const a = attribute(COMMON_NAME, UTF8_STRING, utf8Bytes('a'))
    const b = attribute(ORGANIZATION, UTF8_STRING, utf8Bytes('b'))
    expect(sameName(named([a], [b]), named([b], [a]))).toBe(false)
    expect(sameName(named([a, b]), named([a], [b]))).toBe(false)
    expect(sameName(cn(UTF8_STRING, 'a'), named([attribute(ORGANIZATION, UTF8_STRING, utf8Bytes('a'))]))).toBe(false)
    expect(sameName(named([a], [b]), cn(UTF8_STRING, `a,${ORGANIZATION}=1:b`))).toBe(false)
    expect(sameName(named([a, b]), cn(UTF8_STRING, `a+${ORGANIZATION}=1:b`))).toBe(false)
  })
})

describe('encodeName', () => {
  it('[RFC 5280 A.1] picks the string type by attribute and alphabet', () => {
    const tags = (oid: string, value: string) =>
      attributesOf(readWhole(encodeName([{ oid, value }]), SEQUENCE)).map(a => a.value.tag)
    expect(tags(COMMON_NAME, 'x')).toEqual([UTF8_STRING])
    expect(tags(COUNTRY, 'DE')).toEqual([PRINTABLE_STRING])
    expect(tags(SERIAL_NUMBER, "A-1 '()+,./:=?")).toEqual([PRINTABLE_STRING])
    for (const value of ['a_b', 'ä', 'a*b', 'a@b', 'a\nb', 'a\n'])
      expect([value, tags(SERIAL_NUMBER, value)]).toEqual([value, [UTF8_STRING]])
    expect(tags(DOMAIN_COMPONENT, 'example')).toEqual([IA5_STRING])
  })
})

describe('names for people', () => {
  it('[RFC 4514] last relative name first, escaped', () => {
    const name = encodeName([
      { oid: COUNTRY, value: 'DE' },
      { oid: ORGANIZATION, value: 'A, B + C; "D" <E> = \\' },
      { oid: COMMON_NAME, value: ' #x ' },
      { oid: '2a0304', value: 'y' },
    ])
    expect(nameText(name)).toBe('1.2.3.4=y,CN=\\ #x\\ ,O=A\\, B \\+ C\\; \\"D\\" \\<E\\> \\= \\\\,C=DE')
    const joint = named([attribute(COMMON_NAME, UTF8_STRING, utf8Bytes('a')), attribute(ORGANIZATION, UTF8_STRING, utf8Bytes('b'))])
    expect(nameText(joint)).toBe('CN=a+O=b')
    expect(nameText(encodeSequence([]))).toBe('')
  })

  it('[F66] writes no control character', () => {
    expect(nameText(cn(UTF8_STRING, 'a\r\nb\x1b[2J\x7f'))).toBe('CN=a\\0d\\0ab\\1b[2J\\7f')
  })

  it('writes OIDs with dots', () => {
    expect(['2a8648ce3d0201', '551d0f', '06', '883703'].map(oidText)).toEqual(['1.2.840.10045.2.1', '2.5.29.15', '0.6', '2.999.3'])
    // Beyond 2^53 an arc is left in hex.
    expect(oidText('69bdc5a9e8c2b692b09d98cd898a9988cec836')).toBe('2.25.0xbdc5a9e8c2b692b09d98cd898a9988cec836')
  })
})
