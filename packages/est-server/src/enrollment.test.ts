import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  BASIC_CONSTRAINTS,
  type Bytes,
  bytesOfHex,
  COMMON_NAME,
  certificateBytesMax,
  EXTENDED_KEY_USAGE,
  encodeBase64,
  encodeElement,
  encodeName,
  encodePem,
  encodeSequence,
  equalBytes,
  hexOf,
  KEY_USAGE,
  membershipOf,
  nameText,
  ORGANIZATION,
  parseCertificate,
  SERIAL_NUMBER,
  SUBJECT_ALT_NAME,
} from '@birthmark/device-sdk/core'
import { encodeExtension, testAuthority } from '@birthmark/device-sdk/testing'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { EnrollmentRequest } from './enrollment-request.ts'
import { EstServerError } from './errors.ts'
import { sha256 } from './node-crypto.ts'
import {
  csrFor,
  issuedBy,
  type Kernel,
  kernel,
  keyOf,
  malleatedTwin,
  nameOf,
  peerWith,
  type TestDevice,
  type TestKey,
  testKey,
} from './testing/kernel.ts'

let k: Kernel
let d: TestDevice
beforeEach(async () => {
  k = await kernel({ profile: { trustDomain: 'acme.example', admitSecrets: true } })
  d = await k.device('m-1')
})
afterEach(async () => {
  expect(await k.store.check()).toEqual([])
  await k.remove()
})

const enrollAs = async (device: TestDevice, key: TestKey) => issuedBy(await k.enroll(device.peer(), csrFor(key, nameOf(device.id))))
/** What a repeated request is answered. */
const sameAs = (certificate: Bytes) => ({
  kind: 'issued',
  certificate: new Uint8Array(certificate),
  chain: [],
  again: true,
  renewAfterSeconds: expect.any(Number),
})
const currentName = (id: string) => nameOf(id, id)
const renew = (certificate: Bytes, csr: Bytes, more: Partial<EnrollmentRequest> = {}) =>
  k.enroll(peerWith([certificate]), csr, { operation: 'reenroll', ...more })

describe('a certificate', () => {
  it('is built from profile and identity: v3, own name, clientAuth, key identifiers, SPIFFE name, membership, back-dated', async () => {
    const key = testKey()
    const outcome = await k.enroll(d.peer(), csrFor(key, encodeSequence([])))
    const c = parseCertificate(issuedBy(outcome))
    expect(outcome).toMatchObject({ kind: 'issued', again: false, chain: [] })
    expect(nameText(c.subject)).toBe('serialNumber=m-1,CN=m-1')
    expect(equalBytes(c.spki, key.spki)).toBe(true)
    expect(c.serial).toHaveLength(16)
    expect([c.notBefore, c.notAfter]).toEqual([k.clock.at - 300, k.clock.at + 86_400])
    expect(c.extendedKeyUsage).toEqual(['2b06010505070302'])
    expect(Buffer.from(c.subjectAltNames[0].value).toString()).toBe('spiffe://acme.example/meters/m-1')
    expect(membershipOf(c)).toEqual({ fleet: 'meters', idx: 1, gids: [1] })
    expect(hexOf(c.authorityKeyId!)).toBe(hexOf(parseCertificate(k.ca.certificate).subjectKeyId!))
    const records = await k.audit()
    expect(records.at(-1)).toMatchObject({ kind: 'certificate_issued', device: 'm-1', by: '192.0.2.1' })
  })

  it('is signed ahead of those of SCEP', async () => {
    const asked: unknown[] = []
    const other = await kernel({
      issuer: issuer => ({
        ...issuer,
        sign(tbs, patient) {
          asked.push(patient)
          return issuer.sign(tbs)
        },
      }),
    })
    const { peer } = await other.device('m-1')
    issuedBy(await other.enroll(peer(), csrFor(testKey(), currentName('m-1'))))
    await other.close()
    expect(asked).toEqual([false])
  })

  it('is decided on and issued ahead of what SCEP asks', async () => {
    let served = 0
    const other = await kernel({
      loopTurns: {
        isCalm: () => false,
        turn: () => Promise.reject(new Error('EST waits for nobody')),
        async ahead(work) {
          const done = await work()
          served++
          return done
        },
      },
    })
    const { peer } = await other.device('m-1')
    issuedBy(await other.enroll(peer(), csrFor(testKey(), currentName('m-1'))))
    await other.close()
    expect(served).toBe(1)
  })

  it.each(['P-256', 'P-384', 'Ed25519', 'RSA'] as const)('is accepted by openssl for a %s key', async kind => {
    const certificate = await enrollAs(d, testKey(kind))
    writeFileSync(join(k.folder, 'ca.pem'), k.ca.pem)
    writeFileSync(join(k.folder, 'leaf.pem'), encodePem('CERTIFICATE', certificate))
    const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: k.folder, encoding: 'utf8' })
    const at = ['-attime', String(k.clock.at), '-x509_strict', '-purpose', 'sslclient']
    expect(openssl('verify', ...at, '-CAfile', 'ca.pem', 'leaf.pem')).toBe('leaf.pem: OK\n')
    const text = openssl('x509', '-in', 'leaf.pem', '-noout', '-text')
    for (const part of [
      'Version: 3 (0x2)',
      'CN = m-1, serialNumber = m-1',
      'X509v3 Key Usage: critical\n                Digital Signature\n',
    ])
      expect(text).toContain(part)
    for (const part of [
      'TLS Web Client Authentication',
      'CA:FALSE',
      'URI:spiffe://acme.example/meters/m-1',
      'X509v3 Authority Key Identifier',
    ])
      expect(text).toContain(part)
  })

  it('does not outlive the issuer, and is not made when the issuer is about to end', async () => {
    const end = k.clock.at + 3600
    const ending = await kernel({ of: k, issuer: issuer => ({ ...issuer, certificate: { ...issuer.certificate, notAfter: end } }) })
    const ask = () => ending.enroll(d.peer(), csrFor(testKey(), nameOf('m-1')))
    expect(parseCertificate(issuedBy(await ask())).notAfter).toBe(end)
    ending.clock.at = end + 600
    expect(await ask()).toMatchObject({ kind: 'unavailable', code: 'issuer_unavailable' })
    await ending.close()
  })

  it('comes with what leads to the root, and /cacerts has the root too', async () => {
    expect(k.enrollment.caCertificates(null)).toEqual([k.ca.certificate])
    expect(k.enrollment.caCertificates('elsewhere')).toEqual([])
  })
})

