// FAULTS 55-60 and 6, seen from the device: what a clock, a disk, a server or the power can do to it, and what is left afterwards.
import { createHash, createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { renewalTime, retryDelay } from '@birthmark/device-sdk/agent'
import { parseCsr } from '@birthmark/device-sdk/core'
import {
  BirthmarkError,
  createIdentity,
  type DeviceErrorCode,
  fileKeys,
  fileStore,
  type IdentityOptions,
  memoryKeys,
  memoryStore,
  type NodeKeyStore,
  type Store,
} from '@birthmark/device-sdk/node'
import {
  type CrashDisk,
  crashDisk,
  type Fault,
  fakeClock,
  flakyHttp,
  powerCutStore,
  startTestEst,
  type TestEst,
} from '@birthmark/device-sdk/testing'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const start = Date.UTC(2026, 10, 22) / 1000
let est: TestEst
let serial = 0

beforeAll(async () => {
  est = await startTestEst({ now: () => start })
})
afterAll(() => est.close())

/** A newborn device in memory, or on the given media. */
async function newborn(media: { keys: NodeKeyStore; store: Store } = { keys: memoryKeys(), store: memoryStore() }) {
  const id = `dev-${++serial}`
  await est.bear(id, media)
  return { id, ...media }
}

/** One boot of it: without sockets unless `http` is left out by `{ http: undefined }`. */
function boot(device: { keys: NodeKeyStore; store: Store }, more: Partial<IdentityOptions> = {}) {
  return createIdentity({
    keys: device.keys,
    store: device.store,
    server: { url: est.url },
    trust: est.trust,
    clock: fakeClock(start),
    http: est.direct(),
    ...more,
  })
}

async function codeOf(promise: Promise<unknown>): Promise<DeviceErrorCode | 'resolved'> {
  try {
    await promise
    return 'resolved'
  } catch (error) {
    if (!(error instanceof BirthmarkError)) throw error
    return error.code
  }
}

/** Whether what TLS would be given is a certificate and the key that belongs to it. */
function opensTls(tls: { key?: string; cert: string }): boolean {
  const key = createPublicKey(createPrivateKey(tls.key ?? ''))
  return new X509Certificate(tls.cert).publicKey.equals(key)
}

describe('[F55] no clock', () => {
  for (const [name, time] of [
    ['no clock at all', -1],
    ['a clock in 1970', 5],
    ['a clock before the build', start - 400 * 86400],
  ] as const) {
    it(`${name}: enrolls against the floor, and signatures are still checked`, async () => {
      const device = await newborn()
      const identity = boot(device, { clock: fakeClock(time), timeFloor: start - 86400 })
      est.fail('simpleenroll', { fault: 'wrong-ca' })
      expect(await codeOf(identity.enroll())).toBe('path_no_anchor')
      expect(identity.status()).toMatchObject({ state: 'unenrolled', timeTrusted: false })
      const status = await identity.enroll()
      expect(status).toMatchObject({ state: 'active', timeTrusted: false, generation: 1 })
      identity.close()
    })
  }

  it('a tampered signature is refused with and without a clock', async () => {
    for (const time of [start, -1]) {
      const identity = boot(await newborn(), {
        clock: fakeClock(time),
        timeFloor: start - 86400,
        verify: { verify: (_spki, _algorithm, _message, _signature, done) => done(false) },
      })
      expect(await codeOf(identity.enroll())).toBe('path_signature')
      identity.close()
    }
  })

  it('without clock and without floor nothing is believed', async () => {
    const identity = boot(await newborn(), { clock: fakeClock(-1), timeFloor: 0 })
    expect(await codeOf(identity.enroll())).toBe('path_time_untrusted')
    identity.close()
  })

  it('the floor is late enough to refuse what was over by then', async () => {
    const identity = boot(await newborn(), { clock: fakeClock(-1), timeFloor: start + 31 * 86400 })
    expect(await codeOf(identity.enroll())).toBe('path_expired')
    identity.close()
  })

  it('the active certificate raises the floor: a clock set back later is not believed', async () => {
    const device = await newborn()
    const clock = fakeClock(start)
    const identity = boot(device, { clock })
    await identity.enroll()
    expect(identity.status().timeTrusted).toBe(true)
    clock.set(start - 3600)
    expect(identity.status()).toMatchObject({ timeTrusted: false, state: 'active' })
    identity.close()
    expect(boot(device, { clock: fakeClock(start - 3600) }).status().timeTrusted).toBe(false)
  })

  it('renews by counting seconds', async () => {
    const clock = fakeClock(-1)
    const identity = boot(await newborn(), { clock, timeFloor: start }).start()
    await clock.advance(1)
    await expect.poll(() => identity.status().generation).toBe(1)
    for (let day = 0; day < 19; day++) await clock.advance(86400)
    expect(identity.status().generation).toBe(1)
    for (let day = 19; day < 26; day++) await clock.advance(86400)
    await expect.poll(() => identity.status().generation).toBe(2)
    identity.close()
  })
})

describe('[F56] power loss', () => {
  const open = (disk: CrashDisk) => ({ keys: fileKeys('/keys', 'P-256', disk), store: fileStore('/records', disk) })

  /** A disk on which a device was born, and perhaps enrolled. */
  async function prepared(enrolled: boolean) {
    const disk = crashDisk()
    const device = await newborn(open(disk))
    if (enrolled) {
      const identity = boot(device)
      await identity.enroll()
      identity.close()
    }
    return disk
  }

  const outcomes = ['nothing', 'everything', 'torn'] as const

  for (const enrolled of [false, true]) {
    it(`after every write, fsync and rename of ${enrolled ? 'a renewal' : 'an enrollment'}: the old identity or the new one, never none`, async () => {
      // With a word on when to come back, which is recorded as well.
      est.renewAfter('1900000')
      const before = await prepared(enrolled)
      const whole = before.reboot('everything')
      await boot(open(whole)).renew()
      const operations = whole.operations()
      expect(operations).toBeGreaterThan(15)
      for (let cut = 0; cut <= operations; cut++) {
        for (const outcome of outcomes) {
          const disk = before.reboot('everything', cut)
          const dying = boot(open(disk))
          const ended = await codeOf(dying.renew())
          expect(ended === 'resolved').toBe(cut === operations)
          dying.close()

          const where = `cut after ${cut} of ${operations}, ${outcome} kept`
          const identity = boot(open(disk.reboot(outcome)))
          const found = identity.status()
          if (enrolled) {
            expect(found.state, where).toBe('active')
            expect([1, 2], where).toContain(found.generation)
          } else expect(['unenrolled', 'active'], where).toContain(found.state)
          if (found.generation) expect(opensTls(identity.tlsOptions()), where).toBe(true)

          const status = await identity.renew()
          expect(status.state, where).toBe('active')
          expect(opensTls(identity.tlsOptions()), where).toBe(true)
          identity.close()
        }
      }
      est.renewAfter(null)
    })
  }

  it('again and again, at any moments: the identity in use never goes, and the device comes through', async () => {
    const before = await prepared(true)
    const cut = fc.record({ after: fc.nat(24), outcome: fc.constantFrom(...outcomes) })
    await fc.assert(
      fc.asyncProperty(fc.array(cut, { minLength: 1, maxLength: 6 }), async cuts => {
        let disk = before.reboot('everything')
        for (const { after, outcome } of cuts) {
          disk = disk.reboot('everything', after)
          const identity = boot(open(disk))
          expect(identity.status().state).toBe('active')
          await codeOf(identity.renew())
          identity.close()
          disk = disk.reboot(outcome)
        }
        const identity = boot(open(disk))
        expect(opensTls(identity.tlsOptions())).toBe(true)
        await identity.renew()
        expect(opensTls(identity.tlsOptions())).toBe(true)
        identity.close()
      }),
      { numRuns: 60 },
    )
  })

  it('with a Store of your own: every prefix of its writes', async () => {
    const keys = memoryKeys()
    const { store } = await newborn({ keys, store: powerCutStore() })
    const first = boot({ keys, store })
    await first.enroll()
    const enrolled = store as ReturnType<typeof powerCutStore>
    const total = await (async () => {
      const trial = enrolled.reboot()
      await boot({ keys, store: trial }).renew()
      return trial.writes()
    })()
    for (let cut = 0; cut < total; cut++) {
      const dying = enrolled.reboot(cut)
      expect(await codeOf(boot({ keys, store: dying }).renew())).not.toBe('resolved')
      const identity = boot({ keys, store: dying.reboot() })
      expect(identity.status().state).toBe('active')
      expect((await identity.renew()).state).toBe('active')
    }
  })
})

describe('[F57] the disk', () => {
  for (const failure of ['ENOSPC', 'EROFS', 'EIO']) {
    it(`${failure}: the old identity is kept, the code says so, and the device comes back later`, async () => {
      let code: string | null = null
      const disk = crashDisk(Number.POSITIVE_INFINITY, new Map(), () => code)
      const device = await newborn({ keys: fileKeys('/keys', 'P-256', disk), store: fileStore('/records', disk) })
      const clock = fakeClock(start)
      const identity = boot(device, { clock })
      await identity.enroll()
      const waits: number[] = []
      identity.on('scheduled', ({ seconds }) => waits.push(seconds))
      identity.start()

      code = failure
      const error = await identity.renew().then(
        () => null,
        reason => reason as BirthmarkError,
      )
      expect(error).toMatchObject({ code: 'store_write', retryable: true })
      expect(error?.message).toContain(failure)
      for (let failures = 1; failures < 6; failures++) {
        const [next] = clock.timers()
        expect(next).toBeGreaterThanOrEqual(10 * 2 ** (failures - 1))
        expect(next).toBeLessThan(20 * 2 ** (failures - 1))
        await clock.advance(next)
        await expect.poll(() => waits.length).toBe(failures + 2)
      }
      expect(identity.status()).toMatchObject({ state: 'active', generation: 1, lastError: { code: 'store_write' } })
      expect(opensTls(identity.tlsOptions())).toBe(true)

      code = null
      await clock.advance(clock.timers()[0])
      await expect.poll(() => identity.status().generation).toBe(2)
      expect(opensTls(identity.tlsOptions())).toBe(true)
      identity.close()
    })
  }
})

describe('[F58] an answer that is not what was asked for', () => {
  const cases: [Fault, DeviceErrorCode][] = [
    [{ fault: 'wrong-key' }, 'est_certificate_mismatch'],
    [{ fault: 'wrong-name' }, 'est_certificate_mismatch'],
    [{ fault: 'wrong-ca' }, 'path_no_anchor'],
    [{ fault: 'empty' }, 'est_response_malformed'],
    [{ fault: 'huge', bytes: 2 ** 30 }, 'est_response_malformed'],
    [{ fault: 'gzip' }, 'est_response_malformed'],
    [{ fault: 'drip' }, 'timeout'],
    [{ fault: 'cut' }, 'network'],
    [{ fault: 'answer', status: 200, headers: { 'content-type': 'text/html' }, body: '<html>' }, 'est_response_malformed'],
    [{ fault: 'answer', status: 200, headers: { 'content-type': 'application/pkcs7-mime' }, body: 'AAAA' }, 'der_malformed'],
    [
      { fault: 'answer', status: 200, headers: { 'content-type': 'application/pkcs7-mime', 'content-length': '9999999' } },
      'est_response_malformed',
    ],
    [{ fault: 'answer', status: 204 }, 'est_refused'],
    [{ fault: 'answer', status: 404, body: 'no such label' }, 'est_refused'],
    [{ fault: 'answer', status: 503 }, 'est_unavailable'],
    [{ fault: 'pending', retryAfter: '120' }, 'est_pending'],
  ]
  for (const [fault, code] of cases) {
    it(`${fault.fault}${'status' in fault ? ` ${fault.status}` : ''} over TLS: ${code}, nothing kept but the request`, async () => {
      const device = await newborn()
      const identity = boot(device, { http: undefined, timeoutSeconds: fault.fault === 'drip' ? 0.5 : 20 })
      est.fail('simpleenroll', fault)
      const before = process.memoryUsage().rss
      expect(await codeOf(identity.enroll())).toBe(code)
      expect(process.memoryUsage().rss - before).toBeLessThan(64 * 2 ** 20)
      expect(identity.status()).toMatchObject({ state: 'unenrolled', generation: 0 })
      expect(() => identity.tlsOptions()).toThrow(BirthmarkError)
      expect((await identity.enroll()).state).toBe('active')
      const sent = est.requests.filter(one => one.operation === 'simpleenroll').slice(-2)
      if (fault.fault !== 'cut' && sent[0].csr) expect(sent[0].csr).toEqual(sent[1].csr)
      identity.close()
    })
  }

  it('[RFC 7030 3.2.1] a redirect elsewhere is refused and nobody is asked there', async () => {
    let asked = 0
    const elsewhere = createServer((_, response) => {
      asked++
      response.end()
    })
    await new Promise<void>(resolve => elsewhere.listen(0, '127.0.0.1', resolve))
    const identity = boot(await newborn(), { http: undefined })
    for (const status of [301, 302, 307, 308]) {
      const location = `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}/.well-known/est/simpleenroll`
      est.fail('simpleenroll', { fault: 'answer', status, headers: { location } })
      expect(await codeOf(identity.enroll())).toBe('est_refused')
    }
    expect(asked).toBe(0)
    identity.close()
    elsewhere.close()
  })

  it('[F6] the SDK undoes no content encoding on /cacerts either', async () => {
    const { server, birth } = est.trust
    const identity = boot(await newborn(), { http: undefined, trust: { server, birth } })
    est.fail('cacerts', { fault: 'gzip' })
    expect(await codeOf(identity.enroll())).toBe('est_response_malformed')
    expect((await identity.enroll()).state).toBe('active')
    identity.close()
  })

  it('on renewal leaves the old identity in use', async () => {
    const identity = boot(await newborn())
    await identity.enroll()
    const old = identity.tlsOptions().cert
    for (const fault of ['wrong-key', 'wrong-ca', 'wrong-name', 'empty', 'gzip', 'lost-reply'] as const) {
      est.fail('simplereenroll', { fault })
      expect(await codeOf(identity.renew())).not.toBe('resolved')
      expect(identity.tlsOptions().cert).toBe(old)
    }
    expect((await identity.renew()).generation).toBe(2)
    identity.close()
  })
})

describe('[F59] a reboot before confirmation', () => {
  it('sends the same CSR again, with the same key, and gets the one certificate', async () => {
    const device = await newborn()
    const issued = est.issued()
    const from = est.requests.length
    est.fail('simpleenroll', { fault: 'pending', retryAfter: '5' }, { fault: 'lost-reply' }, { fault: 'cut' })
    for (const code of ['est_pending', 'network', 'network'] as const) {
      const identity = boot(device)
      expect(await codeOf(identity.enroll())).toBe(code)
      identity.close()
    }
    const identity = boot(device)
    await identity.enroll()
    const csrs = est.requests.slice(from).flatMap(one => (one.csr ? [Buffer.from(one.csr).toString('hex')] : []))
    // The connection that was cut at once never showed its request.
    expect(csrs).toHaveLength(3)
    expect(new Set(csrs).size).toBe(1)
    expect(est.issued() - issued).toBe(1)
    const key = createPublicKey(createPrivateKey(identity.tlsOptions().key ?? ''))
    expect(Buffer.from(parseCsr(new Uint8Array(Buffer.from(csrs[0], 'hex'))).spki)).toEqual(
      key.export({ type: 'spki', format: 'der' }),
    )
    identity.close()
  })

  it('after the answer was stored but not proven asks for nothing and proves it', async () => {
    const device = await newborn()
    const dying = boot(device, { http: flakyHttp(est.direct(), n => (n === 1 ? 'network' : null)) })
    expect(await codeOf(dying.enroll())).toBe('network')
    dying.close()
    const from = est.requests.length
    const identity = boot(device)
    expect((await identity.enroll()).generation).toBe(1)
    expect(est.requests.slice(from).map(one => one.operation)).toEqual(['cacerts'])
    identity.close()
  })
})

describe('[F60] ten thousand devices at once', () => {
  const devices = 10_000
  const hash = { sha256: (bytes: Uint8Array) => new Uint8Array(createHash('sha256').update(bytes).digest()) }
  /** Deterministic stand-in for each device's random source. */
  const random = (device: number, draw: number) => createHash('sha256').update(`${device}/${draw}`).digest().subarray(0, 3)

  /** The fullest second against an even spread over `seconds`. */
  function peak(times: number[], seconds: number): number {
    const counts = new Map<number, number>()
    for (const time of times) counts.set(Math.floor(time), (counts.get(Math.floor(time)) ?? 0) + 1)
    return Math.max(...counts.values()) / (devices / seconds)
  }

  it('told Retry-After 120 in the same second, come back evenly over two minutes, and the next time too', () => {
    for (const failures of [0, 1, 3]) {
      const times = Array.from({ length: devices }, (_, device) => retryDelay(failures, 120, random(device, failures)))
      expect(Math.min(...times)).toBeGreaterThanOrEqual(120)
      expect(Math.max(...times)).toBeLessThan(240)
      // 83 a second on average; six standard deviations are 1.66.
      expect(peak(times, 120)).toBeLessThan(1.66)
    }
  })

  it('failing together for an hour, drift apart rather than together', () => {
    const times = new Array<number>(devices).fill(0)
    for (let failures = 1; failures <= 8; failures++)
      for (let device = 0; device < devices; device++) times[device] += retryDelay(failures, 0, random(device, failures))
    expect(peak(times, 1280)).toBeLessThan(6)
  })

  it('enrolled in the same second, renew evenly over a sixth of the life', () => {
    const life = 30 * 86400
    const times = Array.from({ length: devices }, (_, device) => renewalTime(hash, `dev-${device}`, 1, start, start + life))
    const hours = times.map(time => (time - start - (life * 2) / 3) / 3600)
    expect(Math.min(...hours)).toBeGreaterThanOrEqual(0)
    expect(Math.max(...hours)).toBeLessThan(120)
    expect(peak(hours, 120)).toBeLessThan(1.66)
  })

  it('the agent itself waits so: no two of fifty devices answered 503 together come back together', async () => {
    const waits: number[] = []
    for (let i = 0; i < 50; i++) {
      const clock = fakeClock(start)
      est.fail('simpleenroll', { fault: 'answer', status: 503, headers: { 'retry-after': '120' } })
      const identity = boot(await newborn(), { clock }).start()
      await clock.advance(0)
      await expect.poll(() => identity.status().lastError?.code, { interval: 1 }).toBe('est_unavailable')
      waits.push(clock.timers()[0])
      identity.close()
    }
    expect(Math.min(...waits)).toBeGreaterThanOrEqual(120)
    expect(Math.max(...waits)).toBeLessThan(240)
    expect(new Set(waits.map(wait => wait.toFixed(3))).size).toBe(50)
    expect(Math.max(...waits) - Math.min(...waits)).toBeGreaterThan(60)
  })
})

describe('months in a drawer', () => {
  it('a device that was off until its certificate ended comes back by itself, with its birth certificate', async () => {
    let now = start
    const server = await startTestEst({ now: () => now })
    const device = { keys: memoryKeys(), store: memoryStore() }
    await server.bear('drawer-1', device)
    const on = () =>
      createIdentity({ ...device, server: { url: server.url }, trust: server.trust, http: server.direct(), clock: fakeClock(now) })
    const before = on()
    await before.enroll()
    before.close()
    now += 200 * 86400
    const clock = fakeClock(now)
    const after = createIdentity({ ...device, server: { url: server.url }, trust: server.trust, http: server.direct(), clock })
    expect(after.status()).toMatchObject({ state: 'expired', generation: 1 })
    after.start()
    await clock.advance(60)
    await expect.poll(() => after.status()).toMatchObject({ state: 'active', generation: 2 })
    expect(server.requests.findLast(({ csr }) => csr)).toMatchObject({ operation: 'simpleenroll', client: 'serialNumber=drawer-1' })
    after.close()
    await server.close()
  })
})
