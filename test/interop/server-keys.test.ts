// Keys that the server makes, opened by programs that nobody here wrote: `openssl cms` decrypts and verifies, and the key that comes out is the
// certificate's.

import { createHash, createPrivateKey, createPublicKey, generateKeyPair, sign } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import {
  type Bytes,
  bytesOfHex,
  csrAssemble,
  csrInfo,
  decodePem,
  encodeAttribute,
  encodeElement,
  encodePem,
  encodeSequence,
  hexOf,
  parseCertificate,
} from '@birthmark/device-sdk/core'
import { testAuthority } from '@birthmark/device-sdk/testing'
import { createServerKeys, keySigner, type ServerKeyOutcome } from '@birthmark/est-server'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  csrFor,
  type Kernel,
  kernel,
  nameOf,
  peerWith,
  type TestKey,
  testKey,
} from '../../packages/est-server/src/testing/kernel.ts'
import { available, run } from './debian.ts'

const signing = testAuthority('EST server')

/** A CSR with further attributes. */
function csrWith(key: TestKey, subject: Bytes, attributes: Bytes[]): Bytes {
  const info = csrInfo(subject, key.spki, attributes)
  return csrAssemble(info, key.algorithm, new Uint8Array(sign('sha256', info, key.privateKey)))
}

/** RFC 5280 4.2.1.2 (1) of a P-256 or RSA key. */
const keyIdOf = (key: TestKey) => {
  const der = Buffer.from(key.spki)
  const bits = key.algorithm.startsWith('ecdsa') ? der.subarray(-65) : der.subarray(24)
  return createHash('sha1').update(bits).digest()
}
const decryptWith = (id: Bytes) => encodeAttribute('2a864886f70d0109100236', [encodeElement(4, [id])])
const capabilities = (...oids: string[]) =>
  encodeAttribute('2a864886f70d01090f', [encodeSequence(oids.map(oid => encodeSequence([encodeElement(6, [bytesOfHex(oid)])])))])