describe('who may', () => {
  it('refuses who brings nothing, a foreign birth certificate, an operational one of elsewhere, or a broken one', async () => {
    const csr = csrFor(testKey(), nameOf('m-1'))
    const code = async (peer: Parameters<Kernel['enroll']>[0]) => await k.enroll(peer, csr)
    expect(await code(peerWith(null))).toMatchObject({ kind: 'unauthenticated', code: 'credentials_required' })
    const foreign = testAuthority('Other maker')
    const request = {
      profile: 'birth' as const,
      subject: nameOf('x', 'm-1'),
      spki: d.birthKey.spki,
      notBefore: 0,
      notAfter: k.clock.at - 1,
    }
    expect(await code(peerWith([foreign.issue({ ...request, notAfter: k.clock.at + 1 })]))).toMatchObject({
      code: 'certificate_untrusted',
    })
    expect(await code(peerWith([k.maker.issue(request), k.maker.certificate]))).toMatchObject({ code: 'certificate_expired' })
    expect(
      await code(
        peerWith([k.maker.issue({ ...request, subject: nameOf('no serial'), notAfter: k.clock.at + 1 }), k.maker.certificate]),
      ),
    ).toMatchObject({
      code: 'certificate_not_birth',
    })
    const odd = k.maker.issue({ ...request, subject: nameOf('x', 'a/b'), notAfter: k.clock.at + 1 })
    expect(await code(peerWith([odd, k.maker.certificate]))).toMatchObject({ kind: 'refused', code: 'device_id_not_allowed' })
    const selfMade = k.ca.issue({ ...request, profile: 'client', notAfter: k.clock.at + 1 })
    expect(await code(peerWith([selfMade]))).toMatchObject({ kind: 'unauthenticated', code: 'certificate_unknown' })
    expect(await code(peerWith([d.birth.subarray(0, 100)]))).toMatchObject({ code: 'certificate_malformed' })
    expect(await code(peerWith([new Uint8Array(certificateBytesMax + 1)]))).toMatchObject({ code: 'certificate_malformed' })
    expect(k.signatures()).toBe(0)
  })

  it('admits only serials of the manifest, with the key they were born with', async () => {
    const stranger = k.bear('m-2')
    expect(await k.enroll(stranger.peer(), csrFor(testKey(), nameOf('m-2')))).toMatchObject({
      kind: 'refused',
      code: 'device_unknown',
    })
    const impostor = k.bear('m-1')
    expect(await k.enroll(impostor.peer(), csrFor(testKey(), nameOf('m-1')))).toMatchObject({
      kind: 'refused',
      code: 'device_key_mismatch',
    })
    expect(k.signatures()).toBe(0)
  })

  it('without a manifest pins the key at first sight', async () => {
    const open = await kernel({ of: k, profile: { requireManifest: false, groups: ['walk-in'] } })
    const stranger = k.bear('m-2')
    const c = parseCertificate(issuedBy(await open.enroll(stranger.peer(), csrFor(testKey(), nameOf('m-2')))))
    expect(membershipOf(c)?.gids).toHaveLength(1)
    expect(await open.enroll(k.bear('m-2').peer(), csrFor(testKey(), nameOf('m-2')))).toMatchObject({ code: 'device_key_mismatch' })
    expect(await open.enroll(k.bear('m-3', stranger.birthKey).peer(), csrFor(testKey(), nameOf('m-3')))).toMatchObject({
      code: 'device_key_mismatch',
    })
    await open.close()
  })

  it('[F11] takes the malleated twin of a certificate for the same device', async () => {
    const twin = malleatedTwin(d.birth)
    expect(Buffer.compare(twin, d.birth)).not.toBe(0)
    const key = testKey()
    const csr = csrFor(key, nameOf('m-1'))
    const first = issuedBy(await k.enroll(d.peer(), csr))
    expect(await k.enroll(peerWith([twin, k.maker.certificate]), csr)).toEqual(sameAs(first))
    const renewed = await renew(malleatedTwin(first), csrFor(testKey(), currentName('m-1')))
    expect(membershipOf(parseCertificate(issuedBy(renewed)))?.idx).toBe(2)
  })

  it('believes its own record and not the copy of an operational certificate that a peer brings', async () => {
    const key = testKey()
    const certificate = parseCertificate(await enrollAs(d, key))
    const other = testAuthority('Operational CA')
    // Same issuer name, same key, another name in it: the serial is not ours, or the record says who it is.
    const forged = other.issue({
      profile: 'client',
      subject: nameOf('m-9', 'm-9'),
      spki: key.spki,
      notBefore: 0,
      notAfter: k.clock.at + 9,
    })
    expect(await renew(forged, csrFor(testKey(), nameOf('m-9', 'm-9')))).toMatchObject({ code: 'certificate_unknown' })
    expect(certificate.serial).toHaveLength(16)
  })

  it('[F13] an endpoint × credential matrix: everything but the four named pairs is a no', async () => {
    const operational = await enrollAs(d, testKey())
    await k.device('m-3')
    const secret = await k.registry.mintSecret({ deviceId: 'm-2', lifetimeSeconds: 60, by: 'test' })
    const ask = async (operation: 'enroll' | 'reenroll', peer: Parameters<Kernel['enroll']>[0], id: string) => {
      const outcome = await k.enroll(peer, csrFor(testKey(), currentName(id)), { operation })
      return outcome.kind === 'issued' ? 'issued' : 'code' in outcome ? outcome.code : outcome.kind
    }
    const basic = { user: secret.user, password: secret.password }
    expect(await ask('reenroll', d.peer(), 'm-1')).toBe('birth_certificate_on_reenroll')
    expect(await ask('reenroll', peerWith(null, { basic }), 'm-2')).toBe('operational_certificate_required')
    expect(await ask('reenroll', peerWith(null), 'm-1')).toBe('credentials_required')
    expect(await ask('enroll', peerWith([operational]), 'm-1')).toBe('issued')
    // What comes by simpleenroll is a renewal all the same, under the rules of renewals.
    expect(await ask('enroll', peerWith([operational]), 'm-2')).toBe('subject_changed')
    expect(await ask('enroll', peerWith(null, { basic }), 'm-2')).toBe('issued')
    expect(await ask('reenroll', peerWith([operational]), 'm-1')).toBe('issued')
  })

  it('[F18] refuses every operation but the two, and unknown labels, before looking at anything else', async () => {
    const csr = csrFor(testKey(), nameOf('m-1'))
    for (const operation of [
      '',
      'ENROLL',
      'serverkeygen',
      '__proto__',
      'constructor',
      ...Array.from({ length: 256 }, (_, i) => String(i)),
    ])
      expect(await k.enroll(d.peer(), csr, { operation: operation as 'enroll' })).toMatchObject({
        kind: 'refused',
        code: 'operation_unknown',
      })
    for (const label of ['', 'x', '__proto__', 'constructor'])
      expect(await k.enroll(d.peer(), csr, { label })).toMatchObject({ kind: 'refused', code: 'label_unknown' })
    expect(k.signatures()).toBe(0)
  })

  it('refuses whose status is revoked or cannot be told', async () => {
    await enrollAs(d, testKey())
    let verdict: 'good' | 'revoked' | 'unknown' = 'revoked'
    const judged = await kernel({ of: k, status: () => verdict })
    const ask = () => judged.enroll(d.peer(), csrFor(testKey(), nameOf('m-1')))
    expect(await ask()).toMatchObject({ kind: 'refused', code: 'device_revoked' })
    verdict = 'unknown'
    expect(await ask()).toMatchObject({ kind: 'refused', code: 'status_unknown' })
    verdict = 'nonsense' as 'good'
    expect(await ask()).toMatchObject({ kind: 'refused', code: 'status_unknown' })
    await judged.close()
  })

  it('[F12] asks for the status at every request of a connection', async () => {
    const peer = d.peer()
    const certificate = issuedBy(await k.enroll(peer, csrFor(testKey(), nameOf('m-1'))))
    const operational = peerWith([certificate])
    expect((await k.enroll(operational, csrFor(testKey(), currentName('m-1')), { operation: 'reenroll' })).kind).toBe('issued')
    await k.revocation.revokeGroup({ group: 'batch=1', by: 'test' })
    expect(await k.enroll(operational, csrFor(testKey(), currentName('m-1')), { operation: 'reenroll' })).toMatchObject({
      code: 'group_revoked',
    })
    expect(await k.enroll(peer, csrFor(testKey(), nameOf('m-1')))).toMatchObject({ code: 'group_revoked' })
  })

  it('a revoked device proves its birth certificate again only where the profile says so, and is then what it was but for the revoked group', async () => {
    const readmitting = await kernel({ profile: { readmission: 'birth' } })
    const device = await readmitting.device('m-1', ['batch=1', 'model=x'])
    const ask = (peer: ReturnType<TestDevice['peer']>, key: TestKey, more = {}) =>
      readmitting.enroll(peer, csrFor(key, nameOf('m-1')), more)
    const stolen = testKey()
    const old = issuedBy(await ask(device.peer(), stolen))
    await readmitting.revocation.revokeGroup({ group: 'batch=1', by: 'test' })
    // Not by what was revoked, and not with the key that was.
    const renewing = await readmitting.enroll(peerWith([old]), csrFor(testKey(), currentName('m-1')), { operation: 'reenroll' })
    expect(renewing).toMatchObject({ code: 'group_revoked' })
    expect(await ask(device.peer(), stolen)).toMatchObject({ code: 'key_revoked' })
    const again = issuedBy(await ask(device.peer(), testKey()))
    const [before, after] = [old, again].map(der => membershipOf(parseCertificate(der)))
    expect(after).toEqual({ fleet: 'meters', idx: (before?.idx ?? 0) + 1, gids: before?.gids.filter(gid => gid !== 1) })
    // From then on as any other: it renews, and of new keys by birth one is a device that was reset and two are two devices.
    const next = await readmitting.enroll(peerWith([again]), csrFor(testKey(), currentName('m-1')), { operation: 'reenroll' })
    expect(membershipOf(parseCertificate(issuedBy(next)))?.gids).toEqual(after?.gids)
    issuedBy(await ask(device.peer(), testKey()))
    expect(await ask(device.peer(), testKey())).toMatchObject({ code: 'clone_suspected' })
    expect(await ask(device.peer(), stolen)).toMatchObject({ kind: 'refused' })
    expect(await readmitting.store.check()).toEqual([])
    await readmitting.remove()
  })

  it('answers a device that renews in a loop with 429 and a time to come again, and records that once', async () => {
    let certificate = issuedBy(await k.enroll(d.peer(), csrFor(testKey(), nameOf('m-1'))))
    const key = testKey()
    for (let i = 1; i < 64; i++) certificate = issuedBy(await renew(certificate, csrFor(testKey(), currentName('m-1'))))
    const over = { kind: 'unavailable', code: 'certificates_too_often', retryAfterSeconds: 60 }
    for (let i = 0; i < 5; i++) expect(await renew(certificate, csrFor(key, currentName('m-1')))).toMatchObject(over)
    expect((await k.audit()).filter(({ code }) => code === 'certificates_too_often')).toHaveLength(1)
    k.clock.at += 60
    const last = issuedBy(await renew(certificate, csrFor(key, currentName('m-1'))))
    // What makes no certificate costs nothing of it.
    for (let i = 0; i < 3; i++) expect(issuedBy(await renew(certificate, csrFor(key, currentName('m-1'))))).toEqual(last)
  })

  it.each([
    ['fails', 'store_failed', 0],
    ['may have failed', 'store_unknown', 0],
    ['fails once the certificate is signed', 'store_failed', 64],
  ] as const)('a store that %s takes from a device’s budget what the key was asked for, and no more', async (_, code, signed) => {
    let away = false
    const fail = () => Promise.reject(new EstServerError(code, 'away'))
    const failing = await kernel({
      between: store => ({
        ...store,
        recordIntent: intent => (away && signed === 0 ? fail() : store.recordIntent(intent)),
        recordCertificate: issued => (away && signed > 0 ? fail() : store.recordCertificate(issued)),
      }),
    })
    const [device, key] = [await failing.device('m-1'), testKey()]
    const ask = () => failing.enroll(device.peer(), csrFor(key, nameOf('m-1')))
    away = true
    for (let i = 0; i < 64; i++) expect(await ask()).toMatchObject({ kind: 'unavailable', code: 'store_unavailable' })
    expect(failing.signatures()).toBe(signed)
    away = false
    if (signed > 0) {
      // One who was refused every time has had as many signatures as one who was not.
      expect(await ask()).toMatchObject({ code: 'certificates_too_often' })
      failing.clock.at += 60
    }
    issuedBy(await ask())
    expect(failing.signatures()).toBe(signed + 1)
    await failing.remove()
  })

  it('takes from a device’s budget a certificate that the last look stopped: the alarms and indices that one device costs are bounded', async () => {
    let broken = true
    const strict = await kernel({ lints: [c => (broken && nameText(c.subject).includes('m-1') ? 'not this one' : null)] })
    const [device, other, key] = [await strict.device('m-1'), await strict.device('m-2'), testKey()]
    const ask = () => strict.enroll(device.peer(), csrFor(key, nameOf('m-1')))
    for (let i = 0; i < 64; i++) expect(await ask()).toMatchObject({ kind: 'unavailable', code: 'lint_failed' })
    for (let i = 0; i < 5; i++) expect(await ask()).toMatchObject({ code: 'certificates_too_often', retryAfterSeconds: 60 })
    expect(strict.logged.filter(({ level }) => level === 'error')).toHaveLength(64)
    expect((await strict.audit()).filter(({ code }) => code === 'certificates_too_often')).toHaveLength(1)
    expect(strict.signatures()).toBe(0)
    // Of the same server, another device.
    issuedBy(await strict.enroll(other.peer(), csrFor(testKey(), nameOf('m-2'))))
    broken = false
    strict.clock.at += 60
    issuedBy(await ask())
    await strict.remove()
  })

  it('takes nothing from a device’s budget while the issuer’s key is away', async () => {
    let away = true
    const failing = await kernel({ issuer: issuer => ({ ...issuer, unready: () => (away ? 'unplugged' : null) }) })
    const device = await failing.device('m-1')
    const ask = () => failing.enroll(device.peer(), csrFor(testKey(), nameOf('m-1')))
    for (let i = 0; i < 65; i++) expect(await ask()).toMatchObject({ kind: 'unavailable', code: 'issuer_unavailable' })
    away = false
    issuedBy(await ask())
    await failing.remove()
  })

  it('sees a birth certificate expire during a connection', async () => {
    const birth = k.maker.issue({
      profile: 'birth',
      subject: nameOf('x', 'm-1'),
      spki: d.birthKey.spki,
      notBefore: 0,
      notAfter: k.clock.at + 100,
    })
    const peer = peerWith([birth, k.maker.certificate])
    const csr = csrFor(testKey(), nameOf('m-1'))
    expect((await k.enroll(peer, csr)).kind).toBe('issued')
    k.clock.at += 101
    expect(await k.enroll(peer, csr)).toMatchObject({ kind: 'unauthenticated', code: 'certificate_expired' })
  })
})

