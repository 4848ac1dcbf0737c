import { describe, expect, it } from 'vitest'
import {
  commonName,
  madeCa,
  madeCertificate,
  madeExtension,
  madeKey,
  nameConstraints,
  subjectAltName,
} from '../testing/made-certificate.ts'
import { type Bytes, bytesOfHex, utf8Bytes } from './bytes.ts'
import { NAME_CONSTRAINTS, parseCertificate } from './certificate.ts'
import { COMMON_NAME, EMAIL_ADDRESS, encodeName, ORGANIZATION } from './distinguished-name.ts'
import { checkNameConstraints } from './name-constraints.ts'

type Name = [number, Bytes]
const dns = (text: string): Name => [0x82, utf8Bytes(text)]
const email = (text: string): Name => [0x81, utf8Bytes(text)]
const uri = (text: string): Name => [0x86, utf8Bytes(text)]
const ip = (...octets: number[]): Name => [0x87, new Uint8Array(octets)]
const directory = (name: Bytes): Name => [0xa4, name]
const organization = (name: string, unit?: string) =>
  encodeName([{ oid: ORGANIZATION, value: name }, ...(unit ? [{ oid: COMMON_NAME, value: unit }] : [])])

const leaf = (names: Name[], subject: Bytes = commonName('leaf')) =>
  parseCertificate(
    madeCertificate({ subject, issuer: 'ca', extensions: names.length ? [subjectAltName(subject.length === 2, ...names)] : [] }),
  )

const ca = (permitted: Name[], excluded: Name[] = []) =>
  parseCertificate(madeCa({ subject: 'ca', key: madeKey(2), extensions: [nameConstraints(permitted, excluded)] }))

/** Whether a leaf of these names may stand below a CA of these constraints. */
const allowed = (names: Name[], permitted: Name[], excluded: Name[] = [], subject?: Bytes) =>
  checkNameConstraints([leaf(names, subject), ca(permitted, excluded)]) === null

