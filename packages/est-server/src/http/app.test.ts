import { METHODS } from 'node:http'
import { type Bytes, encodeBase64, hexOf, parseCertsOnly, utf8Bytes } from '@birthmark/device-sdk/core'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { EnrollmentOutcome, EnrollmentRequest, Peer } from '../enrollment-request.ts'
import type { Log } from '../ports.ts'
import { createFront } from './app.ts'
import { basicCredentials } from './client-certificate.ts'
import { type BodyOutcome, type Exchange, responseOf } from './exchange.ts'
import { defaultLimits } from './limits.ts'
import { type ProblemCode, problem, statusOf } from './problem.ts'

const certificate = Uint8Array.of(0x30, 3, 1, 1, 255)
const issuer = Uint8Array.of(0x30, 3, 1, 1, 0)
const csr = Uint8Array.of(0x30, 1, 5)
const body = encodeBase64(csr, 64)
const birth: Peer = { chain: [certificate], basic: null, address: '192.0.2.1', tlsVersion: 'TLSv1.3', resumed: false }
const stranger: Peer = { ...birth, chain: null }

interface Setting {
  peer?: Peer
  outcome?: EnrollmentOutcome | Error
  unready?: string | null
  oneLine?: boolean
}

function setUp({
  peer = birth,
  outcome = { kind: 'issued', certificate, chain: [issuer], again: false },
  unready = null,
  oneLine = false,
}: Setting = {}) {
  const asked: EnrollmentRequest[] = []
  const errors: object[] = []
  let bodiesRead = 0
  const log: Log = { info: () => {}, warn: () => {}, error: fields => errors.push(fields) }
  const enrollment = {
    enroll: async (request: EnrollmentRequest) => {
      asked.push(request)
      if (outcome instanceof Error) throw outcome
      return outcome
    },
    bodyInOneLine: () => oneLine,
    caCertificates: (label: string | null): Bytes[] => (label === null || label === 'plant-7' ? [issuer] : []),
  }
  const front = createFront({ enrollment, limits: defaultLimits, log, unready: () => unready, proxies: null })
  async function ask(target: string, init: RequestInit = {}, sent: string | BodyOutcome = body) {
    const exchange: Exchange = {
      method: init.method ?? 'GET',
      target,
      peer,
      requestId: 'r-1',
      header: name => new Headers(init.headers).get(name) ?? undefined,
      readBody: async () => {
        bodiesRead++
        return typeof sent === 'string' ? { kind: 'body', bytes: utf8Bytes(sent) } : sent
      },
    }
    const given = await front.answer(exchange)
    const url = target.startsWith('/') ? `https://localhost${target}` : target
    const response = given ? responseOf(given) : await front.app.request(new Request(url, init), undefined, exchange)
    return { response, status: response.status, text: await response.text() }
  }
  const post = (target: string, headers: Record<string, string> = {}, sent?: string | BodyOutcome) =>
    ask(target, { method: 'POST', headers: { 'content-type': 'application/pkcs10', ...headers } }, sent)
  return { ask, post, asked, errors, bodiesRead: () => bodiesRead }
}

test('[RFC 7030 4.1] cacerts is answered to anybody, by label', async () => {
  const { ask } = setUp({ peer: stranger })
  for (const path of ['/.well-known/est/cacerts', '/.well-known/est/plant-7/cacerts']) {
    const { response, status, text } = await ask(path)
    expect(status).toBe(200)
    expect(response.headers.get('content-type')).toBe('application/pkcs7-mime; smime-type=certs-only')
    expect(parseCertsOnly(Buffer.from(text, 'base64')).map(hexOf)).toEqual([hexOf(issuer)])
  }
  const unknown = await ask('/.well-known/est/plant-8/cacerts')
  expect([unknown.status, unknown.text]).toEqual([404, expect.stringMatching(/^label_unknown: .*\nNext: /)])
})

test('[RFC 7030 4.2.3] an issued certificate comes first, its chain after it', async () => {
  const { post, asked } = setUp()
  const { response, status, text } = await post('/.well-known/est/plant-7/simplereenroll')
  expect(status).toBe(200)
  expect(response.headers.get('content-transfer-encoding')).toBe('base64')
  expect(response.headers.get('content-length')).toBe(String(text.length))
  expect(response.headers.get('x-request-id')).toBe('r-1')
  expect(parseCertsOnly(Buffer.from(text, 'base64')).map(hexOf)).toEqual([hexOf(certificate), hexOf(issuer)])
  expect(asked).toEqual([{ operation: 'reenroll', label: 'plant-7', csr, peer: birth, requestId: 'r-1' }])
})