describe('what is asked', () => {
  const san = (tag: number, text: string) =>
    encodeExtension(SUBJECT_ALT_NAME, false, encodeSequence([encodeElement(tag, [Buffer.from(text)])]))
  const purposes = (...oids: string[]) =>
    encodeExtension(EXTENDED_KEY_USAGE, false, encodeSequence(oids.map(oid => encodeElement(6, [bytesOfHex(oid)]))))

  it.each([
    [
      'CA:true',
      encodeExtension(BASIC_CONSTRAINTS, true, encodeSequence([encodeElement(1, [new Uint8Array([0xff])])])),
      'ca_not_allowed',
    ],
    ['keyCertSign', encodeExtension(KEY_USAGE, true, new Uint8Array([3, 2, 2, 4])), 'key_usage_not_allowed'],
    ['serverAuth', purposes('2b06010505070302', '2b06010505070301'), 'extended_key_usage_not_allowed'],
    ['anyExtendedKeyUsage', purposes('551d2500'), 'extended_key_usage_not_allowed'],
    ["another device's URI", san(0x86, 'spiffe://acme.example/meters/m-2'), 'subject_alt_name_not_allowed'],
    ['a host name', san(0x82, 'm-1'), 'subject_alt_name_not_allowed'],
    ['a fleet extension', encodeExtension('69d9e9e453', false, encodeSequence([])), 'extension_not_allowed'],
    ['an unreadable extension', encodeExtension(KEY_USAGE, true, new Uint8Array([3, 9])), 'csr_malformed'],
  ])('[F16] a CSR that asks for %s is refused by name', async (_, extension, code) => {
    expect(await k.enroll(d.peer(), csrFor(testKey(), nameOf('m-1'), { extensions: [extension] }))).toMatchObject({
      kind: 'refused',
      code,
    })
    expect(k.signatures()).toBe(0)
    expect((await k.audit()).at(-1)).toMatchObject({ kind: 'enrollment_refused', code, device: 'm-1' })
  })

  it('[F16] a subject other than the own id is refused; the own id, the birth name and none are taken', async () => {
    for (const subject of [
      nameOf('m-2'),
      nameOf('m-1', 'm-2'),
      encodeName([
        { oid: ORGANIZATION, value: 'Evil' },
        { oid: COMMON_NAME, value: 'm-1' },
      ]),
    ])
      expect(await k.enroll(d.peer(), csrFor(testKey(), subject))).toMatchObject({ kind: 'refused', code: 'subject_not_own' })
    const key = testKey()
    for (const subject of [
      nameOf('m-1'),
      nameOf('m-1', 'm-1'),
      nameOf('Meter model 7', 'm-1'),
      encodeName([{ oid: SERIAL_NUMBER, value: 'm-1' }]),
      encodeSequence([]),
    ])
      expect((await k.enroll(d.peer(), csrFor(key, subject))).kind).toBe('issued')
  })

  it('what the profile gives anyway may be asked for', async () => {
    const extensions = [
      encodeExtension(BASIC_CONSTRAINTS, true, encodeSequence([])),
      encodeExtension(KEY_USAGE, true, new Uint8Array([3, 2, 7, 0x80])),
      purposes('2b06010505070302'),
      san(0x86, 'spiffe://acme.example/meters/m-1'),
    ]
    expect((await k.enroll(d.peer(), csrFor(testKey(), nameOf('m-1'), { extensions }))).kind).toBe('issued')
  })

  it('[F17] a renewal with another subject or alternative name is refused [RFC 7030 4.2.2]', async () => {
    const certificate = await enrollAs(d, testKey())
    await k.device('m-2')
    for (const subject of [nameOf('m-2', 'm-2'), nameOf('m-1'), encodeSequence([]), nameOf('m-1', 'm-2')])
      expect(await renew(certificate, csrFor(testKey(), subject))).toMatchObject({ kind: 'refused', code: 'subject_changed' })
    const extensions = [san(0x86, 'spiffe://acme.example/meters/m-2')]
    expect(await renew(certificate, csrFor(testKey(), currentName('m-1'), { extensions }))).toMatchObject({
      code: 'subject_alt_name_not_allowed',
    })
    expect(k.signatures()).toBe(1)
  })

  it('[F20] a bad CSR signature is refused with no call of the signer', async () => {
    const csr = csrFor(testKey(), nameOf('m-1'), { signer: testKey() })
    expect(await k.enroll(d.peer(), csr)).toMatchObject({ kind: 'refused', code: 'csr_signature' })
    const cut = csrFor(testKey(), nameOf('m-1'))
    cut[cut.length - 1] ^= 1
    expect(await k.enroll(d.peer(), cut)).toMatchObject({ kind: 'refused', code: 'csr_signature' })
    expect(await k.enroll(d.peer(), cut.subarray(0, 50))).toMatchObject({ kind: 'refused', code: 'csr_malformed' })
    expect(k.signatures()).toBe(0)
    expect((await k.audit()).filter(r => r.code === 'csr_signature')).toHaveLength(2)
  })

  it.each([
    ['RSA-1024', () => testKey('RSA', 1024), 'key_weak'],
    ['an exponent of 3', () => testKey('RSA', 2048, 3), 'key_weak'],
  ])('[F73] %s is refused before its signature is looked at', async (_, make, code) => {
    expect(await k.enroll(d.peer(), csrFor(make(), nameOf('m-1'), { signer: testKey() }))).toMatchObject({ kind: 'refused', code })
  })

  it('[RFC 7030 3.5] a profile that wants the channel binding takes no CSR without one', async () => {
    const k = await kernel({ profile: { possession: 'channel' } })
    const device = await k.device('m-1')
    const exporter = new Uint8Array(32).fill(5)
    const peer = { ...device.peer(), tlsExporter: exporter }
    expect(await k.enroll(peer, csrFor(testKey(), nameOf('m-1')))).toMatchObject({
      kind: 'refused',
      code: 'channel_binding_required',
    })
    expect(k.signatures()).toBe(0)
    const bound = csrFor(testKey(), nameOf('m-1'), { challengePassword: encodeBase64(exporter, 0) })
    expect(await k.enroll(device.peer(), bound)).toMatchObject({ kind: 'refused', code: 'channel_binding_mismatch' })
    expect(await k.enroll(peer, bound)).toMatchObject({ kind: 'issued' })
    await k.remove()
  })

  it('[F21] [F22] a CSR bound to another TLS session, or to a resumed one, is refused [RFC 7030 3.5]', async () => {
    const exporter = new Uint8Array(32).fill(7)
    const bound = encodeBase64(exporter, 0)
    const key = testKey()
    const ask = (challengePassword: string, more: object) =>
      k.enroll({ ...d.peer(), ...more }, csrFor(key, nameOf('m-1'), { challengePassword }))
    expect(await ask(bound, { tlsExporter: new Uint8Array(32).fill(8) })).toMatchObject({ code: 'channel_binding_mismatch' })
    expect(await ask('hunter2', { tlsExporter: exporter })).toMatchObject({ code: 'channel_binding_mismatch' })
    expect(await ask(bound, {})).toMatchObject({ code: 'channel_binding_mismatch' })
    expect(await ask(bound, { tlsExporter: exporter, resumed: true })).toMatchObject({ code: 'channel_binding_mismatch' })
    expect(k.signatures()).toBe(0)
    expect(await ask(bound, { tlsExporter: exporter })).toMatchObject({ kind: 'issued', again: false })
    // After a lost answer the same key asks on another connection: the binding differs, the request is the same.
    const next = new Uint8Array(12).fill(9)
    expect(await ask(encodeBase64(next, 0), { tlsUnique: next })).toMatchObject({ kind: 'issued', again: true })
  })

  it('[F23] two devices that ask with one key at the same moment are not both given a certificate', async () => {
    const others = await Promise.all(['m-2', 'm-3', 'm-4'].map(id => k.device(id)))
    const key = testKey()
    const outcomes = await Promise.all(others.map(other => k.enroll(other.peer(), csrFor(key, nameOf(other.id)))))
    expect(outcomes.filter(({ kind }) => kind === 'issued')).toHaveLength(1)
    expect(k.signatures()).toBe(1)
    expect(await k.enroll(others[0].peer(), csrFor(key, nameOf('m-2')))).toMatchObject(
      outcomes[0].kind === 'issued' ? { again: true } : { code: 'key_of_another_device' },
    )
  })

  it('[F23] the birth key, a CA key, the key of another device or of a superseded certificate is refused', async () => {
    const other = await k.device('m-2')
    const otherKey = testKey()
    await enrollAs(other, otherKey)
    const caKey = keyOf((await import('node:crypto')).createPrivateKey(k.ca.privateKeyPem), 'ecdsa-sha256')
    const makerKey = keyOf((await import('node:crypto')).createPrivateKey(k.root.privateKeyPem), 'ecdsa-sha256')
    for (const [key, code] of [
      [d.birthKey, 'key_is_birth_key'],
      [caKey, 'key_is_ca_key'],
      [makerKey, 'key_is_ca_key'],
      [otherKey, 'key_of_another_device'],
      [other.birthKey, 'key_of_another_device'],
    ] as const)
      expect(await k.enroll(d.peer(), csrFor(key, nameOf('m-1')))).toMatchObject({ kind: 'refused', code })
    const old = testKey()
    await enrollAs(d, old)
    await enrollAs(d, testKey())
    expect(await k.enroll(d.peer(), csrFor(old, nameOf('m-1')))).toMatchObject({ kind: 'refused', code: 'key_revoked' })
  })
})

