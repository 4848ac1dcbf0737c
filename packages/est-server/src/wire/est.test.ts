import { encodeBase64, encodeCertsOnly, encodePem, hexOf, parseCertsOnly, utf8Bytes } from '@birthmark/device-sdk/core'
import { expect, test } from 'vitest'
import { certsOnlyBody, csrOfBody, parseEstPath } from './est.ts'

const der = new Uint8Array(300).map((_, i) => (i * 7) & 255)
const coded = encodeBase64(der, 0)

test('[RFC 7030 3.2.2] a path names an operation, with a label or without', () => {
  expect(parseEstPath('/.well-known/est/cacerts')).toEqual({ label: null, operation: 'cacerts' })
  expect(parseEstPath('/.well-known/est/plant-7/simpleenroll')).toEqual({ label: 'plant-7', operation: 'simpleenroll' })
})

test('[F19] a path in any other spelling names nothing', () => {
  for (const path of [
    '/.well-known/est',
    '/.well-known/est/',
    '/.well-known/est//cacerts',
    '/.well-known/est/CACERTS',
    '/.Well-Known/est/cacerts',
    '/.well-known/est/cacerts/',
    '/.well-known/est/a/b/cacerts',
    '/.well-known/est/../est/cacerts',
    '/.well-known/est/./cacerts',
    '/.well-known/est/%63acerts',
    '/.well-known/est/a%2Fcacerts',
    '/.well-known/est/toString',
    '/.well-known/est/__proto__',
    '/.well-known/est/a/constructor',
    `/.well-known/est/${'a'.repeat(65)}/cacerts`,
    // A label that reads as an operation.
    '/.well-known/est/simpleenroll/cacerts',
  ])
    expect(parseEstPath(path), path).toBeNull()
})

test('[F4] [RFC 8951 3.1] base64 in one line, in lines, with stray white space, in PEM armour', () => {
  const spellings = [
    coded,
    encodeBase64(der, 64),
    encodeBase64(der, 76).replace(/\n/g, '\r\n'),
    `\r\n ${coded.slice(0, 10)}\t ${coded.slice(10)}\n\n`,
    encodePem('CERTIFICATE REQUEST', der),
    encodePem('NEW CERTIFICATE REQUEST', der),
  ]
  for (const text of spellings) expect(hexOf(csrOfBody(utf8Bytes(text), 65536))).toBe(hexOf(der))
})

test('[F4] anything else is malformed', () => {
  for (const text of [
    coded.slice(0, -1),
    coded + '=',
    coded + '*',
    encodePem('CERTIFICATE', der),
    '-----BEGIN CERTIFICATE REQUEST-----\n' + coded,
  ])
    expect(() => csrOfBody(utf8Bytes(text), 65536), text.slice(0, 40)).toThrow(/base64_malformed/)
  expect(() => csrOfBody(der, 65536)).toThrow(/base64_malformed/)
  expect(() => csrOfBody(utf8Bytes(coded), 299)).toThrow(/base64_malformed/)
})

test('[RFC 7030 4.1.3] an answer is wrapped base64 of a certs-only message in the given order', () => {
  const certificates = [Uint8Array.of(0x30, 3, 1, 1, 255), Uint8Array.of(0x30, 0)]
  const body = certsOnlyBody(certificates).toString()
  expect(body).toMatch(/^([A-Za-z0-9+/]{64}\n)*[A-Za-z0-9+/]{1,64}={0,2}\n$/)
  expect(parseCertsOnly(Buffer.from(body, 'base64')).map(hexOf)).toEqual(certificates.map(hexOf))
})

test('a certs-only message of any size is the one that the core encodes', () => {
  for (const sizes of [[], [0], [60], [100], [127], [200], [230], [255, 1], [65_000], [65_535], [65_536, 300], [600, 450, 450]]) {
    const certificates = sizes.map(size => new Uint8Array(size).fill(0x30))
    expect(hexOf(Buffer.from(certsOnlyBody(certificates).toString(), 'base64')), String(sizes)).toBe(
      hexOf(encodeCertsOnly(certificates)),
    )
  }
})
