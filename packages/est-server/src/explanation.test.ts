import { encodeSequence, parseCertificate } from '@birthmark/device-sdk/core'
import { afterEach, describe, expect, it } from 'vitest'
import type { EnrollmentRequest, Peer } from './enrollment-request.ts'
import { createExplanation, type ExplanationRequest } from './explanation.ts'
import { createApprovals } from './fleet/approvals.ts'
import { soleIssuer } from './issuer-set.ts'
import { enrollmentProfile, type ProfileOptions } from './registrar/profile.ts'
import { ruleOf } from './registrar/rule.ts'
import { csrFor, fleet, issuedBy, type Kernel, kernel, nameOf, peerWith, start, testKey } from './testing/kernel.ts'

let k: Kernel
afterEach(() => k.remove())

async function open(options: Partial<ProfileOptions> = {}) {
  k = await kernel({ profile: options })
  const profile = enrollmentProfile({ fleet, birthAnchors: [k.root.certificate], lifetimeSeconds: 86_400, ...options })
  const rules = async () => await k.store.rules(fleet)
  let closed = await rules()
  const explain = createExplanation({
    ...{ store: k.store, profiles: [profile], clock: k.clock, issuers: soleIssuer(k.issuer).current },
    status: m => (closed.some(rule => m.gids.includes(rule.gid) && m.idx < rule.bound) ? 'revoked' : 'good'),
  })
  /** What is explained, and what then really happens; the explanation itself leaves no trace. */
  async function both(peer: Peer, csr: Uint8Array, operation: EnrollmentRequest['operation'] = 'enroll') {
    closed = await rules()
    const before = [await k.store.audit(0, 1000), await k.store.devices({ fleet, limit: 100 })]
    const said = await explain({ label: null, csr, as: { kind: 'chain', chain: peer.chain as Uint8Array[] } })
    expect([await k.store.audit(0, 1000), await k.store.devices({ fleet, limit: 100 })]).toEqual(before)
    const done = await k.enroll(peer, csr, { operation })
    if ('code' in done) {
      expect(said.verdict).toMatchObject({ kind: 'refuse', code: done.code, rule: ruleOf(done.code) })
      expect(done.detail).toContain(`(rule ${ruleOf(done.code)})`)
      expect((await k.audit()).at(-1)?.detail).toBe(done.detail)
    } else {
      const kind = done.kind === 'pending' ? 'wait' : done.kind === 'issued' && done.again ? 'again' : 'issue'
      expect(said.verdict.kind).toBe(kind)
    }
    return { said, done }
  }
  return { explain, both }
}
const renewal = (certificate: Uint8Array) =>
  [peerWith([certificate]), csrFor(testKey(), parseCertificate(certificate).subject)] as const