describe('renewal', () => {
  it('takes a new key or the same; the old certificate stays until the new one is used, then it is superseded', async () => {
    const first = await enrollAs(d, testKey())
    const csr = csrFor(testKey(), currentName('m-1'))
    const second = issuedBy(await renew(first, csr))
    // The answer was lost: the first still renews. Once the second is used, it does not.
    expect(await renew(first, csr)).toEqual(sameAs(second))
    const next = testKey()
    const third = issuedBy(await renew(second, csrFor(next, currentName('m-1'))))
    expect(await renew(second, csrFor(next, currentName('m-1')))).toEqual(sameAs(third))
    expect(await renew(first, csrFor(testKey(), currentName('m-1')))).toMatchObject({
      kind: 'refused',
      code: 'certificate_superseded',
    })
    k.clock.at += 86_401
    expect(await renew(third, csrFor(testKey(), currentName('m-1')))).toMatchObject({
      kind: 'unauthenticated',
      code: 'certificate_expired',
    })
  })

  it('with the same key and CSR gives a new certificate, not the one that authenticates', async () => {
    const key = testKey()
    const first = await enrollAs(d, key)
    const csr = csrFor(key, currentName('m-1'))
    const second = await renew(first, csr)
    expect(second).toMatchObject({ kind: 'issued', again: false })
    expect(await renew(first, csr)).toEqual(sameAs(issuedBy(second)))
    expect(await renew(issuedBy(second), csr)).toMatchObject({ kind: 'issued', again: false })
  })

  it('after expiry goes by the birth certificate, without suspicion', async () => {
    for (let i = 0; i < 4; i++) {
      await enrollAs(d, testKey())
      k.clock.at += 86_401
    }
    expect(k.signatures()).toBe(4)
  })
})

