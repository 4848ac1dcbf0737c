import { describe, expect, it } from 'vitest'
import {
  authorityKeyId,
  basicConstraints,
  commonName,
  extendedKeyUsage,
  keyUsage,
  type MadeCertificate,
  madeCa,
  madeCertificate,
  madeExtension,
  madeKey,
  madeTime,
  subjectAltName,
  subjectKeyId,
} from '../testing/made-certificate.ts'
import { type Bytes, bytesOfHex, concatBytes, hexOf, utf8Bytes } from './bytes.ts'
import { BASIC_CONSTRAINTS, certificateBytesMax, DIGITAL_SIGNATURE, KEY_CERT_SIGN, parseCertificate } from './certificate.ts'
import { encodeElement, encodeInteger, encodeSequence, encodeUnsigned, INTEGER, UTC_TIME } from './der.ts'
import { codeOf } from './errors.ts'

/** The code of what parsing throws, or 'parsed'. */
function outcome(der: Bytes): string | null {
  try {
    parseCertificate(der)
    return 'parsed'
  } catch (error) {
    return codeOf(error)
  }
}

const made = (fields: MadeCertificate) => outcome(madeCertificate(fields))

describe('parseCertificate', () => {
  it('reads every field it promises', () => {
    const der = madeCertificate({
      subject: 'device',
      issuer: 'maker',
      extensions: [
        basicConstraints(true, 3),
        keyUsage(1, 0x86),
        extendedKeyUsage('2b06010505070302', '551d2500'),
        subjectAltName(false, [0x82, utf8Bytes('a.example')], [0x87, new Uint8Array([10, 0, 0, 1])]),
        subjectKeyId(1, 2, 3),
        authorityKeyId(4, 5, 6),
      ],
    })
    const it = parseCertificate(der)
    expect(it.serial).toEqual(new Uint8Array([0x10, 0x20, 0x30]))
    expect(it.issuer).toEqual(commonName('maker'))
    expect(it.subject).toEqual(commonName('device'))
    expect([it.notBefore, it.notAfter]).toEqual([Date.UTC(2020, 0) / 1000, Date.UTC(2040, 0) / 1000])
    expect(it.spki).toEqual(madeKey(9))
    expect([it.keyAlgorithm, it.keyBits, it.signatureAlgorithm]).toEqual(['P-256', 256, 'ecdsa-sha256'])
    expect(it.signature).toEqual(madeKey(1))
    expect([it.isCa, it.pathLength]).toEqual([true, 3])
    expect(it.keyUsage).toBe(DIGITAL_SIGNATURE | KEY_CERT_SIGN | 64)
    expect(it.extendedKeyUsage).toEqual(['2b06010505070302', '551d2500'])
    expect(it.subjectAltNames).toEqual([
      { tag: 2, value: utf8Bytes('a.example') },
      { tag: 7, value: new Uint8Array([10, 0, 0, 1]) },
    ])
    expect([it.subjectKeyId, it.authorityKeyId]).toEqual([new Uint8Array([1, 2, 3]), new Uint8Array([4, 5, 6])])
    expect(it.extensions[0]).toMatchObject({ oid: BASIC_CONSTRAINTS, critical: true })
    // What was signed is the received bytes, not a re-encoding.
    expect(hexOf(der).indexOf(hexOf(it.tbs))).toBe(8)
  })

  it('says so where extensions are absent', () => {
    const it = parseCertificate(madeCertificate({}))
    expect([it.isCa, it.pathLength, it.keyUsage, it.extendedKeyUsage, it.subjectKeyId, it.authorityKeyId]).toEqual([
      false,
      -1,
      -1,
      null,
      null,
      null,
    ])
    expect([it.extensions, it.subjectAltNames]).toEqual([[], []])
  })

  it('[RFC 5280 4.1.2.5] takes 99991231235959Z and UTCTime on both sides of 2000', () => {
    const utc = (text: string) => encodeElement(UTC_TIME, [utf8Bytes(text)])
    const it = parseCertificate(madeCertificate({ notBefore: utc('991231235959Z'), notAfter: madeTime('99991231235959Z') }))
    expect([it.notBefore, it.notAfter]).toEqual([Date.UTC(1999, 11, 31, 23, 59, 59) / 1000, 253402300799])
  })

  it('[F2] refuses a byte before, within or behind', () => {
    const der = madeCertificate({})
    expect(outcome(concatBytes([der, new Uint8Array(1)]))).toBe('der_malformed')
    expect(outcome(der.subarray(0, der.length - 1))).toBe('der_malformed')
    expect(made({ more: [encodeInteger(1)] })).toBe('der_malformed')
    expect(outcome(new Uint8Array())).toBe('der_malformed')
  })

  it('[RFC 5280 4.1.2.1] knows version 3 alone', () => {
    for (const version of [0, 1, 3])
      expect(made({ version: encodeElement(0xa0, [encodeInteger(version)]) })).toBe('certificate_unsupported')
    expect(made({ version: encodeElement(0xa0, [encodeInteger(2), encodeInteger(2)]) })).toBe('certificate_unsupported')
  })

  it('[F2][RFC 5280 4.1.2.2] serial numbers are positive and at most 20 octets', () => {
    expect(made({ serial: encodeUnsigned(new Uint8Array(20).fill(0x7f)) })).toBe('parsed')
    expect(made({ serial: encodeUnsigned(new Uint8Array(20).fill(0x80)) })).toBe('certificate_malformed')
    expect(made({ serial: encodeElement(INTEGER, [new Uint8Array([0xff])]) })).toBe('certificate_malformed')
    expect(made({ serial: encodeInteger(0) })).toBe('certificate_malformed')
    expect(made({ serial: encodeElement(INTEGER, [new Uint8Array([0, 1])]) })).toBe('der_malformed')
  })

  it('[RFC 5280 4.1.1.2] inner and outer algorithm are the same', () => {
    expect(made({ outerAlgorithm: bytesOfHex('300a06082a8648ce3d040303') })).toBe('certificate_malformed')
  })

  it('[F2] an algorithm with parameters that do not belong there has no name', () => {
    const withNull = bytesOfHex('300c06082a8648ce3d0403020500')
    expect(parseCertificate(madeCertificate({ algorithm: withNull })).signatureAlgorithm).toBe('')
  })

  it('[F2] an extension occurs once, and FALSE is not written', () => {
    expect(made({ extensions: [basicConstraints(false), basicConstraints(false)] })).toBe('der_malformed')
    const encodedFalse = encodeSequence([bytesOfHex('0603551d13'), bytesOfHex('010100'), bytesOfHex('04023000')])
    expect(made({ extensions: [encodedFalse] })).toBe('der_malformed')
  })

  it('[RFC 5280 4.2.1.9] a path length needs a CA', () => {
    expect(made({ extensions: [basicConstraints(false, 0)] })).not.toBe('parsed')
    expect(outcome(madeCa({ pathLength: 0 }))).toBe('parsed')
  })

  it('takes key usage with trailing zero bits, as Infineon writes it, and no unused bit set', () => {
    expect(parseCertificate(madeCertificate({ extensions: [keyUsage(0, 0x04)] })).keyUsage).toBe(KEY_CERT_SIGN)
    expect(parseCertificate(madeCertificate({ extensions: [keyUsage(7, 0x00, 0x80)] })).keyUsage).toBe(256)
    expect(made({ extensions: [keyUsage(3, 0x84)] })).toBe('der_malformed')
    expect(made({ extensions: [keyUsage(8, 0x80)] })).toBe('der_malformed')
    expect(made({ extensions: [keyUsage(1)] })).toBe('der_malformed')
  })

  it('[RFC 5280 4.1.2.4] an issuer has a name', () => {
    expect(made({ issuer: encodeSequence([]) })).toBe('certificate_malformed')
    expect(made({ subject: encodeSequence([]) })).toBe('parsed')
  })

  it('[RFC 5280 4.1.2.8] reads over unique identifiers', () => {
    for (const ids of [['82020001', '81020001'], ['81020801'], ['8100'], ['83020001']])
      expect([ids, made({ uniqueIds: ids.map(bytesOfHex) })]).not.toEqual([ids, 'parsed'])
    expect(made({ uniqueIds: [bytesOfHex('81020001'), bytesOfHex('82020001')], extensions: [basicConstraints(false)] })).toBe(
      'parsed',
    )
  })

  it('[F1] bounds size and counts', () => {
    expect(outcome(new Uint8Array(certificateBytesMax + 1))).toBe('der_limit')
    const many = Array.from({ length: 33 }, (_, i) =>
      madeExtension('2a03' + (0x10 + i).toString(16), false, new Uint8Array([5, 0])),
    )
    expect(made({ extensions: many.slice(1) })).toBe('parsed')
    expect(made({ extensions: many })).toBe('der_limit')
    const names = Array.from({ length: 65 }, (): [number, Bytes] => [0x82, utf8Bytes('a')])
    expect(made({ extensions: [subjectAltName(false, ...names.slice(1))] })).toBe('parsed')
    expect(made({ extensions: [subjectAltName(false, ...names)] })).toBe('der_limit')
  })

  it('[F2] refuses empty lists of purposes and names, and names of no kind', () => {
    expect(made({ extensions: [extendedKeyUsage()] })).toBe('der_malformed')
    expect(made({ extensions: [subjectAltName(false)] })).toBe('der_malformed')
    expect(made({ extensions: [subjectAltName(false, [0x89, new Uint8Array(1)])] })).toBe('certificate_malformed')
    expect(made({ extensions: [subjectAltName(false, [0x04, new Uint8Array(1)])] })).toBe('certificate_malformed')
  })
})
