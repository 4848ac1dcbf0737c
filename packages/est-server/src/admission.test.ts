// Who may enroll by a bearer token, and what the owner's webhook takes away: the stories, with a real kernel and made answers.
import { createHmac } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseCertificate } from '@birthmark/device-sdk/core'
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from 'jose'
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createBearerTokens } from './bearer-token.ts'
import type { Outbound, OutboundRequest } from './outbound-request.ts'
import { webhookRule } from './registrar/webhook-rule.ts'
import { csrFor, issuedBy, type Kernel, type KernelOptions, kernel, nameOf, peerWith, start, testKey } from './testing/kernel.ts'
import { createWebhook } from './webhook.ts'

const log = { info() {}, warn() {}, error() {} }
const nobody: Outbound = async () => {
  throw new Error('no network here')
}

let folder: string
let k: Kernel
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'birthmark-admission-'))
})
afterEach(async () => {
  await k.remove()
  rmSync(folder, { recursive: true })
})

describe('a bearer token', () => {
  let keys: Awaited<ReturnType<typeof generateKeyPair>>
  let jwks: string
  beforeAll(async () => {
    keys = await generateKeyPair('ES256')
    jwks = JSON.stringify({ keys: [{ ...(await exportJWK(keys.publicKey)), kid: 'k1', alg: 'ES256' }] })
  })

  const good: JWTPayload = {
    sub: 'unit-1',
    iss: 'https://mes.example',
    aud: 'birthmark',
    iat: start - 10,
    exp: start + 600,
    jti: 'a',
  }
  const sign = (more: JWTPayload = {}, header: object = {}, key = keys.privateKey) =>
    new SignJWT({ ...good, ...more }).setProtectedHeader({ alg: 'ES256', kid: 'k1', ...header }).sign(key)

  async function open(options: KernelOptions = {}, outbound = nobody): Promise<void> {
    const file = join(folder, 'jwks.json')
    writeFileSync(file, jwks)
    const clock = { now: () => k?.clock.at ?? start }
    const rule = { keys: pathToFileURL(file), issuer: 'https://mes.example', audience: 'birthmark' }
    const { profile, ...more } = options
    k = await kernel({
      profile: { tokens: rule, ...profile },
      tokens: createBearerTokens({ outbound, clock, log }),
      ...more,
    })
  }
  const show = (token: string) => peerWith(null, { bearer: token })

  it('admits the device it names, and no other', async () => {
    await open()
    await k.device('unit-1')
    const outcome = await k.enroll(show(await sign()), csrFor(testKey(), nameOf('unit-1')))
    expect(parseCertificate(issuedBy(outcome)).subject.length).toBeGreaterThan(0)
    expect(await k.enroll(show(await sign({ jti: 'b' })), csrFor(testKey(), nameOf('unit-2')))).toMatchObject({
      kind: 'refused',
      code: 'subject_not_own',
    })
    expect(await k.enroll(show(await sign({ jti: 'c', sub: 'unit-9' })), csrFor(testKey(), nameOf('unit-9')))).toMatchObject({
      kind: 'refused',
      code: 'device_unknown',
    })
  })

  it('expires while its request waits for the owner’s system', async () => {
    const secret = new Uint8Array(32).fill(7)
    const slow: Outbound = async () => {
      k.clock.at = start + 700
      return { status: 200, body: Buffer.from('{"allow": true}') }
    }
    await open({
      profile: { webhook: { url: 'https://owner.example/', secret } },
      webhook: createWebhook({ outbound: slow, clock: { now: () => k?.clock.at ?? start }, log }),
    })
    await k.device('unit-1')
    expect(await k.enroll(show(await sign()), csrFor(testKey(), nameOf('unit-1')))).toMatchObject({
      kind: 'unauthenticated',
      code: 'token_expired',
    })
    expect(k.signatures()).toBe(0)
  })

  it('[F27] serves one key: the same request again, another never, over a restart too', async () => {
    await open()
    await k.device('unit-1')
    const token = await sign()
    const csr = csrFor(testKey(), nameOf('unit-1'))
    const first = issuedBy(await k.enroll(show(token), csr))
    expect(issuedBy(await k.enroll(show(token), csr))).toEqual(first)
    const signed = k.signatures()
    expect(await k.enroll(show(token), csrFor(testKey(), nameOf('unit-1')))).toMatchObject({ code: 'token_used' })
    const old = k
    await old.close()
    await open({ of: old })
    expect(await k.enroll(show(token), csrFor(testKey(), nameOf('unit-1')))).toMatchObject({
      kind: 'unauthenticated',
      code: 'token_used',
    })
    expect([old.signatures(), k.signatures()]).toEqual([signed, 0])
  })

  it('is refused for anything that its rule does not say', async () => {
    await open()
    await k.device('unit-1')
    const other = await generateKeyPair('ES256')
    const unsigned = `${Buffer.from('{"alg":"none"}').toString('base64url')}.${Buffer.from(JSON.stringify(good)).toString('base64url')}.`
    // The public key as an HMAC secret: what a verifier without pinned algorithms falls for.
    const confused = await new SignJWT(good).setProtectedHeader({ alg: 'HS256', kid: 'k1' }).sign(Buffer.from(jwks))
    const tokens: Record<string, [string, string]> = {
      unsigned: [unsigned, 'token_refused'],
      confused: [confused, 'token_refused'],
      'other key': [await sign({}, {}, other.privateKey), 'token_refused'],
      'unknown kid': [await sign({}, { kid: 'k2' }), 'token_refused'],
      issuer: [await sign({ iss: 'https://elsewhere.example' }), 'token_refused'],
      audience: [await sign({ aud: 'another' }), 'token_refused'],
      expired: [await sign({ exp: start - 61 }), 'token_expired'],
      'not yet': [await sign({ nbf: start + 120 }), 'token_refused'],
      'no expiry': [await sign({ exp: undefined } as unknown as JWTPayload), 'token_refused'],
      'no jti': [await sign({ jti: undefined } as unknown as JWTPayload), 'token_refused'],
      'too long a life': [await sign({ exp: start + 86_400 }), 'token_refused'],
      'made ahead, for a life of years': [
        await sign({ iat: start + 86_400 * 1000, exp: start + 86_400 * 1000 + 600 }),
        'token_refused',
      ],
      'no device id': [await sign({ sub: '../x' }), 'token_refused'],
      critical: [await sign({}, { crit: ['exp2'], exp2: 1 }).catch(() => 'x.y.z'), 'token_refused'],
      nonsense: ['x', 'token_refused'],
    }
    for (const [name, [token, code]] of Object.entries(tokens))
      expect(await k.enroll(show(token), csrFor(testKey(), nameOf('unit-1'))), name).toMatchObject({
        kind: 'unauthenticated',
        code,
      })
    expect(k.signatures()).toBe(0)
  })

  it('[F13] renews nothing, and is nothing where the profile has no rule', async () => {
    await open({ more: [{ fleet: 'meters', label: 'plain', birthAnchors: [], admitSecrets: true, lifetimeSeconds: 3600 }] })
    await k.device('unit-1')
    const csr = csrFor(testKey(), nameOf('unit-1'))
    expect(await k.enroll(show(await sign()), csr, { operation: 'reenroll' })).toMatchObject({
      kind: 'refused',
      code: 'operational_certificate_required',
    })
    expect(await k.enroll(show(await sign()), csr, { label: 'plain' })).toMatchObject({
      kind: 'refused',
      code: 'token_not_allowed',
    })
    expect(k.signatures()).toBe(0)
  })

  it('makes a device known only where the profile asks for no manifest', async () => {
    await open({ profile: { requireManifest: false, groups: ['batch=9'] } })
    const token = await sign({ sub: 'unit-5' })
    issuedBy(await k.enroll(show(token), csrFor(testKey(), nameOf('unit-5'))))
    expect((await k.audit()).map(entry => entry.kind)).toContain('device_admitted')
  })

  it('[F25] whoever holds a certificate by it is not taken over by the first birth certificate of that name', async () => {
    await open({ profile: { requireManifest: false } })
    const first = issuedBy(await k.enroll(show(await sign({ sub: 'unit-5' })), csrFor(testKey(), nameOf('unit-5'))))
    const namesake = k.bear('unit-5')
    const signed = k.signatures()
    expect(await k.enroll(namesake.peer(), csrFor(testKey(), nameOf('unit-5')))).toMatchObject({
      kind: 'refused',
      code: 'device_unknown',
    })
    expect(k.signatures()).toBe(signed)
    const { subject } = parseCertificate(first)
    issuedBy(await k.enroll(peerWith([first]), csrFor(testKey(), subject), { operation: 'reenroll' }))
    // One that is known and has nothing yet is whoever comes first, as any other without a manifest.
    await k.registry.mintSecret({ deviceId: 'unit-6', groups: [], lifetimeSeconds: 600, by: 'test' })
    issuedBy(await k.enroll(k.bear('unit-6').peer(), csrFor(testKey(), nameOf('unit-6'))))
  })

  it('cannot be checked without keys, and is not accepted unchecked', async () => {
    await open({}, nobody)
    const rule = { keys: 'https://mes.example/jwks', issuer: 'https://mes.example', audience: 'birthmark' }
    await k.remove()
    await open({ profile: { tokens: rule } })
    await k.device('unit-1')
    expect(await k.enroll(show(await sign()), csrFor(testKey(), nameOf('unit-1')))).toMatchObject({
      kind: 'unavailable',
      code: 'token_keys_unavailable',
    })
  })

  it('[RFC 7517] keys that roll over are found, at a bounded pace', async () => {
    let served = jwks
    let asked = 0
    const outbound: Outbound = async () => {
      asked++
      return { status: 200, body: Buffer.from(served) }
    }
    const rule = { keys: 'https://mes.example/jwks', issuer: 'https://mes.example', audience: 'birthmark' }
    await open({ profile: { tokens: rule } }, outbound)
    await k.device('unit-1')
    issuedBy(await k.enroll(show(await sign()), csrFor(testKey(), nameOf('unit-1'))))
    const next = await generateKeyPair('ES256')
    served = JSON.stringify({ keys: [{ ...(await exportJWK(next.publicKey)), kid: 'k2', alg: 'ES256' }] })
    const rolled = await sign({ jti: 'z' }, { kid: 'k2' }, next.privateKey)
    for (let i = 0; i < 20; i++)
      expect(await k.enroll(show(rolled), csrFor(testKey(), nameOf('unit-1')))).toMatchObject({ code: 'token_refused' })
    expect(asked).toBe(1)
    k.clock.at += 31
    issuedBy(await k.enroll(show(rolled), csrFor(testKey(), nameOf('unit-1'))))
    expect(asked).toBe(2)
  })
})

