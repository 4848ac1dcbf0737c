import {
  COMMON_NAME,
  COUNTRY,
  DOMAIN_COMPONENT,
  encodeName,
  hexOf,
  membershipOf,
  ORGANIZATION,
  parseCertificate,
} from '@birthmark/device-sdk/core'
import { testAuthority } from '@birthmark/device-sdk/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { sha256 } from '../node-crypto.ts'
import { testKey } from '../testing/kernel.ts'
import { type CertificateDetails, CLIENT_AUTH, certificateTemplate, deviceSubject, encodeTime } from './certificate-template.ts'
import { createAuthority, type IssuancePermit } from './issuance.ts'
import { type Issuer, softwareIssuer } from './issuer-key.ts'
import { createLinter } from './lint.ts'
import { serialSource } from './serial.ts'

const ca = testAuthority('Operational CA')
const issuer = softwareIssuer({ certificate: ca.pem, privateKeyPem: ca.privateKeyPem })
/** The same with addresses for the status of its certificates. */
const listed = softwareIssuer({
  ...{ certificate: ca.pem, privateKeyPem: ca.privateKeyPem },
  statusUrl: 'http://status.acme.example:8080/pki',
})
const { spki } = testKey()
const template = certificateTemplate(issuer)
const lint = createLinter(issuer, [], () => {
  throw new Error('not asked')
})
const shown = ({ tag, value }: { tag: number; value: Uint8Array }) => `${tag} ${hexOf(value)}`
function uri(text: string) {
  return { tag: 6, value: new Uint8Array(Buffer.from(text)) }
}
const details: CertificateDetails = {
  ...{
    deviceId: 'meter-1',
    serial: new Uint8Array(16).fill(0x41),
    notBefore: 1_800_000_000,
    notAfter: 1_800_086_400,
    spki,
    spkiSha256: sha256(spki),
  },
  ...{ subject: null, alternativeNames: [uri('spiffe://acme.example/meters/meter-1')], extendedKeyUsage: [CLIENT_AUTH] },
  ...{ membership: { fleet: 'meters', idx: 300, gids: [1, 127, 128, 70_000] } },
}

const plainDetails = details
/** With everything that a profile can add. */
const ofAProfile: CertificateDetails = {
  ...details,
  subject: [
    { oid: COMMON_NAME, value: 'meter-1' },
    { oid: ORGANIZATION, value: 'Acmé' },
    { oid: COUNTRY, value: 'DE' },
    { oid: DOMAIN_COMPONENT, value: 'example' },
  ],
  alternativeNames: [
    uri('urn:dev:1'),
    { tag: 2, value: new Uint8Array(Buffer.from('a.example')) },
    { tag: 7, value: new Uint8Array(4) },
  ],
  extendedKeyUsage: [CLIENT_AUTH, '2b06010505070301'],
}

const id = fc.stringMatching(/^[A-Za-z0-9._:-]{1,64}$/)
/** What a profile's own text may hold: UTF-8 without control characters. */
const word = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 16 }).filter(text => !/[\u0000-\u001f\u007f-\u009f]/.test(text))
const time = fc.integer({ min: 0, max: 4_000_000_000 })
const anyDetails: fc.Arbitrary<CertificateDetails> = fc
  .record({
    deviceId: id,
    serial: fc.uint8Array({ minLength: 16, maxLength: 16 }).map(s => {
      s[0] = (s[0] & 0x3f) | 0x40
      return s
    }),
    notBefore: time,
    life: fc.integer({ min: 60, max: 10 ** 9 }),
    subject: fc.option(
      fc.tuple(word, fc.constantFrom('DE', 'CH')).map(([o, c]) => [
        { oid: COMMON_NAME, value: 'meter-1' },
        { oid: ORGANIZATION, value: o },
        { oid: COUNTRY, value: c },
        { oid: DOMAIN_COMPONENT, value: 'example' },
      ]),
    ),
    alternativeNames: fc.array(
      fc.oneof(
        id.map(text => uri(`spiffe://acme.example/${text}`)),
        id.map(text => ({ tag: 2, value: new Uint8Array(Buffer.from(text)) })),
        fc.uint8Array({ minLength: 4, maxLength: 4 }).map(value => ({ tag: 7, value })),
        fc.uint8Array({ minLength: 16, maxLength: 16 }).map(value => ({ tag: 7, value })),
      ),
      { maxLength: 4 },
    ),
    extendedKeyUsage: fc.constantFrom([CLIENT_AUTH], [CLIENT_AUTH, '2b06010505070301'], [CLIENT_AUTH, '5509']),
    fleet: fc.stringMatching(/^[a-z0-9-]{1,32}$/),
    idx: fc.integer({ min: 0, max: 0x7fffffff }),
    gids: fc.uniqueArray(fc.integer({ min: 1, max: 0x7fffffff }), { maxLength: 8 }),
  })
  .map(({ life, fleet, idx, gids, ...rest }) => ({
    ...{ ...rest, notAfter: rest.notBefore + life, spki, spkiSha256: sha256(spki) },
    membership: { fleet, idx, gids: gids.toSorted((a, b) => a - b) },
  }))