test('[RFC 7030 3.2.3] without any credential the answer is the challenge, and no body is read', async () => {
  const { post, asked, bodiesRead } = setUp({ peer: stranger })
  for (const authorization of ['', 'Bearer', 'Bearer a b', 'Digest abc', 'Basic', 'Basic ???', `Basic ${'A'.repeat(2000)}`]) {
    const { response, status, text } = await post('/.well-known/est/simpleenroll', authorization ? { authorization } : {})
    expect(status, authorization).toBe(401)
    expect(response.headers.get('www-authenticate')).toBe('Basic realm="est", charset="UTF-8"')
    expect(response.headers.get('x-problem')).toMatch(/^credentials_required: .*\. Next: /)
    // BouncyCastle fails at a challenge with a body.
    expect([response.headers.get('content-length'), text]).toEqual(['0', ''])
  }
  expect([asked.length, bodiesRead()]).toEqual([0, 0])
})

test('[RFC 7617 2] credentials go with their request, not with the connection', async () => {
  const { post, asked } = setUp({ peer: stranger })
  const authorization = `Basic ${Buffer.from('unit-7:s3:crét').toString('base64')}`
  await post('/.well-known/est/simpleenroll', { authorization })
  expect(asked[0].peer.basic).toEqual({ user: 'unit-7', password: 's3:crét' })
  expect(stranger.basic).toBeNull()
  expect((await post('/.well-known/est/simpleenroll')).status).toBe(401)
  await post('/.well-known/est/simpleenroll', { authorization: 'Bearer e30.e30.c2ln' })
  expect(asked[1].peer).toEqual({ ...stranger, bearer: 'e30.e30.c2ln' })
  expect(basicCredentials('basic dTpw')).toEqual({ user: 'u', password: 'p' })
})

test('what is no EST request is refused before its body is read', async () => {
  const { post, ask, asked, bodiesRead } = setUp()
  expect((await post('/.well-known/est/simpleenroll', { 'content-encoding': 'gzip' })).status).toBe(415)
  expect((await post('/.well-known/est/simpleenroll', { 'content-type': 'application/x-www-form-urlencoded' })).status).toBe(415)
  const wrong = await ask('/.well-known/est/simpleenroll')
  expect([wrong.status, wrong.response.headers.get('allow')]).toEqual([405, 'POST'])
  expect((await post('/.well-known/est/cacerts')).response.headers.get('allow')).toBe('GET, HEAD')
  expect([asked.length, bodiesRead()]).toEqual([0, 0])
  expect((await post('/.well-known/est/simpleenroll', { 'content-type': 'Application/PKCS10; charset=x' })).status).toBe(200)
})

test('[F4] a body that is no base64 gets 400, and the story hears of an empty CSR', async () => {
  const { post, asked } = setUp({ outcome: { kind: 'refused', code: 'csr_malformed', detail: 'empty' } })
  for (const sent of ['*', 'AAA', `${body}=`, '-----BEGIN X-----']) {
    const { status, text } = await post('/.well-known/est/simpleenroll', {}, sent)
    expect([status, text], sent).toEqual([400, expect.stringMatching(/^csr_malformed: the body is not the base64 of a CSR: /)])
  }
  expect(asked.map(request => request.csr.length)).toEqual([0, 0, 0, 0])
})

test('[F5] a body over its budget or out of time says so', async () => {
  const { post } = setUp()
  expect((await post('/.well-known/est/simpleenroll', {}, { kind: 'refused', code: 'body_too_large' })).status).toBe(413)
  expect((await post('/.well-known/est/simpleenroll', {}, { kind: 'refused', code: 'body_timeout' })).status).toBe(408)
})

