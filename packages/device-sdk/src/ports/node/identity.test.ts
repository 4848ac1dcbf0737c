import { generateKeyPairSync } from 'node:crypto'
import * as fs from 'node:fs'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, createServer, type TLSSocket } from 'node:tls'
import { inspect } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { COMMON_NAME, encodeName } from '../../core/distinguished-name.ts'
import { type Fault, fakeClock, loopbackNames, startTestEst, type TestEst } from '../../testing/index.ts'
import * as port from './index.ts'
import {
  BirthmarkError,
  birthChain,
  createIdentity,
  fileKeys,
  fileStore,
  type IdentityOptions,
  memoryKeys,
  memoryStore,
} from './index.ts'

const start = Math.floor(Date.now() / 1000)
let est: TestEst
let folder: string
let serial = 0

beforeAll(async () => {
  est = await startTestEst({ secrets: { 'dev-secret': 'hunter2' } })
  folder = mkdtempSync(join(tmpdir(), 'identity-'))
})
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true })
  await est.close()
})

async function newborn() {
  const device = { keys: memoryKeys(), store: memoryStore(), id: `node-${++serial}` }
  await est.bear(device.id, device)
  return device
}

function boot({ keys, store }: Pick<IdentityOptions, 'keys' | 'store'>, more: Partial<IdentityOptions> = {}) {
  return createIdentity({ keys, store, server: { url: est.url }, trust: est.trust, ...more })
}

const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => null,
    error => error as BirthmarkError,
  )

describe('the example in the docstring', () => {
  it('runs as it stands, against a real server, from files', async () => {
    const source = readFileSync(new URL('./index.ts', import.meta.url), 'utf8')
    const example = (/```ts\n([\s\S]*?)```/.exec(source)?.[1] ?? '').replace(/^ \* ?/gm, '')
    const imports = [...example.matchAll(/^import \{ (.*) \} from '(.*)'$/gm)].flatMap(([, names, from]) =>
      names.split(', ').map(name => [name, (from === 'node:fs' ? fs : port)[name as never]] as const),
    )
    expect(imports.map(([name]) => name)).toEqual(['createIdentity', 'fileKeys', 'fileStore', 'readFileSync'])
    expect(imports.every(([, value]) => typeof value === 'function')).toBe(true)

    // Nothing of it is changed but where it lives.
    const here = join(folder, 'example')
    const body = example
      .replace(/^import .*$/gm, '')
      .replaceAll('/var/lib/device/', `${here}/`)
      .replaceAll('/etc/device/', `${folder}/`)
      .replaceAll('https://est.example.com:8443', est.url)
    await est.bear('example', { keys: fileKeys(`${here}/keys`), store: fileStore(`${here}/identity`) })
    writeFileSync(`${folder}/server-ca.pem`, est.trust.server)

    const connected: port.TlsOptions[] = []
    let disconnected = 0
    const given = { reconnect: (tls: port.TlsOptions) => connected.push(tls), disconnect: () => disconnected++ }
    const AsyncFunction = (async () => {}).constructor as new (
      ...text: string[]
    ) => (...values: unknown[]) => Promise<port.Identity>
    const run = new AsyncFunction(...imports.map(([name]) => name), ...Object.keys(given), `${body}\nreturn identity`)
    const identity = await run(...imports.map(([, value]) => value), ...Object.values(given))

    expect(identity.status()).toMatchObject({ state: 'active', deviceId: 'example', generation: 1 })
    expect(connected).toHaveLength(1)
    await identity.renew()
    expect(connected).toHaveLength(2)
    est.revoke('example')
    expect((await failure(identity.renew()))?.code).toBe('revoked')
    expect(disconnected).toBe(1)
    identity.close()
    expect(readdirSync(`${here}/keys`).sort()).toEqual(['birth.key', 'op-0.key', 'op-1.key'])
    for (const name of readdirSync(`${here}/keys`)) expect(statSync(`${here}/keys/${name}`).mode & 0o777).toBe(0o600)
    expect(statSync(`${here}/keys`).mode & 0o777).toBe(0o700)
  })
})