describe('the template and the linter', () => {
  it('agree for every device, and the strict parser reads back what was meant', async () => {
    const [plain, withStatus] = [createAuthority(issuer), createAuthority(listed)]
    await fc.assert(
      fc.asyncProperty(anyDetails, fc.boolean(), async (d, status) => {
        const authority = status ? withStatus : plain
        const c = parseCertificate(authority.verify(await authority.issue(authority.prepare(d))).der)
        expect(hexOf(c.serial)).toBe(hexOf(d.serial))
        expect(hexOf(c.subject)).toBe(hexOf(d.subject === null ? deviceSubject(d.deviceId) : encodeName([...d.subject])))
        expect([c.notBefore, c.notAfter]).toEqual([d.notBefore, d.notAfter])
        expect(c.subjectAltNames.map(shown)).toEqual(d.alternativeNames.map(shown))
        expect(membershipOf(c)).toEqual(d.membership)
        expect([c.isCa, c.keyUsage, c.extendedKeyUsage]).toEqual([false, 1, d.extendedKeyUsage])
        expect(hexOf(c.subjectKeyId!)).toBe(hexOf(d.spkiSha256.subarray(0, 20)))
        expect(hexOf(c.authorityKeyId!)).toBe(hexOf(issuer.keyId))
        const texts = new Map(c.extensions.map(e => [e.oid, Buffer.from(e.value).toString('latin1')]))
        const crl = `http://status.acme.example:8080/pki/crl/${hexOf(issuer.keyId).slice(0, 16)}/${d.membership.fleet}/${Math.floor(d.membership.idx / 4096)}.crl`
        expect(texts.get('551d1f')?.slice(-crl.length)).toBe(status ? crl : undefined)
        expect(texts.get('2b06010505070101')?.endsWith('http://status.acme.example:8080/pki/ocsp')).toBe(status || undefined)
      }),
      { numRuns: 200 },
    )
  })

  it.each([
    ['without', template, lint],
    ['with', certificateTemplate(listed), createLinter(listed, [], parseCertificate)],
    ['without', template, lint, ofAProfile],
  ])(
    '[F37] a change of any bit of any byte is refused, and so is a byte more or less: %s status addresses',
    (_, template, lint, details = plainDetails) => {
      const tbs = template(details)
      expect(lint(tbs, details)).toBeNull()
      for (let i = 0; i < tbs.length; i++)
        for (let bit = 0; bit < 8; bit++) {
          const changed = tbs.slice()
          changed[i] ^= 1 << bit
          expect(lint(changed, details), `bit ${bit} of byte ${i}`).not.toBeNull()
        }
      for (let length = 0; length < tbs.length; length++) expect(lint(tbs.slice(0, length), details)).not.toBeNull()
      expect(lint(Buffer.concat([tbs, new Uint8Array(1)]), details)).not.toBeNull()
    },
  )

  it('[F37] details that do not fit the bytes are refused by name', () => {
    const tbs = template(details)
    const wrong = (change: Partial<CertificateDetails>) => lint(tbs, { ...details, ...change })
    expect(wrong({ deviceId: 'meter-2' })).toBe('subject')
    expect(wrong({ serial: new Uint8Array(16).fill(0x42) })).toBe('serial')
    expect(wrong({ notAfter: 1_800_086_401 })).toBe('validity')
    expect(wrong({ spki: testKey().spki })).toBe('public key')
    expect(wrong({ spkiSha256: new Uint8Array(32) })).toBe('subject key identifier')
    expect(wrong({ alternativeNames: [] })).toBe('alternative name')
    expect(wrong({ alternativeNames: [uri('spiffe://acme.example/meters/meter-2')] })).toBe('alternative name')
    expect(wrong({ extendedKeyUsage: [CLIENT_AUTH, '2b06010505070301'] })).toBe('extended key usage')
    expect(wrong({ subject: [{ oid: COMMON_NAME, value: 'meter-1' }] })).toBe('subject')
    expect(wrong({ membership: { ...details.membership, idx: 301 } })).toBe('fleet extension')
    expect(wrong({ membership: { ...details.membership, gids: [1, 127, 128] } })).toBe('fleet extension')
    expect(wrong({ membership: { ...details.membership, gids: [127, 1, 128, 70_000] } })).toBe('fleet extension')
    const other = testAuthority('Another CA')
    const strange = createLinter(
      softwareIssuer({ certificate: other.pem, privateKeyPem: other.privateKeyPem }),
      [],
      parseCertificate,
    )
    expect(strange(tbs, details)).toBe('issuer')
    const ending: Issuer = { ...issuer, certificate: { ...issuer.certificate, notAfter: 1_800_000_001 } }
    expect(createLinter(ending, [], parseCertificate)(tbs, details)).toBe('validity beyond the issuer')
  })

  it('[F37] purposes without clientAuth first, names that are none, and names of other kinds are refused', () => {
    const refused = (change: Partial<CertificateDetails>) => {
      const d = { ...ofAProfile, ...change }
      return lint(template(d), d)
    }
    expect(refused({})).toBeNull()
    expect(refused({ extendedKeyUsage: ['2b06010505070301'] })).toBe('extended key usage')
    for (const name of [{ tag: 4, value: new Uint8Array(4) }, { tag: 7, value: new Uint8Array(5) }, uri('a\nb'), uri('')])
      expect(refused({ alternativeNames: [name] })).toBe('alternative name')
    expect(refused({ subject: [{ oid: COMMON_NAME, value: 'a\u0000b' }] })).toBe('subject')
  })

  it('[F37] addresses of another issuer, fleet or shard are refused by name', () => {
    const wrong = (issuing: Issuer, d: CertificateDetails) =>
      createLinter(issuing, [], parseCertificate)(certificateTemplate(listed)(d), details)
    expect(wrong(listed, details)).toBeNull()
    expect(wrong({ ...listed, statusUrl: 'http://status.acme.example:8080/PKI' }, details)).toBe('authority information access')
    expect(wrong(issuer, details)).toBe('subject key identifier')
    expect(createLinter(listed, [], parseCertificate)(template(details), details)).toBe('authority information access')
    // 4,095 is the last index of the first shard.
    const at = (idx: number) => ({ ...details, membership: { ...details.membership, idx } })
    const text = (idx: number) => Buffer.from(certificateTemplate(listed)(at(idx))).toString('latin1')
    expect(text(4095)).toContain('/meters/0.crl')
    expect(text(4096)).toContain('/meters/1.crl')
    expect(text(0x7fffffff)).toContain('/meters/524287.crl')
    for (const url of [
      'https://status.acme.example',
      'http://a/',
      'http://a b',
      `http://${'a'.repeat(130)}`,
      'http://a/?x',
      'http://a/../b c',
    ])
      expect(() => softwareIssuer({ certificate: ca.pem, privateKeyPem: ca.privateKeyPem, statusUrl: url }), url).toThrow(
        /status URL/,
      )
  })

  it('a rule of an operator refuses, and refuses as well when it fails', () => {
    const attempt = (rule: () => string | null) => () => createAuthority(issuer, [rule]).prepare(details)
    expect(attempt(() => 'not on a Sunday')).toThrow(/lint_failed: not on a Sunday/)
    expect(
      attempt(() => {
        throw new Error('rule broke')
      }),
    ).toThrow(/lint_failed: rule broke/)
    expect(attempt(() => null)).not.toThrow()
  })

  it('times are spelled as RFC 5280 4.1.2.5 asks, on both sides of 2050', () => {
    const text = (seconds: number) => Buffer.from(encodeTime(seconds)).subarray(2).toString()
    expect(text(Date.UTC(2049, 11, 31, 23, 59, 59) / 1000)).toBe('491231235959Z')
    expect(text(Date.UTC(2050, 0, 1) / 1000)).toBe('20500101000000Z')
    expect(text(951_782_400)).toBe('000229000000Z')
  })
})