it('[F39] a stranger who knocks in a second of wrong time halts nothing', async () => {
  k.clock.at += 365 * 86_400
  expect(await k.enroll(peerWith(null), new Uint8Array(0))).toMatchObject({ code: 'credentials_required' })
  k.clock.at -= 365 * 86_400
  await enrollAs(d, testKey())
})

describe('the same request', () => {
  it('[F24] fifty in parallel, also signed anew each, get one certificate', async () => {
    const key = testKey()
    const outcomes = await Promise.all(Array.from({ length: 50 }, () => k.enroll(d.peer(), csrFor(key, nameOf('m-1')))))
    expect(new Set(outcomes.map(o => hexOf(issuedBy(o)))).size).toBe(1)
    expect(outcomes.filter(o => o.kind === 'issued' && !o.again)).toHaveLength(1)
    expect(k.signatures()).toBe(1)
    expect((await k.audit()).filter(r => r.kind === 'certificate_returned')).toHaveLength(49)
  })

  it('[F24] two servers on one store give one certificate', async () => {
    const other = await kernel({ of: k })
    const key = testKey()
    const outcomes = await Promise.all(
      Array.from({ length: 20 }, (_, i) => (i % 2 ? other : k).enroll(d.peer(), csrFor(key, nameOf('m-1')))),
    )
    const certificates = new Set(outcomes.filter(o => o.kind === 'issued').map(o => hexOf(issuedBy(o))))
    expect(certificates.size).toBe(1)
    for (const o of outcomes) if (o.kind !== 'issued') expect(o).toMatchObject({ kind: 'unavailable', code: 'busy' })
    expect((await k.audit()).filter(r => r.kind === 'certificate_issued')).toHaveLength(1)
    await other.close()
  })

  it('gets a new certificate once the old one is due for renewal', async () => {
    const csr = csrFor(testKey(), nameOf('m-1'))
    const first = issuedBy(await k.enroll(d.peer(), csr))
    k.clock.at += 57_000
    expect(await k.enroll(d.peer(), csr)).toMatchObject({ again: true })
    k.clock.at += 1_000
    const second = await k.enroll(d.peer(), csr)
    expect(second).toMatchObject({ again: false })
    expect(hexOf(issuedBy(second))).not.toBe(hexOf(first))
  })

  it('turns away a device whose requests pile up', async () => {
    const csr = csrFor(testKey(), nameOf('m-1'))
    const outcomes = await Promise.all(Array.from({ length: 100 }, () => k.enroll(d.peer(), csr)))
    expect(outcomes.filter(o => o.kind === 'issued')).toHaveLength(64)
    expect(outcomes.filter(o => o.kind === 'unavailable' && o.code === 'busy')).toHaveLength(36)
  })
})