describe('enroll and renew', () => {
  it('[RFC 7030 4.2.1] opens TLS with the birth certificate, then proves the new one before using it', async () => {
    const device = await newborn()
    const from = est.requests.length
    const identity = boot(device)
    const seen: string[] = []
    for (const type of ['birth', 'request', 'issued', 'active'] as const) identity.on(type, () => seen.push(type))
    await identity.enroll()
    expect(seen).toEqual(['birth', 'request', 'issued', 'active'])
    expect(est.requests.slice(from).map(({ operation, client }) => [operation, client])).toEqual([
      ['simpleenroll', `serialNumber=${device.id}`],
      ['cacerts', `CN=${device.id}\nserialNumber=${device.id}`],
    ])
    // A second call has nothing to do.
    await identity.enroll()
    expect(est.requests).toHaveLength(from + 2)
    identity.close()
  })

  it('[RFC 7030 4.2.2] renews over the certificate to be renewed, with a new key and the same name', async () => {
    const device = await newborn()
    const identity = boot(device)
    await identity.enroll()
    const old = identity.tlsOptions()
    const from = est.requests.length
    expect((await identity.renew()).generation).toBe(2)
    expect(identity.tlsOptions().key).not.toBe(old.key)
    expect(est.requests[from]).toMatchObject({
      operation: 'simplereenroll',
      client: `CN=${device.id}\nserialNumber=${device.id}`,
      status: 200,
    })
    identity.close()
  })

  it('[RFC 7030 4.1] without trust.operational asks /cacerts whom to expect as issuer', async () => {
    const device = await newborn()
    const from = est.requests.length
    const { server, birth } = est.trust
    const identity = boot(device, { trust: { server, birth } })
    await identity.enroll()
    expect(est.requests.slice(from).map(one => one.operation)).toEqual(['cacerts', 'simpleenroll', 'cacerts'])
    expect(identity.tlsOptions().cert.match(/BEGIN/g)).toHaveLength(2)
    identity.close()
  })

  it('[RFC 7030 3.2.3] answers a 401 with the secret once, and never before it', async () => {
    const device = { keys: memoryKeys(), store: memoryStore() }
    const from = est.requests.length
    const good = boot(device, { secret: { user: 'dev-secret', password: 'hunter2' } })
    expect((await good.enroll()).deviceId).toBe('dev-secret')
    expect(est.requests.slice(from, from + 2).map(one => [one.status, one.authorization !== null])).toEqual([
      [401, false],
      [200, true],
    ])
    const bad = boot({ keys: memoryKeys(), store: memoryStore() }, { secret: { user: 'dev-secret', password: 'hunter3' } })
    const asked = est.requests.length
    expect(await failure(bad.enroll())).toMatchObject({ code: 'est_unauthorized', retryable: true })
    expect(est.requests.length - asked).toBe(2)
    good.close()
    bad.close()
  })

  it('uses the label', async () => {
    const from = est.requests.length
    const identity = boot(await newborn(), { server: { url: est.url, label: 'gateways' } })
    await identity.enroll()
    expect(est.requests.slice(from).every(one => one.label === 'gateways')).toBe(true)
    identity.close()
  })

  it('two calls at once are one operation', async () => {
    const identity = boot(await newborn())
    const from = est.issued()
    const [a, b] = await Promise.all([identity.enroll(), identity.enroll()])
    expect(a).toEqual(b)
    expect(est.issued() - from).toBe(1)
    identity.close()
  })

  it('recovers with the birth certificate when the operational one is over, or its key is gone', async () => {
    const device = await newborn()
    const now = fakeClock(start)
    const identity = boot(device, { clock: now })
    await identity.enroll()
    now.set(start + 31 * 86400)
    expect(identity.status().state).toBe('expired')
    expect(() => identity.tlsOptions()).toThrow(expect.objectContaining({ code: 'identity_expired' }))
    now.set(start + 10)
    const from = est.requests.length
    const without = boot({
      keys: { ...device.keys, tlsKey: slot => (slot === 'op-1' ? null : device.keys.tlsKey(slot)) },
      store: device.store,
    })
    expect((await failure(without.renew()))?.code).toBe('key_unavailable')
    expect((await without.renew()).generation).toBe(2)
    expect(est.requests.slice(from).map(one => one.operation)).toEqual(['simpleenroll', 'cacerts'])
    identity.close()
    without.close()
  })

  it('renews by itself when due, and tells when', async () => {
    const clock = fakeClock(start)
    const identity = boot(await newborn(), { clock, http: est.direct() })
    const active: number[] = []
    identity.on('active', ({ generation }) => active.push(generation))
    identity.start()
    await clock.advance(0)
    await expect.poll(() => active).toEqual([1])
    const { renewAt, notAfter } = identity.status()
    expect(renewAt - start).toBeGreaterThanOrEqual((notAfter - start) * (2 / 3) - 60)
    while (clock.now() < renewAt - 1) await clock.advance(Math.min(86400, renewAt - 1 - clock.now()))
    expect(active).toEqual([1])
    await clock.advance(2)
    await expect.poll(() => active).toEqual([1, 2])
    identity.close()
    expect(clock.timers()).toEqual([])
  })

  it('a prove hook decides: an error keeps the candidate for later, est_refused throws it away', async () => {
    const device = await newborn()
    let verdict: Error | null = new Error('broker down')
    const proven: string[] = []
    const identity = boot(device, {
      prove: async tls => {
        proven.push(tls.cert)
        if (verdict) throw verdict
      },
    })
    const dropped: number[] = []
    identity.on('dropped', ({ generation }) => dropped.push(generation))
    expect((await failure(identity.enroll()))?.code).toBe('network')
    verdict = new BirthmarkError('est_refused', 'the broker does not take it')
    expect((await failure(identity.enroll()))?.code).toBe('est_refused')
    expect(proven[0]).toBe(proven[1])
    expect(dropped).toEqual([1])
    verdict = null
    expect((await identity.enroll()).state).toBe('active')
    expect(proven[2]).not.toBe(proven[0])
    identity.close()
  })
})