test('[F18] every operation that is not offered, every other name and every method is denied without a story', async () => {
  const { ask, asked } = setUp()
  const names = ['csrattrs', 'serverkeygen', 'fullcmc', 'simpleenrol', 'SimpleEnroll', 'revoke', '__proto__', 'toString', '']
  for (let i = 0; i < 256; i++) names.push(String(i))
  for (const name of names) {
    for (const method of ['GET', 'POST']) {
      const { status } = await ask(`/.well-known/est/${name}`, { method, headers: { 'content-type': 'application/pkcs10' } })
      expect([...(name === 'csrattrs' ? [204] : []), 404, 405, 501], `${method} ${name}`).toContain(status)
    }
  }
  for (const method of METHODS) {
    if (method === 'POST' || method === 'CONNECT' || method === 'TRACE' || method === 'TRACK') continue
    expect((await ask('/.well-known/est/simpleenroll', { method })).status, method).toBe(405)
  }
  expect(asked.length).toBe(0)
})

test('[F19] no other spelling of a path reaches a route', async () => {
  const { ask, asked } = setUp()
  const routes = ['/.well-known/est/simpleenroll', '/.well-known/est/cacerts', '/healthz', '/readyz']
  const twist = fc.constantFrom(
    (path: string) => path.replace('/', '//'),
    (path: string) => path.replace(/\/(?!.*\/)/, '//'),
    (path: string) => path.replace(/\/(?!.*\/)/, '%2F'),
    (path: string) => path.replace(/\/(?!.*\/)/, '%2f'),
    (path: string) => path.replace(/\/(?!.*\/)/, '\\'),
    (path: string) => path.replace(/[a-z]/, c => c.toUpperCase()),
    (path: string) => path.replace(/[a-z](?!.*[a-z])/, c => `%${c.charCodeAt(0).toString(16)}`),
    (path: string) => `/.${path}`,
    (path: string) => `/x/..${path}`,
    (path: string) => `${path}/`,
    (path: string) => `${path}/.`,
    (path: string) => `${path};x=1`,
    (path: string) => `${path}%00`,
    (path: string) => `${path}%20`,
  )
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...routes), fc.array(twist, { minLength: 1, maxLength: 4 }), async (route, twists) => {
      const target = twists.reduce((path, f) => f(path), route)
      if (routes.includes(target) || !target.startsWith('/')) return
      const { status } = await ask(target, { method: 'POST', headers: { 'content-type': 'application/pkcs10' } })
      expect(status, target).toBe(404)
    }),
    { numRuns: 300 },
  )
  expect(asked.length).toBe(0)
  // A query and the absolute form (RFC 9112 3.2.2) name the same resource.
  expect((await ask('/healthz?x=%2F')).status).toBe(200)
  expect((await ask('https://localhost/healthz')).status).toBe(200)
})

test('[F15] headers that a proxy might set are read by nobody', async () => {
  const { post, asked } = setUp({ peer: stranger })
  const forged = {
    'x-ssl-client-cert': 'MIIB',
    'x-client-cert': 'MIIB',
    'x-forwarded-client-cert': 'Hash=1',
    'x-forwarded-for': '127.0.0.1',
  }
  expect((await post('/.well-known/est/simpleenroll', forged)).status).toBe(401)
  await post('/.well-known/est/simpleenroll', { ...forged, authorization: 'Basic dTpw' })
  expect(asked[0].peer).toEqual({ ...stranger, basic: { user: 'u', password: 'p' }, bearer: null })
})

test('each outcome has its status, its text and what belongs to it', async () => {
  const pending = await setUp({ outcome: { kind: 'pending', retryAfterSeconds: 29.2 } }).post('/.well-known/est/simpleenroll')
  expect([pending.status, pending.response.headers.get('retry-after'), pending.text]).toEqual([202, '30', ''])
  const busy = await setUp({ outcome: { kind: 'unavailable', code: 'busy', retryAfterSeconds: 7, detail: 'queue full' } }).post(
    '/.well-known/est/simpleenroll',
  )
  expect([busy.status, busy.response.headers.get('retry-after')]).toEqual([503, '7'])
  expect(busy.text).toBe('busy: queue full\nNext: Send the same request again after Retry-After seconds.\n')
  const wrong = await setUp({ outcome: { kind: 'unauthenticated', code: 'secret_used', detail: '' } }).post(
    '/.well-known/est/simpleenroll',
  )
  expect([wrong.status, wrong.response.headers.has('www-authenticate')]).toEqual([401, true])
  const denied = await setUp({ outcome: { kind: 'refused', code: 'device_revoked', detail: '' } }).post(
    '/.well-known/est/simpleenroll',
  )
  expect(denied.status).toBe(403)
})