describe('a gateway', () => {
  it('carries with its last certificate until the next one was used, be it to carry or for itself', async () => {
    const site = await kernel({ profile: { gateways: ['role=gateway'] } })
    const proof = { bytes: new Uint8Array(1), path: '/.well-known/est/simpleenroll', bodySha256: new Uint8Array(32) }
    // The gateway is judged before what it carries, which is no proof here.
    const [carried, refused] = ['proof_refused', 'gateway_not_admitted'].map(code => ({ code }))
    const carry = (certificate: Bytes) => site.enroll(peerWith([certificate]), csrFor(testKey(), nameOf('m-2')), { proof })
    const show = (certificate: Bytes) => site.enrollment.noteUse(peerWith([certificate]), null)
    for (const use of [carry, show]) {
      const id = `gw-${use.name}`
      const gateway = await site.device(id, ['role=gateway'])
      const first = issuedBy(await site.enroll(gateway.peer(), csrFor(testKey(), nameOf(id))))
      const renewal = csrFor(testKey(), currentName(id))
      const second = issuedBy(await site.enroll(peerWith([first]), renewal, { operation: 'reenroll' }))
      expect(await carry(first), id).toMatchObject(carried)
      await use(second)
      expect(await carry(first), id).toMatchObject(refused)
      expect(await carry(second), id).toMatchObject(carried)
    }
    expect(await site.store.check()).toEqual([])
    await site.remove()
  })
})