describe('whom it trusts', () => {
  it('a server that does not chain to trust.server hears no request', async () => {
    const from = est.requests.length
    const identity = boot(await newborn(), { trust: { ...est.trust, server: est.trust.birth } })
    expect(await failure(identity.enroll())).toMatchObject({ code: 'server_untrusted', retryable: true })
    expect(est.requests).toHaveLength(from)
    identity.close()
  })

  it('the name in the url must be in the certificate, IP literals too', async () => {
    const { port } = new URL(est.url)
    const good = boot(await newborn(), { server: { url: `https://localhost:${port}` } })
    expect((await good.enroll()).state).toBe('active')
    const bad = boot(await newborn(), { server: { url: `https://127.0.0.2:${port}` } })
    expect(['server_untrusted', 'network']).toContain((await failure(bad.enroll()))?.code)
    good.close()
    bad.close()
  })

  it('its own birth certificate must chain to trust.birth and hold its own key', async () => {
    const stranger = boot(await newborn(), { trust: { ...est.trust, birth: est.trust.operational } })
    expect((await failure(stranger.enroll()))?.code).toBe('path_no_anchor')
    const device = await newborn()
    const other = await newborn()
    const mixed = boot({ keys: other.keys, store: device.store })
    expect(await failure(mixed.enroll())).toMatchObject({ code: 'birth_key_mismatch', retryable: false })
    stranger.close()
    mixed.close()
  })

  it('arguments that cannot work are said at once', async () => {
    const device = await newborn()
    for (const url of [
      'http://est.example.com',
      'https://est.example.com/prefix',
      'https://user@est.example.com',
      'est.example.com',
    ])
      expect(() => boot(device, { server: { url } }), url).toThrow(TypeError)
    expect(() => boot(device, { trust: { server: 'no PEM' } })).toThrow(TypeError)
    expect(() => boot(device, { trust: { server: [] } })).toThrow(TypeError)
    expect(() => boot(device, { trust: { server: new Uint8Array([0x30, 3, 1, 1, 0]) } })).toThrow(BirthmarkError)
    expect(birthChain(est.trust.birth)).toEqual(est.authorities.birth.certificate)
  })
})