test('an unknown failure is logged under its request id and answered as a bare 500', async () => {
  const { post, errors } = setUp({ outcome: new Error('password=hunter2 at /srv/secret.ts:7') })
  const { status, text } = await post('/.well-known/est/simpleenroll')
  expect(status).toBe(500)
  expect(text).toBe('internal: internal error\nNext: Ask fleet operations and name the request id.\n')
  expect(errors).toEqual([expect.objectContaining({ requestId: 'r-1', err: expect.any(Error) })])
})

test('[F8] a detail that quotes the peer stays one line of text', () => {
  const { body, headers } = problem('device_unknown', { detail: 'device "a\r\nSet-Cookie: x\u0000\u001b[31m" is in no manifest' })
  expect(body.split('\n').length).toBe(3)
  expect(body).not.toMatch(/[\r\0\x1b]/)
  expect(Object.keys(headers)).toEqual(['content-type'])
  expect(problem('device_unknown', { detail: 'x'.repeat(5000) }).body.length).toBeLessThan(500)
})

test('every 401 carries the challenge and every 503 a numeric Retry-After', () => {
  const codes: ProblemCode[] = [
    'credentials_required',
    'certificate_untrusted',
    'secret_refused',
    'busy',
    'closing',
    'store_unavailable',
  ]
  for (const code of codes) {
    const { status, headers } = problem(code)
    expect(status).toBe(statusOf(code))
    if (status === 401) expect(headers['www-authenticate']).toMatch(/^Basic realm=/)
    else expect(headers['retry-after']).toMatch(/^[0-9]+$/)
  }
})

test('liveness always, readiness with its reason', async () => {
  expect((await setUp({ unready: 'the store is closed' }).ask('/healthz')).text).toBe('ok\n')
  expect((await setUp().ask('/readyz')).text).toBe('ready\n')
  const { status, text } = await setUp({ unready: 'the store is closed' }).ask('/readyz')
  expect([status, text.split('\n')[0]]).toEqual([503, 'busy: not ready: the store is closed'])
  expect((await setUp().ask('/nothing')).status).toBe(404)
})

test('a small device sends DER as it is and gets its certificate as it is, where it says so', async () => {
  const raw: BodyOutcome = { kind: 'body', bytes: csr }
  const { post, asked } = setUp({
    outcome: { kind: 'issued', certificate, chain: [issuer], again: false, renewAfterSeconds: 5_184_000 },
  })
  const der = await post('/.well-known/est/simpleenroll', { accept: 'application/pkix-cert' }, raw)
  expect([der.status, der.response.headers.get('content-type'), der.response.headers.get('content-length')]).toEqual([
    200,
    'application/pkix-cert',
    String(certificate.length),
  ])
  expect(der.response.headers.get('content-transfer-encoding')).toBeNull()
  expect(asked[0].csr).toEqual(csr)
  expect(der.response.headers.get('renew-after')).toBe('5184000')
  const pem = await post('/.well-known/est/simpleenroll', { accept: 'text/plain;q=0.1, Application/PEM-certificate-chain;q=1' })
  expect(pem.text.match(/BEGIN CERTIFICATE/g)?.length).toBe(2)
  for (const accept of ['*/*', 'application/*', 'text/html', 'application/pkix-cert, application/pkcs7-mime', '', ',,,'])
    expect((await post('/.well-known/est/simpleenroll', { accept })).response.headers.get('content-type'), accept).toBe(
      'application/pkcs7-mime; smime-type=certs-only',
    )
})

test('base64 is wrapped for libest and in one line where the label says so', async () => {
  const long = new Uint8Array(600).fill(7)
  const outcome: EnrollmentOutcome = { kind: 'issued', certificate: long, chain: [], again: false }
  const wrapped = await setUp({ outcome }).post('/.well-known/est/simpleenroll')
  expect(wrapped.text.split('\n').every(line => line.length <= 64)).toBe(true)
  const single = await setUp({ outcome, oneLine: true }).post('/.well-known/est/simpleenroll')
  expect(single.text).toBe(wrapped.text.replaceAll('\n', ''))
})
