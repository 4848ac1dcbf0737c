// Every kind of device key under every kind of CA: enrolled, renewed, and judged by validators that did not make the certificate.
import { X509Certificate } from 'node:crypto'
import {
  anchorOf,
  DIGITAL_SIGNATURE,
  defaultAlgorithms,
  encodeBase64,
  encodePem,
  parseCertificate,
  parseCertsOnly,
  validatePath,
} from '@birthmark/device-sdk/core'
import { generateTestKey, keyKinds, testAuthority } from '@birthmark/device-sdk/testing'
import { createListener } from '@birthmark/est-server'
import { afterEach, describe, expect, it } from 'vitest'
import {
  csrFor,
  issuedBy,
  type Kernel,
  kernel,
  keyOf,
  nameOf,
  peerWith,
  start,
  type TestKey,
} from '../../packages/est-server/src/testing/kernel.ts'
import { post, rawConnect } from '../support/raw-http.ts'
import { nodeVerify } from '../vectors/node-verify.ts'

const keys = ['P-256', 'P-384', 'Ed25519', 'RSA', 'ML-DSA-44', 'ML-DSA-65']
const algorithmOf = (kind: string) => (kind.startsWith('RSA') ? 'RSA' : kind)
const made = new Map<string, TestKey>()
/** Made once: RSA-4096 takes a second. */
const keyOfKind = (kind: (typeof keyKinds)[number]): TestKey => {
  const { privateKey, algorithm } = generateTestKey(kind)
  const key = made.get(kind) ?? keyOf(privateKey, algorithm)
  made.set(kind, key)
  return key
}

let k: Kernel
afterEach(() => k.remove())

describe.each(keyKinds)('a CA with a %s key', issuerKind => {
  it('issues to devices of every kind, and renews them', async () => {
    k = await kernel({ issuerKind, profile: { keys } })
    const issuer = parseCertificate(k.ca.certificate)
    const authority = new X509Certificate(k.ca.certificate)
    for (const kind of keyKinds) {
      const device = await k.device(`m-${kind}`)
      const key = keyOfKind(kind)
      const first = issuedBy(await k.enroll(device.peer(), csrFor(key, nameOf(device.id))))
      const renewal = generateTestKey(kind.startsWith('RSA') ? 'RSA-2048' : kind)
      const next = keyOf(renewal.privateKey, renewal.algorithm)
      const subject = parseCertificate(first).subject
      const renewed = issuedBy(await k.enroll(peerWith([first]), csrFor(next, subject), { operation: 'reenroll' }))
      for (const [der, of] of [
        [first, key],
        [renewed, next],
      ] as const) {
        const certificate = parseCertificate(der)
        expect(certificate.keyAlgorithm).toBe(algorithmOf(kind))
        // RFC 9881 5, RFC 8410 5: keys that sign have digitalSignature, and nothing here encrypts.
        expect(certificate.keyUsage).toBe(DIGITAL_SIGNATURE)
        expect(Buffer.compare(certificate.spki, of.spki)).toBe(0)
        const x509 = new X509Certificate(der)
        expect(x509.verify(authority.publicKey)).toBe(true)
        expect(x509.checkIssued(authority)).toBe(true)
        expect(x509.checkPrivateKey(of.privateKey)).toBe(true)
        const rules = { anchors: [anchorOf(issuer)], time: start, algorithms: defaultAlgorithms, purpose: null }
        let verdict: string | null = 'no answer'
        const more = { understoodCritical: [], depthMax: 4, signaturesMax: 4 }
        validatePath(certificate, [], { ...rules, ...more }, nodeVerify, error => {
          verdict = error?.message ?? null
        })
        expect(verdict).toBe(null)
      }
    }
    expect(await k.store.check()).toEqual([])
  })
})

it('the listener takes a client certificate of every kind, and renews it over TLS', async () => {
  k = await kernel({ issuerKind: 'ML-DSA-44', profile: { keys } })
  const root = testAuthority('Server root')
  const own = generateTestKey('P-256')
  const serverKey = keyOf(own.privateKey, own.algorithm)
  const cert = encodePem(
    'CERTIFICATE',
    root.issue({
      profile: 'server',
      subject: nameOf('localhost'),
      spki: serverKey.spki,
      notBefore: start - 86_400 * 900,
      notAfter: start + 86_400,
    }),
  )
  const pemOf = (key: TestKey) => key.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  let number = 0
  const log = { info() {}, warn() {}, error() {} }
  const listener = createListener({
    ...{ tls: { key: pemOf(serverKey), cert }, enrollment: k.enrollment, log, requestId: () => `tls-${++number}` },
  })
  const { port } = await listener.listen('127.0.0.1', 0)
  try {
    for (const kind of keyKinds) {
      const device = await k.device(`t-${kind}`)
      const key = keyOfKind(kind)
      const first = issuedBy(await k.enroll(device.peer(), csrFor(key, nameOf(device.id))))
      const connection = await rawConnect({ port, ca: root.pem, cert: encodePem('CERTIFICATE', first), key: pemOf(key) })
      const csr = csrFor(keyOf(generateTestKey('P-256').privateKey, 'ecdsa-sha256'), parseCertificate(first).subject)
      const answer = await connection.ask(post('/.well-known/est/simplereenroll', encodeBase64(csr, 64)))
      connection.close()
      expect([kind, answer?.status]).toEqual([kind, 200])
      expect(parseCertsOnly(Buffer.from(answer?.body ?? '', 'base64')).length).toBeGreaterThan(0)
    }
  } finally {
    await listener.close(1000)
  }
})