describe('stopping', () => {
  it('a signal ends the call at once; the next call carries on with the same request', async () => {
    const device = await newborn()
    const identity = boot(device)
    const from = est.requests.length
    const stuck: Fault = { fault: 'drip' }
    est.fail('simpleenroll', stuck)
    const controller = new AbortController()
    const waiting = failure(identity.enroll({ signal: controller.signal }))
    await expect.poll(() => est.requests.length).toBe(from + 1)
    controller.abort(new Error('going to sleep'))
    expect(await waiting).toMatchObject({ code: 'aborted', cause: { message: 'going to sleep' } })
    await identity.enroll()
    expect(est.requests[from].csr).toEqual(est.requests[from + 1].csr)
    expect((await failure(identity.renew({ signal: AbortSignal.abort() })))?.code).toBe('aborted')
    identity.close()
  })

  it('one of two callers may leave without ending the other', async () => {
    const identity = boot(await newborn())
    const controller = new AbortController()
    const both = [failure(identity.enroll({ signal: controller.signal })), identity.enroll()] as const
    controller.abort()
    expect((await both[0])?.code).toBe('aborted')
    expect((await both[1]).state).toBe('active')
    identity.close()
  })

  it('close and the option signal end everything', async () => {
    for (const how of ['close', 'signal'] as const) {
      const controller = new AbortController()
      const identity = boot(await newborn(), { signal: controller.signal })
      const waiting = failure(identity.enroll())
      if (how === 'close') identity.close()
      else controller.abort()
      expect((await waiting)?.code).toBe('aborted')
      expect((await failure(identity.enroll()))?.code).toBe('aborted')
      expect(identity.status().state).toBe('closed')
    }
  })
})

describe('revoked', () => {
  it('by the server: stops, survives a reboot, and asks again only when readmitted', async () => {
    const device = await newborn()
    const clock = fakeClock(start)
    const identity = boot(device, { clock, http: est.direct() })
    await identity.enroll()
    const by: string[] = []
    identity.on('revoked', event => by.push(event.by))
    identity.start()
    est.revoke(device.id)
    expect(await failure(identity.renew())).toMatchObject({ code: 'revoked', retryable: false })
    expect(by).toEqual(['server'])
    expect(clock.timers()).toEqual([])
    expect(identity.status().state).toBe('revoked')
    expect(() => identity.tlsOptions()).toThrow(expect.objectContaining({ code: 'revoked' }))
    identity.close()

    const again = boot(device, { http: est.direct() })
    const from = est.requests.length
    expect(again.status().state).toBe('revoked')
    expect((await failure(again.enroll()))?.code).toBe('revoked')
    expect(est.requests).toHaveLength(from)
    expect((await failure(again.enroll({ readmitted: true })))?.code).toBe('revoked')
    expect(est.requests[from].operation).toBe('simpleenroll')
    again.close()
  })

  it('by a notice: follows the topics its receiver names, ignores what does not verify, ends what runs', async () => {
    const device = await newborn()
    const handlers = new Map<string, (payload: Uint8Array) => void>()
    const notices = {
      topics: ['head'],
      receive(_topic: string, payload: Uint8Array, done: (error: port.DeviceError | null, revoked: boolean) => void) {
        if (payload[0] === 0) return done(Object.assign(new Error('signature'), { code: 'notice_rejected' as const }), false)
        notices.topics = payload[0] === 1 ? ['head', 'n/4'] : ['head']
        done(null, payload[0] === 3)
      },
    }
    const identity = boot(device, {
      clock: fakeClock(start),
      http: est.direct(),
      notices,
      bus: {
        subscribe(topic, handler) {
          handlers.set(topic, handler)
          return () => handlers.delete(topic)
        },
      },
    })
    await identity.enroll()
    const seen: string[] = []
    identity.on('notice', ({ error }) => seen.push(error.code))
    identity.on('revoked', ({ by }) => seen.push(by))
    identity.start()
    expect([...handlers.keys()]).toEqual(['head'])
    handlers.get('head')?.(new Uint8Array([0]))
    handlers.get('head')?.(new Uint8Array([1]))
    expect([...handlers.keys()]).toEqual(['head', 'n/4'])
    handlers.get('n/4')?.(new Uint8Array([2]))
    expect([...handlers.keys()]).toEqual(['head'])
    expect(identity.status().state).toBe('active')
    const renewal = failure(identity.renew())
    handlers.get('head')?.(new Uint8Array([3]))
    expect((await renewal)?.code).toBe('revoked')
    expect(seen).toEqual(['notice_rejected', 'notice'])
    expect(boot(device).status().state).toBe('revoked')
    identity.close()
    expect(handlers.size).toBe(0)
  })
})