describe('an explanation', () => {
  it('says what enrollment then does, by the rule that enrollment names, and changes nothing', async () => {
    const { both } = await open({
      subject: ['CN={id}', 'OU={model}'],
      renewal: { windowFraction: 0.5 },
      serialPattern: 'm-*',
      keys: ['P-256'],
    })
    const d = await k.device('m-1', ['model=gw-2'])
    const key = testKey()
    const csr = csrFor(key, nameOf('m-1'))
    expect((await both(k.bear('x-1').peer(), csr)).said.verdict).toMatchObject({ rule: 'birth.pattern' })
    expect((await both(k.bear('m-9').peer(), csr)).said.verdict).toMatchObject({ rule: 'manifest' })
    expect((await both(k.bear('m-1').peer(), csr)).said.verdict).toMatchObject({ rule: 'birth.key' })
    expect((await both(d.peer(), csrFor(testKey('P-384'), nameOf('m-1')))).said.verdict).toMatchObject({ rule: 'certificate.keys' })
    expect((await both(d.peer(), csrFor(key, nameOf('m-1'), { signer: testKey() }))).said.verdict).toMatchObject({
      rule: 'possession.csr',
    })
    expect((await both(d.peer(), csrFor(key, nameOf('m-2')))).said.verdict).toMatchObject({ rule: 'certificate.subject' })
    expect((await both(d.peer(), csrFor(d.birthKey, nameOf('m-1')))).said.verdict).toMatchObject({ rule: 'key.own' })
    const bare = await k.device('m-2', ['batch=1'])
    expect((await both(bare.peer(), csrFor(testKey(), nameOf('m-2')))).said.verdict).toMatchObject({ rule: 'certificate.template' })

    const { said, done } = await both(d.peer(), csr)
    const certificate = parseCertificate(issuedBy(done))
    expect(said.certificate).toEqual({
      ...{
        subject: 'OU=gw-2,CN=m-1',
        alternativeNames: '',
        purposes: ['clientAuth'],
        keyAlgorithm: 'P-256',
        groups: ['model=gw-2'],
      },
      ...{ notBefore: certificate.notBefore, notAfter: certificate.notAfter },
    })
    expect(said.steps.map(({ rule }) => rule)).toEqual([
      ...['label', 'birth.path', 'birth.pattern', 'certificate.keys', 'possession.csr', 'manifest', 'birth.key', 'device.groups'],
      ...['device.status', 'device.quarantine', 'device.clone', 'operation.credential', 'certificate.template'],
      ...['certificate.subject', 'key.own'],
    ])
    expect((await both(d.peer(), csr)).said.verdict).toMatchObject({ kind: 'again', idx: 1 })
    expect((await both(...renewal(certificate.der), 'reenroll')).said.verdict).toMatchObject({ rule: 'renewal.window' })
    k.clock.at = start + 80_000
    expect((await both(...renewal(certificate.der), 'reenroll')).said).toMatchObject({
      operation: 'reenroll',
      verdict: { kind: 'issue' },
    })
    k.clock.at = start + 90_000
    expect((await both(...renewal(certificate.der), 'reenroll')).said.verdict).toMatchObject({ rule: 'credentials.validity' })
    await k.revocation.revokeGroup({ group: 'model=gw-2', by: 'test' })
    expect((await both(d.peer(), csr)).said.verdict).toMatchObject({ rule: 'device.groups' })
  })

  it('follows a request through approval', async () => {
    const { both } = await open({ approval: 'first' })
    const d = await k.device('m-1')
    const csr = csrFor(testKey(), nameOf('m-1'))
    expect((await both(d.peer(), csr)).said).toMatchObject({
      verdict: { kind: 'wait', rule: 'approval' },
      certificate: { keyAlgorithm: 'P-256' },
    })
    const approvals = createApprovals({ store: k.store, fleet, clock: k.clock })
    const [{ id }] = await approvals.list({ limit: 10 })
    await approvals.decide({ id, approve: false, by: 'alice', reason: '' })
    expect((await both(d.peer(), csr)).said.verdict).toMatchObject({ kind: 'refuse', rule: 'approval' })
    await approvals.decide({ id, approve: true, by: 'alice', reason: '' })
    const { said } = await both(d.peer(), csr)
    expect(said.steps.at(-1)).toEqual({ rule: 'approval', detail: 'alice approved it' })
  })

  it('makes a device of a birth certificate without a manifest on paper alone', async () => {
    const { both } = await open({ requireManifest: false, groups: ['model=any'], alternativeNames: ['dns:{id}.{model}.example'] })
    const d = k.bear('m-7')
    const { said } = await both(d.peer(), csrFor(testKey(), nameOf('m-7')))
    expect(said).toMatchObject({
      verdict: { kind: 'issue' },
      certificate: { alternativeNames: 'DNS m-7.any.example', groups: ['model=any'] },
    })
  })

  it('takes a device by its id, as if it had shown a secret, a token or its birth certificate, and says what it takes for granted', async () => {
    const { explain } = await open({ admitSecrets: true, serialPattern: 'm-*' })
    await k.device('m-1')
    const csr = csrFor(testKey(), encodeSequence([]), { challengePassword: Buffer.from('binding').toString('base64') })
    const ask = (as: ExplanationRequest['as'], label: string | null = null) => explain({ label, csr, as })
    const bySecret = await ask({ kind: 'secret', deviceId: 'm-1' })
    expect(bySecret).toMatchObject({ device: 'm-1', verdict: { kind: 'issue' } })
    expect(bySecret.assumed).toEqual([
      'the one-time secret is right, unspent and not expired',
      'the challengePassword is the channel binding of the TLS session',
    ])
    expect((await ask({ kind: 'birth', deviceId: 'm-1' })).verdict).toEqual({ kind: 'issue' })
    expect((await ask({ kind: 'birth', deviceId: 'x-1' })).verdict).toMatchObject({ rule: 'birth.pattern' })
    expect((await ask({ kind: 'birth', deviceId: 'm-2' })).verdict).toMatchObject({ rule: 'manifest' })
    expect((await ask({ kind: 'token', deviceId: 'm-1' })).verdict).toMatchObject({ rule: 'tokens', code: 'token_not_allowed' })
    expect((await ask({ kind: 'birth', deviceId: 'm-1' }, 'nowhere')).verdict).toMatchObject({ rule: 'label' })
    const broken = await explain({ label: null, csr: csr.subarray(0, 40), as: { kind: 'birth', deviceId: 'm-1' } })
    expect(broken.verdict).toMatchObject({ rule: 'csr', code: 'csr_malformed' })
  })
})