describe('a permit', () => {
  const authority = createAuthority(issuer)

  it('signs once, for the authority that gave it', async () => {
    const permit = authority.prepare(details)
    const signed = await authority.issue(permit)
    await expect(authority.issue(permit)).rejects.toMatchObject({ code: 'permit_spent' })
    expect(authority.verify(signed).der.length).toBeGreaterThan(400)
    expect(() => authority.verify(signed)).toThrow(/permit_spent/)
    const other = createAuthority(issuer)
    await expect(other.issue(authority.prepare(details))).rejects.toMatchObject({ code: 'permit_spent' })
  })

  it('cannot be forged: not by shape, by prototype, by copying, nor by passing one stage for another', async () => {
    const permit = authority.prepare(details)
    const forgeries: unknown[] = [
      ...[null, undefined, 'permit', {}, { tbs: permit.tbs }, { ...permit }, structuredClone({ ...permit })],
      ...[Object.create(permit), Object.create(Object.getPrototypeOf(permit)), await authority.issue(authority.prepare(details))],
    ]
    for (const forged of forgeries)
      await expect(authority.issue(forged as IssuancePermit)).rejects.toMatchObject({ code: 'permit_spent' })
  })

  it('shows what will be signed, and whoever changes that changes nothing', async () => {
    const permit = authority.prepare(details)
    const shown = permit.tbs.slice()
    permit.tbs.fill(0)
    expect(hexOf(parseCertificate(authority.verify(await authority.issue(permit)).der).tbs)).toBe(hexOf(shown))
  })
})