describe('clones', () => {
  it('[F25] a new key beside a live one supersedes it once; the next time within the window is refused with an alarm', async () => {
    const first = await enrollAs(d, testKey())
    await enrollAs(d, testKey())
    expect(await renew(first, csrFor(testKey(), currentName('m-1')))).toMatchObject({ code: 'certificate_superseded' })
    expect(await k.enroll(d.peer(), csrFor(testKey(), nameOf('m-1')))).toMatchObject({ kind: 'refused', code: 'clone_suspected' })
    expect(k.logged.filter(l => l.level === 'error' && l.message.startsWith('alarm'))).toHaveLength(1)
    k.clock.at += 7 * 86_400 + 1
    expect((await k.enroll(d.peer(), csrFor(testKey(), nameOf('m-1')))).kind).toBe('issued')
  })

  it('[F26] two holders of one identity, wherever they ask from: both are held back until an operator has looked', async () => {
    const first = await enrollAs(d, testKey())
    const name = currentName('m-1')
    const genuine = issuedBy(await renew(first, csrFor(testKey(), name)))
    const clone = issuedBy(await renew(first, csrFor(testKey(), name)))
    expect(await renew(genuine, csrFor(testKey(), name))).toMatchObject({ kind: 'refused', code: 'clone_suspected' })
    for (const certificate of [clone, genuine, clone])
      expect(await renew(certificate, csrFor(testKey(), name))).toMatchObject({ kind: 'refused', code: 'clone_suspected' })
    expect(await k.enroll(d.peer(), csrFor(testKey(), nameOf('m-1')))).toMatchObject({ code: 'clone_suspected' })
    expect(k.logged.filter(l => l.level === 'error' && l.message.startsWith('alarm'))).toHaveLength(1)
    expect((await k.audit()).filter(r => r.kind === 'clone_suspected')).toHaveLength(1)
    expect(await k.registry.device('m-1')).toMatchObject({ suspectedAt: k.clock.at })
    expect(await k.registry.liftSuspicion({ deviceId: 'm-1', by: 'ops', reason: 'bench unit' })).toBe(true)
    expect(await k.registry.liftSuspicion({ deviceId: 'nobody', by: 'ops', reason: '' })).toBe(false)
    expect((await renew(genuine, csrFor(testKey(), name))).kind).toBe('issued')
  })

  it('[F26] a certificate that was shown once, as by a cacerts, leaves nothing to the holder of the key before', async () => {
    const first = await enrollAs(d, testKey())
    const name = currentName('m-1')
    const second = issuedBy(await renew(first, csrFor(testKey(), name)))
    const peer = peerWith([second])
    await k.enrollment.noteUse(peer, null)
    await k.enrollment.noteUse(peer, null)
    await k.enrollment.noteUse(peerWith([second]), null)
    // The older one, a birth certificate and a stranger's change nothing.
    for (const chain of [[first], [d.birth], [testAuthority('Nobody').certificate], [new Uint8Array(3)], null])
      await k.enrollment.noteUse(peerWith(chain), null)
    expect((await k.audit()).filter(r => r.kind === 'certificate_used')).toHaveLength(1)
    expect(await renew(first, csrFor(testKey(), name))).toMatchObject({ kind: 'refused', code: 'certificate_superseded' })
    expect((await renew(second, csrFor(testKey(), name))).kind).toBe('issued')
  })

  it('[F25] two keys at once: one after the other, the third is refused', async () => {
    const outcomes = await Promise.all([1, 2, 3, 4].map(() => k.enroll(d.peer(), csrFor(testKey(), nameOf('m-1')))))
    expect(outcomes.map(o => (o.kind === 'issued' ? 'issued' : 'code' in o ? o.code : ''))).toEqual([
      'issued',
      'issued',
      'clone_suspected',
      'clone_suspected',
    ])
  })
})