describe('checkNameConstraints', () => {
  it('[RFC 5280 4.2.1.10] a host lies below a DNS base label by label', () => {
    expect(allowed([dns('example.com')], [dns('example.com')])).toBe(true)
    expect(allowed([dns('a.EXAMPLE.com')], [dns('example.com')])).toBe(true)
    expect(allowed([dns('anexample.com')], [dns('example.com')])).toBe(false)
    expect(allowed([dns('a.example.com')], [], [dns('example.com')])).toBe(false)
    expect(allowed([dns('a.example.org')], [], [dns('example.com')])).toBe(true)
    expect(allowed([dns('any.host')], [dns('')])).toBe(true)
    // A wildcard may stand for an excluded name, and for one outside what is permitted.
    expect(allowed([dns('*.example.com')], [], [dns('bar.example.com')])).toBe(false)
    expect(allowed([dns('*.example.com')], [dns('bar.example.com')])).toBe(false)
    expect(allowed([dns('*.bar.example.com')], [dns('example.com')])).toBe(true)
  })

  it('an address lies in a network', () => {
    const net = ip(10, 1, 0, 0, 255, 255, 0, 0)
    expect(allowed([ip(10, 1, 2, 3)], [net])).toBe(true)
    expect(allowed([ip(10, 2, 2, 3)], [net])).toBe(false)
    expect(allowed([ip(10, 1, 2, 3)], [], [net])).toBe(false)
    expect(allowed([ip(...new Array(16).fill(0))], [net])).toBe(false)
  })

  it('a mailbox is named whole, by its host, or by a domain above it', () => {
    expect(allowed([email('Root@EXAMPLE.com')], [email('Root@example.com')])).toBe(true)
    expect(allowed([email('root@example.com')], [email('Root@example.com')])).toBe(false)
    expect(allowed([email('a@example.com')], [email('example.com')])).toBe(true)
    expect(allowed([email('a@x.example.com')], [email('example.com')])).toBe(false)
    expect(allowed([email('a@x.example.com')], [email('.example.com')])).toBe(true)
    // In the subject too, where there is no subjectAltName to speak for it.
    const subject = encodeName([{ oid: EMAIL_ADDRESS, value: 'a@example.org' }])
    expect(allowed([], [email('example.com')], [], subject)).toBe(false)
    expect(allowed([dns('a.b')], [email('example.com')], [], subject)).toBe(true)
  })

  it('a URI is held to its host, and without one to nothing', () => {
    expect(allowed([uri('https://u@host.example.com:8443/p?q#f')], [uri('host.example.com')])).toBe(true)
    expect(allowed([uri('https://x.example.com/')], [uri('.example.com')])).toBe(true)
    expect(allowed([uri('https://example.com/')], [uri('.example.com')])).toBe(false)
    expect(allowed([uri('https://evil/@host.example.com')], [uri('host.example.com')])).toBe(false)
    for (const text of ['urn:x:y', 'https://10.0.0.1/', 'https://[::1]/', 'https:///p'])
      expect([text, allowed([uri(text)], [], [uri('example.com')])]).toEqual([text, false])
    expect(allowed([uri('urn:x:y')], [dns('example.com')])).toBe(true)
  })

  it('a directory name begins with its base, case and spaces aside', () => {
    const base = directory(organization('Maker'))
    expect(allowed([], [base], [], organization('MAKER ', 'x'))).toBe(true)
    expect(allowed([], [base], [], organization('Maker', 'x'))).toBe(true)
    expect(allowed([], [base], [], organization('Other', 'x'))).toBe(false)
    expect(allowed([], [], [base], organization('Maker', 'x'))).toBe(false)
    // Subject and subjectAltName both count.
    expect(allowed([directory(organization('Other'))], [base], [], organization('Maker'))).toBe(false)
  })

  it('a constraint speaks of its own kind alone; on a kind that cannot be compared it refuses', () => {
    expect(allowed([dns('a.b')], [ip(10, 0, 0, 0, 255, 0, 0, 0)])).toBe(true)
    const other: Name = [0xa0, bytesOfHex('06022a03a003020101')]
    expect(allowed([other], [], [other])).toBe(false)
    expect(allowed([other], [other])).toBe(false)
    expect(allowed([dns('a.b')], [], [other])).toBe(true)
  })

  it('[RFC 5280 6.1.3 b] spares self-issued CAs, never the leaf, and binds all below', () => {
    const limiting = ca([dns('a.example')])
    const between = (subject: string) =>
      parseCertificate(madeCa({ subject, issuer: 'ca', key: madeKey(3), extensions: [subjectAltName(false, dns('ca.b.example'))] }))
    const fine = leaf([dns('x.a.example')])
    expect(checkNameConstraints([fine, between('sub'), limiting])).toBe('name not permitted')
    expect(checkNameConstraints([fine, between('ca'), limiting])).toBeNull()
    const selfIssuedLeaf = leaf([dns('x.b.example')], commonName('ca'))
    expect(checkNameConstraints([selfIssuedLeaf, limiting])).toBe('name not permitted')
    expect(checkNameConstraints([leaf([dns('x.b.example')]), between('ca'), limiting])).toBe('name not permitted')
  })

  it('refuses constraints that are malformed, whatever the names are', () => {
    const raw = (hex: string) =>
      parseCertificate(madeCa({ subject: 'ca', extensions: [madeExtension(NAME_CONSTRAINTS, true, bytesOfHex(hex))] }))
    // No subtrees; out of order; a minimum; not DER inside.
    for (const hex of ['3000', '3006a1020000a000', '300ca00a3008820161800101', '3004a0023005'])
      expect([hex, checkNameConstraints([leaf([]), raw(hex)])]).not.toEqual([hex, null])
    expect(allowed([], [dns('.a.example')])).toBe(false)
    expect(allowed([], [dns('*.a.example')])).toBe(false)
    expect(allowed([], [ip(10, 0, 0, 0)])).toBe(false)
    expect(allowed([], [ip(10, 0, 0, 0, 255, 0, 255, 0)])).toBe(false)
  })

  it('[F8] holds names to their form, constraints or not', () => {
    const check = (name: Name) => checkNameConstraints([leaf([name])])
    for (const name of [
      dns('a.example'),
      dns('xn--bcher-kva.example'),
      dns('*.a.example'),
      email('a@b'),
      uri('urn:x'),
      ip(1, 2, 3, 4),
    ])
      expect(check(name)).toBeNull()
    for (const name of [
      dns('a.example\0.evil'),
      dns('a_b.example'),
      dns('-a.example'),
      dns('a..example'),
      dns('.example'),
      dns('10.0.0.1'),
      dns('a.*.example'),
      dns(''),
      dns('a'.repeat(64)),
      email('a@b\r\nBcc: c'),
      uri('https://a\0b'),
      ip(1, 2, 3),
      [0x82, new Uint8Array([0xc3, 0xa4])] as Name,
      directory(bytesOfHex('0500')),
    ])
      expect([name, check(name)]).not.toEqual([name, null])
  })

  it('[RFC 5280 4.1.2.6] a certificate without subject has a critical subjectAltName', () => {
    const nameless = (critical: boolean) =>
      parseCertificate(madeCertificate({ subject: encodeName([]), extensions: [subjectAltName(critical, dns('a.example'))] }))
    expect(checkNameConstraints([nameless(true)])).toBeNull()
    expect(checkNameConstraints([nameless(false)])).toBe('no name')
    expect(checkNameConstraints([leaf([]), parseCertificate(madeCa({ subject: encodeName([]) }))])).toBe('no name')
  })
})