describe('the webhook', () => {
  const secret = new Uint8Array(32).fill(7)
  let asked: OutboundRequest[]
  async function open(answer: string | Error, status = 200): Promise<void> {
    asked = []
    const outbound: Outbound = async request => {
      asked.push(request)
      if (answer instanceof Error) throw answer
      return { status, body: Buffer.from(answer) }
    }
    k = await kernel({
      profile: { webhook: { url: 'https://owner.example/enroll', secret } },
      webhook: createWebhook({ outbound, clock: { now: () => k?.clock.at ?? start }, log }),
    })
  }

  it('is told who asks, signed with the shared secret, and a yes lets the other rules decide', async () => {
    await open('{"allow": true}')
    const device = await k.device('unit-1')
    issuedBy(await k.enroll(device.peer(), csrFor(testKey(), nameOf('unit-1'))))
    const [{ url, headers, body }] = asked
    const text = Buffer.from(body as Uint8Array).toString()
    expect(JSON.parse(text)).toMatchObject({
      version: 1,
      fleet: 'meters',
      device: 'unit-1',
      identity: 'birth',
      operation: 'enroll',
    })
    const mac = createHmac('sha256', secret).update(`${start}.${text}`).digest('hex')
    expect([url.href, headers['birthmark-signature']]).toEqual(['https://owner.example/enroll', `t=${start},v1=${mac}`])
    const stranger = k.bear('unit-2')
    expect(await k.enroll(stranger.peer(), csrFor(testKey(), nameOf('unit-2')))).toMatchObject({ code: 'device_unknown' })
  })

  it('takes away: a no is a refusal with its reason, and nothing is signed', async () => {
    await open('{"allow": false, "reason": "not delivered yet"}')
    const device = await k.device('unit-1')
    expect(await k.enroll(device.peer(), csrFor(testKey(), nameOf('unit-1')))).toEqual({
      kind: 'refused',
      code: 'webhook_refused',
      detail: 'not delivered yet (rule webhook)',
    })
    expect(k.signatures()).toBe(0)
    // Who is not recognised, or holds no key, is no question for the owner.
    expect(asked.length).toBe(1)
    await k.enroll(peerWith(null), csrFor(testKey(), nameOf('unit-1')))
    await k.enroll(device.peer(), csrFor(testKey(), nameOf('unit-1'), { signer: testKey() }))
    expect(asked.length).toBe(1)
  })

  it('a dead system of one profile holds up no question of another', async () => {
    const answers: (() => void)[] = []
    const outbound: Outbound = () =>
      new Promise(resolve => answers.push(() => resolve({ status: 200, body: Buffer.from('{"allow": true}') })))
    const webhook = createWebhook({ outbound, clock: { now: () => start }, log })
    const [dead, well] = ['a', 'b'].map(name => webhookRule({ url: `https://${name}.example/`, secret }))
    const question = { requestId: 'r', operation: 'enroll', label: null, fleet: 'f', device: 'd', identity: 'birth' }
    const ask = (rule: typeof dead) => webhook.ask(rule, { ...question, address: '', keyAlgorithm: 'P-256', spkiSha256: '' })
    const waiting = Array.from({ length: 64 }, () => ask(dead))
    await expect(ask(dead)).rejects.toMatchObject({ code: 'busy' })
    const served = ask(well)
    expect(answers).toHaveLength(65)
    for (const answer of answers) answer()
    expect(await Promise.all([...waiting, served])).toEqual(new Array(65).fill(null))
    answers.length = 0
    const again = ask(dead)
    answers[0]()
    expect(await again).toBeNull()
    k = await kernel()
  })

  it.each([
    ['an error', new Error('ECONNREFUSED'), 200],
    ['another status', '{"allow": true}', 500],
    ['204', '', 204],
    ['no JSON', 'yes', 200],
    ['allow as text', '{"allow": "true"}', 200],
    ['allow inherited', '{"__proto__": {"allow": true}}', 200],
    ['a list', '[true]', 200],
    ['null', 'null', 200],
  ] as const)('%s is no yes', async (_, answer, status) => {
    await open(answer, status)
    const device = await k.device('unit-1')
    expect(await k.enroll(device.peer(), csrFor(testKey(), nameOf('unit-1')))).toMatchObject({
      kind: 'unavailable',
      code: 'webhook_unavailable',
    })
    expect(k.signatures()).toBe(0)
  })
})