describe('an issuer', () => {
  it.each(['P-256', 'P-384', 'RSA', 'Ed25519'] as const)('signs with a %s key', async kind => {
    const key = testKey(kind)
    const root = testAuthority('Root')
    const certificate = root.issue({
      profile: 'ca',
      subject: deviceSubject('sub-ca'),
      spki: key.spki,
      notBefore: 0,
      notAfter: 4_000_000_000,
    })
    const made = softwareIssuer({ certificate, privateKeyPem: key.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() })
    const authority = createAuthority(made)
    expect(parseCertificate(authority.verify(await authority.issue(authority.prepare(details))).der).signatureAlgorithm).toBe(
      key.algorithm,
    )
  })

  it('is refused without a CA certificate, with the key of another, and never quotes the key', () => {
    const pem = testAuthority('Other').privateKeyPem
    const attempt = (certificate: Uint8Array | string, privateKeyPem: string) => () =>
      softwareIssuer({ certificate, privateKeyPem })
    expect(attempt(ca.certificate, pem)).toThrow(/issuer_unusable.*not the key of/)
    const leaf = ca.issue({ profile: 'client', subject: deviceSubject('leaf'), spki, notBefore: 0, notAfter: 9 })
    expect(attempt(leaf, ca.privateKeyPem)).toThrow(/not a CA/)
    expect(attempt('nonsense', ca.privateKeyPem)).toThrow(/issuer_unusable/)
    try {
      attempt(ca.certificate, `${pem.slice(0, 100)}!`)()
    } catch (error) {
      expect(`${error} ${(error as Error).cause}`).not.toContain(pem.slice(40, 80))
    }
  })

  it('is refused at start when devices could not read its certificates', () => {
    const broken: Issuer = { ...issuer, keyId: new Uint8Array(9000) }
    expect(() => createAuthority(broken)).toThrow(/issuer_unusable/)
    expect(() =>
      createAuthority({ ...issuer, certificate: { ...issuer.certificate, subject: new Uint8Array([0x30, 5]) } }),
    ).toThrow(/issuer_unusable/)
  })
})

describe('serial numbers', () => {
  it('are 16 octets, positive and minimal, in order of time, and differ within a millisecond', () => {
    let now = 0
    const next = serialSource({ now: () => now }, n => crypto.getRandomValues(new Uint8Array(n)))
    let last = ''
    for (now of [0, 1, 1_800_000_000, 1_800_000_000.001, 4_000_000_000, 60_000_000_000]) {
      const serials = Array.from({ length: 200 }, next)
      for (const serial of serials) {
        expect(serial).toHaveLength(16)
        expect(serial[0] & 0xc0).toBe(0x40)
      }
      const prefix = hexOf(serials[0].subarray(0, 6))
      expect(prefix > last).toBe(true)
      last = prefix
      expect(new Set(serials.map(s => hexOf(s))).size).toBe(200)
    }
  })
})