describe.skipIf(!available({ openssl: 'openssl' }))('server-made keys', () => {
  let folder: string
  let k: Kernel
  let made = 0
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'birthmark-serverkey-'))
  })
  afterEach(async () => {
    await k.remove()
    rmSync(folder, { recursive: true })
  })

  async function open(serverKeys: boolean | 'plain', more: object = {}) {
    k = await kernel({ profile: { serverKeys, ...more } })
    const random = (n: number) => new Uint8Array(globalThis.crypto.getRandomValues(new Uint8Array(n)))
    const signer = keySigner([signing.certificate], signing.privateKeyPem)
    const log = { info() {}, warn() {}, error() {} }
    made = 0
    const keyPair = (type: string, options: object) => {
      made++
      return promisify(generateKeyPair)(type as 'ec', options as { namedCurve: 'P-256' })
    }
    const keys = createServerKeys({ ...{ enrollment: k.enrollment, signer, random, log, keyPair } })
    return (peer: Parameters<Kernel['enroll']>[0], csr: Bytes) =>
      keys.generate({ operation: 'enroll', label: null, csr, peer, requestId: 'r' })
  }

  function issued(outcome: ServerKeyOutcome) {
    if (outcome.kind !== 'issued') throw new Error(JSON.stringify(outcome))
    return outcome
  }

  /** What openssl makes of an envelope: the PKCS#8 inside. */
  async function opened(envelope: Bytes, key: TestKey, certificate?: Bytes): Promise<Buffer> {
    const file = (name: string, content: string | Bytes) => {
      writeFileSync(join(folder, name), content)
      return join(folder, name)
    }
    const recipient = certificate ? ['-recip', file('recipient.pem', encodePem('CERTIFICATE', certificate))] : []
    await run('openssl', [
      ...['cms', '-decrypt', '-inform', 'DER', '-in', file('enveloped.der', envelope), ...recipient],
      ...['-inkey', file('key.pem', key.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string)],
      ...['-binary', '-out', join(folder, 'signed.der')],
    ])
    await run('openssl', [
      ...['cms', '-verify', '-inform', 'DER', '-in', join(folder, 'signed.der'), '-purpose', 'any', '-binary'],
      ...['-CAfile', file('ca.pem', encodePem('CERTIFICATE', signing.certificate)), '-out', join(folder, 'package.der')],
    ])
    const whole = readFileSync(join(folder, 'package.der'))
    // AsymmetricKeyPackage: a SEQUENCE of one PKCS#8.
    return whole.subarray(whole[1] < 0x80 ? 2 : 2 + (whole[1] & 0x7f))
  }

  const spkiOf = (pkcs8: Buffer) =>
    new Uint8Array(
      createPublicKey(createPrivateKey({ key: pkcs8, type: 'pkcs8', format: 'der' })).export({ type: 'spki', format: 'der' }),
    )

  test.each(['P-256', 'P-384', 'RSA'] as const)(
    '[RFC 7030 4.4.2] a key encrypted to the %s key of the TLS certificate is opened by openssl, and is the one certified',
    async kind => {
      const generate = await open(true)
      const birthKey = testKey(kind)
      const device = k.bear('unit-1', birthKey)
      await k.registry.importManifest(
        [
          {
            serial: 'unit-1',
            spkiSha256: createHash('sha256').update(birthKey.spki).digest('hex'),
            groups: [],
            keyOrigin: 'device',
          },
        ],
        'test',
      )
      const outcome = issued(await generate(device.peer(), csrFor(testKey(), nameOf('unit-1'))))
      expect(outcome.enveloped).toBe(true)
      const pkcs8 = await opened(outcome.key, birthKey, device.birth)
      expect(hexOf(spkiOf(pkcs8))).toBe(hexOf(parseCertificate(outcome.certificate).spki))
    },
  )

  test('[RFC 7030 4.4.1.2] a key that the CSR names as its own to decrypt with, in the cipher that it can', async () => {
    const generate = await open(true)
    const device = await k.device('unit-1')
    const own = testKey()
    // AES-128-CBC alone.
    const csr = csrWith(own, nameOf('unit-1'), [capabilities('608648016503040102'), decryptWith(keyIdOf(own))])
    const outcome = issued(await generate(device.peer(), csr))
    // openssl finds a recipient by the key identifier of a certificate: one made for the purpose.
    expect(hexOf(outcome.key)).toContain('608648016503040102')
    const { stdout } = await run('openssl', ['cms', '-cmsout', '-print', '-inform', 'DER', '-in', await written(outcome.key)])
    expect(stdout).toMatch(/subjectKeyIdentifier|rKeyId/)
    writeFileSync(join(folder, 'own.key'), own.privateKey.export({ type: 'pkcs8', format: 'pem' }))
    const self = ['req', '-x509', '-new', '-key', join(folder, 'own.key'), '-subj', '/CN=x', '-addext', 'subjectKeyIdentifier=hash']
    const { stdout: holder } = await run('openssl', [...self])
    const pkcs8 = await opened(outcome.key, own, decodePem(holder, 'CERTIFICATE', 1)[0])
    expect(hexOf(spkiOf(pkcs8))).toBe(hexOf(parseCertificate(outcome.certificate).spki))
    expect(hexOf(parseCertificate(outcome.certificate).spki)).not.toBe(hexOf(own.spki))
  })

  async function written(bytes: Bytes): Promise<string> {
    writeFileSync(join(folder, 'shown.der'), bytes)
    return join(folder, 'shown.der')
  }

  test('no key is made for a device that has had too many certificates', async () => {
    const generate = await open(true, { supersedesMax: 100 })
    const device = await k.device('unit-1')
    const peer = device.peer()
    const ask = () => generate(peer, csrFor(testKey(), nameOf('unit-1')))
    // What one device gets at once (certificate-budget.ts).
    for (let i = 0; i < 64; i++) issued(await ask())
    expect(made).toBe(64)
    const over = { kind: 'unavailable', code: 'certificates_too_often', retryAfterSeconds: 60 }
    for (let i = 0; i < 2; i++) expect(await ask()).toMatchObject(over)
    expect(made).toBe(64)
    // As any other device in a loop it is recorded once.
    expect((await k.audit()).filter(({ code }) => code === over.code).length).toBe(1)
    k.clock.at += 60
    issued(await ask())
    expect(made).toBe(65)
  })

  test('no key is made for a device of which two holders are suspected', async () => {
    const generate = await open(true)
    const device = await k.device('unit-1')
    const ask = () => generate(device.peer(), csrFor(testKey(), nameOf('unit-1')))
    for (let i = 0; i < 2; i++) issued(await ask())
    // The request that makes it suspect has a key made for it; those that follow have not.
    const suspected = { kind: 'refused', code: 'clone_suspected' }
    for (let i = 0; i < 3; i++) expect(await ask()).toMatchObject(suspected)
    expect([made, k.signatures()]).toEqual([3, 2])
  })

  test('no key is made where the profile, the client or the recipient does not allow it', async () => {
    const refused = async (outcome: Promise<ServerKeyOutcome>) => {
      const said = await outcome
      expect([said.kind, k.signatures(), made]).toEqual([expect.stringMatching(/^(refused|unauthenticated)$/), 0, 0])
      return 'code' in said ? said.code : ''
    }
    let generate = await open(false)
    let device = await k.device('unit-1')
    expect(await refused(generate(device.peer(), csrFor(testKey(), nameOf('unit-1'))))).toBe('server_keys_not_allowed')
    await k.remove()
    generate = await open(true, { admitSecrets: true })
    device = await k.device('unit-1', ['batch=1'])
    const csr = (...attributes: Bytes[]) => csrWith(testKey(), nameOf('unit-1'), attributes)
    expect(await refused(generate(peerWith(null), csr()))).toBe('credentials_required')
    expect(await refused(generate(peerWith([signing.certificate]), csr()))).toBe('certificate_not_birth')
    expect(await refused(generate(device.peer(), csrFor(testKey(), nameOf('unit-1'), { signer: testKey() })))).toBe('csr_signature')
    expect(await refused(generate(device.peer(), csr(decryptWith(new Uint8Array(20)))))).toBe('key_recipient_unusable')
    // 3DES alone.
    expect(await refused(generate(device.peer(), csr(capabilities('2a864886f70d0307'))))).toBe('key_recipient_unusable')
    expect(
      await refused(
        generate(device.peer(), csr(encodeAttribute('2a864886f70d0109100225', [encodeElement(4, [new Uint8Array(4)])]))),
      ),
    ).toBe('key_recipient_unusable')
    const { user, password } = await k.registry.mintSecret({ deviceId: 'unit-2', lifetimeSeconds: 600, by: 'test' })
    expect(await refused(generate(peerWith(null, { basic: { user, password } }), csrFor(testKey(), nameOf('unit-2'))))).toBe(
      'key_recipient_unusable',
    )
    expect(await refused(generate(device.peer(), csrFor(testKey(), nameOf('unit-9'))))).toBe('subject_not_own')
    // Who is refused whatever the key: a device that no manifest lists, and one whose group is closed.
    expect(await refused(generate(k.bear('unit-8').peer(), csrFor(testKey(), nameOf('unit-8'))))).toBe('device_unknown')
    await k.revocation.revokeGroup({ group: 'batch=1', by: 'test' })
    expect(await refused(generate(device.peer(), csr()))).toBe('group_revoked')
    const { length } = (await k.audit()).filter(entry => entry.kind === 'enrollment_refused')
    expect(length).toBeGreaterThan(4)
  })

  test('[F42] the key is neither in the store nor in the log, and a plain one only where the profile says so', async () => {
    const generate = await open('plain')
    const device = await k.device('unit-1')
    const outcome = issued(await generate(device.peer(), csrFor(testKey(), nameOf('unit-1'))))
    expect(outcome.enveloped).toBe(false)
    const pkcs8 = Buffer.from(outcome.key)
    expect(hexOf(spkiOf(pkcs8))).toBe(hexOf(parseCertificate(outcome.certificate).spki))
    const scalar = Buffer.from(
      createPrivateKey({ key: pkcs8, type: 'pkcs8', format: 'der' }).export({ format: 'jwk' }).d as string,
      'base64url',
    )
    for (const name of readdirSync(k.folder)) expect(readFileSync(join(k.folder, name)).includes(scalar), name).toBe(false)
    expect(JSON.stringify(k.logged)).not.toContain(scalar.toString('hex'))
    // A client that names a key gets it encrypted all the same.
    const own = testKey()
    expect(issued(await generate(device.peer(), csrWith(own, nameOf('unit-1'), [decryptWith(keyIdOf(own))]))).enveloped).toBe(true)
  })
})