describe('one-time secrets', () => {
  const mint = async (id = 'm-2') => {
    const { user, password } = await k.registry.mintSecret({ deviceId: id, groups: ['late'], lifetimeSeconds: 600, by: 'test' })
    return { user, password }
  }

  it('[F27] a secret admits one request of its device, also across a restart', async () => {
    const basic = await mint()
    const csr = csrFor(testKey(), nameOf('m-2'))
    const first = issuedBy(await k.enroll(peerWith(null, { basic }), csr))
    const later = await kernel({ of: k, profile: { admitSecrets: true } })
    expect(await later.enroll(peerWith(null, { basic }), csr)).toEqual(sameAs(first))
    expect(await later.enroll(peerWith(null, { basic }), csrFor(testKey(), nameOf('m-2')))).toMatchObject({
      kind: 'unauthenticated',
      code: 'secret_used',
    })
    // Due for renewal, the secret is not what renews.
    later.clock.at += 500
    expect((await later.audit()).filter(r => r.kind === 'certificate_issued')).toHaveLength(1)
    await later.close()
  })

  it('refuses the wrong secret, the right one for another device, an expired one, and one where none is taken', async () => {
    const basic = await mint()
    const csr = csrFor(testKey(), nameOf('m-2'))
    const ask = (credentials: { user: string; password: string }) => k.enroll(peerWith(null, { basic: credentials }), csr)
    expect(await ask({ ...basic, password: 'wrong' })).toMatchObject({ kind: 'unauthenticated', code: 'secret_refused' })
    expect(await ask({ ...basic, user: 'm-1' })).toMatchObject({ code: 'secret_refused' })
    expect(await ask({ user: 'x'.repeat(500), password: 'x' })).toMatchObject({ code: 'secret_refused' })
    expect(await ask({ ...basic, password: 'x'.repeat(10_000) })).toMatchObject({ code: 'secret_refused' })
    k.clock.at += 600
    expect(await ask(basic)).toMatchObject({ kind: 'unauthenticated', code: 'secret_expired' })
    const strict = await kernel({ of: k })
    expect(await strict.enroll(peerWith(null, { basic }), csr)).toMatchObject({ kind: 'refused', code: 'secret_not_allowed' })
    await strict.close()
    expect(k.signatures()).toBe(0)
  })

  it('[F27] two requests race for one secret: one wins', async () => {
    const basic = await mint()
    const outcomes = await Promise.all([1, 2, 3].map(() => k.enroll(peerWith(null, { basic }), csrFor(testKey(), nameOf('m-2')))))
    expect(outcomes.filter(o => o.kind === 'issued')).toHaveLength(1)
    expect(outcomes.filter(o => 'code' in o && o.code === 'secret_used')).toHaveLength(2)
  })

  it('keeps no secret in the store', async () => {
    const basic = await mint()
    expect(await k.store.secret(sha256(Buffer.from(basic.password)))).toBeNull()
    expect(JSON.stringify(await k.audit())).not.toContain(basic.password)
  })
})

describe('audit', () => {
  it('writes one record a decision and bounds what garbage can write', async () => {
    const before = (await k.audit()).length
    for (let i = 0; i < 500; i++) await k.enroll(peerWith(null), new Uint8Array(3))
    const records = (await k.audit()).slice(before)
    expect(records).toHaveLength(64)
    k.clock.at += 10
    await k.enroll(peerWith(null), new Uint8Array(3))
    expect((await k.audit()).at(-1)?.detail).toMatch(/436 more since .* were not recorded/)
    // A device that can prove who it is has a budget of its own.
    await k.enroll(d.peer(), new Uint8Array(3))
    expect((await k.audit()).at(-1)).toMatchObject({ device: 'm-1', code: 'csr_malformed' })
  })
})