describe('what it shows', () => {
  it('no key in JSON, in inspect, in events, in logs, in errors', async () => {
    const device = { keys: fileKeys(join(folder, 'shown')), store: memoryStore() }
    await est.bear('shown', device)
    const lines: unknown[] = []
    const log = { info: (...line: unknown[]) => lines.push(line), warn: (...line: unknown[]) => lines.push(line) }
    const identity = boot(device, { log })
    for (const type of ['birth', 'request', 'issued', 'active', 'failed', 'dropped', 'scheduled', 'revoked', 'notice'] as const)
      identity.on(type, event => lines.push([type, event]))
    est.fail('simpleenroll', { fault: 'wrong-ca' })
    const error = await failure(identity.enroll())
    await identity.enroll()
    const tls = identity.tlsOptions()
    expect(tls.key).toContain('PRIVATE KEY')
    const secret = (tls.key ?? '').split('\n')[1]
    for (const value of [lines, error, identity, device.keys, tls, { tls }, identity.status()]) {
      for (const text of [JSON.stringify(value), inspect(value, { depth: 9, showHidden: true })]) {
        expect(text).not.toContain(secret)
        expect(text).not.toContain('BEGIN PRIVATE')
      }
    }
    expect(JSON.parse(JSON.stringify(device.keys))).toEqual({
      kind: 'fileKeys',
      folder: join(folder, 'shown'),
      algorithm: 'ecdsa-sha256',
    })
    identity.close()
  })

  it('errors carry a code, whether to retry, a hint and a cause', async () => {
    est.fail('simpleenroll', { fault: 'answer', status: 503, headers: { 'retry-after': '7' }, body: 'busy: queue full' })
    const identity = boot(await newborn())
    const error = await failure(identity.enroll())
    expect(error).toBeInstanceOf(BirthmarkError)
    expect(error).toMatchObject({ name: 'BirthmarkError', code: 'est_unavailable', retryable: true, retryAfterSeconds: 7 })
    expect(error?.message).toContain('503 busy: queue full')
    expect(error?.hint).toMatch(/retryAfterSeconds/)
    expect(JSON.parse(JSON.stringify(error))).toMatchObject({ code: 'est_unavailable', retryAfterSeconds: 7 })
    identity.close()
  })

  it('a listener that throws harms nobody but itself', async () => {
    const identity = boot(await newborn())
    // The test runner listens as well, and would take it for a failure.
    const others = process.rawListeners('uncaughtException') as (() => void)[]
    process.removeAllListeners('uncaughtException')
    const thrown = new Promise(resolve => process.once('uncaughtException', resolve))
    const stop = identity.on('active', () => {
      throw new Error('from the listener')
    })
    await identity.enroll()
    stop()
    expect(identity.status().state).toBe('active')
    expect(await thrown).toMatchObject({ message: 'from the listener' })
    for (const listener of others) process.on('uncaughtException', listener)
    identity.close()
  })

  it('tlsOptions opens a mutual TLS connection', async () => {
    const identity = boot(await newborn())
    await identity.enroll()
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const leaf = est.authorities.server.issue({
      profile: 'server',
      subject: encodeName([{ oid: COMMON_NAME, value: 'broker' }]),
      spki: new Uint8Array(publicKey.export({ type: 'spki', format: 'der' })),
      notBefore: start - 60,
      notAfter: start + 3600,
      extensions: [loopbackNames()],
    })
    const server = createServer(
      {
        key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
        cert: port.pemChain([leaf]),
        requestCert: true,
        rejectUnauthorized: true,
        ca: est.trust.operational,
      },
      socket => socket.end('welcome'),
    )
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    const address = server.address() as { port: number }
    const text = await new Promise<string>((resolve, reject) => {
      const socket: TLSSocket = connect({ port: address.port, host: '127.0.0.1', ...identity.tlsOptions() })
      let out = ''
      socket.setEncoding('utf8').on('data', part => {
        out += part
      })
      socket.on('end', () => resolve(out)).on('error', reject)
    })
    expect(text).toBe('welcome')
    server.close()
    identity.close()
  })
})
