import { describe, expect, it } from 'vitest'
import { basicConstraints, commonName, extendedKeyUsage, madeKey } from '../testing/made-certificate.ts'
import { type Bytes, bytesOfHex, concatBytes, utf8Bytes } from './bytes.ts'
import {
  CHALLENGE_PASSWORD,
  challengePassword,
  csrAssemble,
  csrBytesMax,
  csrInfo,
  csrKey,
  EXTENSION_REQUEST,
  encodeAttribute,
  parseCsr,
  requestedExtensions,
} from './csr.ts'
import { encodeElement, encodeInteger, encodeSequence, PRINTABLE_STRING, UTF8_STRING } from './der.ts'
import { encodeName } from './distinguished-name.ts'
import { codeOf } from './errors.ts'

const signature = new Uint8Array([1, 2, 3])
const made = (attributes: Bytes[], subject = commonName('device')) =>
  csrAssemble(csrInfo(subject, madeKey(3), attributes), 'ecdsa-sha256', signature)

function outcome<T>(read: () => T): T | string | null {
  try {
    return read()
  } catch (error) {
    return codeOf(error)
  }
}

describe('CSR', () => {
  it('[RFC 2986] reads back what was assembled', () => {
    const password = encodeAttribute(CHALLENGE_PASSWORD, [encodeElement(UTF8_STRING, [utf8Bytes('binding ☃')])])
    const extensions = encodeAttribute(EXTENSION_REQUEST, [
      encodeSequence([basicConstraints(true), extendedKeyUsage('2b06010505070302')]),
    ])
    const der = made([password, extensions])
    const csr = parseCsr(der)
    expect(csr.info).toEqual(csrInfo(commonName('device'), madeKey(3), [password, extensions]))
    expect([csr.subject, csr.spki, csrKey(der)]).toEqual([commonName('device'), madeKey(3), madeKey(3)])
    expect([csr.keyAlgorithm, csr.keyBits, csr.signatureAlgorithm, csr.signature]).toEqual([
      'P-256',
      256,
      'ecdsa-sha256',
      signature,
    ])
    expect(challengePassword(csr)).toBe('binding ☃')
    expect(requestedExtensions(csr).map(e => [e.oid, e.critical])).toEqual([
      ['551d13', true],
      ['551d25', false],
    ])
  })

  it('asks for nothing where nothing is asked for', () => {
    const csr = parseCsr(made([], encodeName([])))
    expect([csr.attributes, requestedExtensions(csr), challengePassword(csr)]).toEqual([[], [], null])
    expect(requestedExtensions(parseCsr(made([encodeAttribute(EXTENSION_REQUEST, [encodeSequence([])])])))).toEqual([])
  })

  it('[F2] refuses what is not one whole request of version 0', () => {
    const der = made([])
    expect(outcome(() => parseCsr(concatBytes([der, new Uint8Array(1)])))).toBe('der_malformed')
    expect(outcome(() => parseCsr(der.subarray(1)))).toBe('der_malformed')
    const info = (parts: Bytes[]) => outcome(() => parseCsr(csrAssemble(encodeSequence(parts), 'ecdsa-sha256', signature)))
    expect(info([encodeInteger(1), commonName('a'), madeKey(3), encodeElement(0xa0, [])])).toBe('csr_malformed')
    // The attributes, [0], may be empty but not absent.
    expect(info([encodeInteger(0), commonName('a'), madeKey(3)])).toBe('der_malformed')
    expect(info([encodeInteger(0), commonName('a'), madeKey(3), bytesOfHex('3100')])).toBe('der_malformed')
    expect(outcome(() => parseCsr(made([], bytesOfHex('0500'))))).toBe('der_malformed')
  })

  it('[F2] an attribute occurs once and has a value; those we read have one', () => {
    const text = encodeElement(PRINTABLE_STRING, [utf8Bytes('x')])
    const one = encodeAttribute(CHALLENGE_PASSWORD, [text])
    expect(outcome(() => parseCsr(made([one, one])))).toBe('csr_malformed')
    expect(outcome(() => parseCsr(made([encodeAttribute(CHALLENGE_PASSWORD, [])])))).toBe('der_malformed')
    const two = parseCsr(made([encodeAttribute(CHALLENGE_PASSWORD, [text, encodeElement(PRINTABLE_STRING, [utf8Bytes('y')])])]))
    expect(outcome(() => challengePassword(two))).toBe('csr_malformed')
    for (const value of [
      bytesOfHex('0500'),
      bytesOfHex('0c00'),
      encodeElement(UTF8_STRING, [new Uint8Array(256).fill(0x61)]),
      bytesOfHex('0c01ff'),
    ])
      expect(outcome(() => challengePassword(parseCsr(made([encodeAttribute(CHALLENGE_PASSWORD, [value])]))))).toBe('csr_malformed')
    const twice = encodeAttribute(EXTENSION_REQUEST, [encodeSequence([basicConstraints(true), basicConstraints(false)])])
    expect(outcome(() => requestedExtensions(parseCsr(made([twice]))))).toBe('der_malformed')
  })

  it('[F1] bounds size, attributes and values', () => {
    expect(outcome(() => parseCsr(new Uint8Array(csrBytesMax + 1)))).toBe('der_limit')
    const many = Array.from({ length: 17 }, (_, i) => encodeAttribute('2a03' + (0x10 + i).toString(16), [bytesOfHex('0500')]))
    expect(outcome(() => parseCsr(made(many.slice(1))).attributes.length)).toBe(16)
    expect(outcome(() => parseCsr(made(many)))).toBe('der_limit')
    expect(outcome(() => parseCsr(made([encodeAttribute('2a03', new Array(9).fill(bytesOfHex('0500')))])))).toBe('der_limit')
  })

  it('signs with algorithms that have a name', () => {
    expect(outcome(() => csrAssemble(made([]), 'md5', signature))).toBe('certificate_unsupported')
  })
})
