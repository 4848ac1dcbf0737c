// FAULTS 55, the other half: where a device gets its time from, how far it goes by it, and what a server or somebody between can make of that.
import { createIdentity, type IdentityOptions, memoryKeys, memoryStore } from '@birthmark/device-sdk/node'
import { fakeClock, startTestEst, type TestEst } from '@birthmark/device-sdk/testing'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const start = Date.UTC(2026, 10, 22) / 1000
let est: TestEst
let serial = 0

beforeAll(async () => {
  est = await startTestEst({ now: () => start })
})
afterAll(() => est.close())

async function newborn() {
  const device = { keys: memoryKeys(), store: memoryStore() }
  await est.bear(`time-${++serial}`, device)
  return device
}

/** A board without a clock that wants a signed time; `passed` is what its counter says. */
function boot(
  device: { keys: ReturnType<typeof memoryKeys>; store: ReturnType<typeof memoryStore> },
  more: Partial<IdentityOptions> = {},
) {
  return createIdentity({
    ...device,
    server: { url: est.url },
    trust: est.trust,
    http: est.direct(),
    clock: fakeClock(-1),
    timeFloor: start - 30 * 86400,
    time: { trust: 'signed', ...est.time },
    ...more,
  })
}

describe('[F55] signed time', () => {
  it('is asked for before enrolling, with a new nonce each time, and counts on from there', async () => {
    let passed = 1000
    const identity = boot(await newborn(), { time: { trust: 'signed', ...est.time, elapsed: () => passed } })
    expect(identity.status()).toMatchObject({ timeTrusted: false, time: { trust: 'floor', wanted: 'signed' } })
    expect(await identity.enroll()).toMatchObject({ state: 'active', timeTrusted: true, time: { trust: 'signed', error: null } })
    expect(identity.status().time.floor).toBe(start)
    passed += 29 * 86400
    expect(identity.status().state).toBe('active')
    passed += 2 * 86400
    expect(identity.status().state).toBe('expired')
    identity.close()
  })

  for (const [fault, why] of [
    [{ fault: 'replayed' }, 'time_rejected'],
    [{ fault: 'lying', at: start + 10 * 365 * 86400 }, 'time_rejected'],
    [{ fault: 'lying', at: start - 400 * 86400, signed: true }, 'time_rejected'],
    [{ fault: 'answer', status: 200, body: new Uint8Array(300) }, 'time_rejected'],
    [{ fault: 'answer', status: 200, body: 'no' }, 'cbor_malformed'],
    [{ fault: 'answer', status: 404 }, 'est_refused'],
    [{ fault: 'cut' }, 'network'],
  ] as const)
    it(`${fault.fault}${'signed' in fault ? ', signed, before the build' : ''}${'status' in fault ? ` ${fault.status}` : ''}: ${why}; the floor is in force, and said to be`, async () => {
      const identity = boot(await newborn())
      est.fail('time', fault)
      const { time, timeTrusted, state } = await identity.enroll()
      expect({ timeTrusted, state }).toEqual({ timeTrusted: false, state: 'active' })
      expect(time).toMatchObject({ trust: 'floor', wanted: 'signed', error: { code: why } })
      // The next operation asks again.
      expect((await identity.renew()).time.trust).toBe('signed')
      identity.close()
    })

  it('is kept as the floor over a reboot, so that nobody takes the device back in time', async () => {
    const device = await newborn()
    const first = boot(device)
    await first.enroll()
    first.close()
    est.fail('time', { fault: 'cut' }, { fault: 'lying', at: start - 86400, signed: true })
    const again = boot(device, { timeFloor: 0 })
    expect(again.status().time).toMatchObject({ trust: 'floor', floor: start })
    await again.renew()
    expect((await again.renew()).time).toMatchObject({ trust: 'floor', error: { code: 'time_rejected' } })
    again.close()
  })

  it('left to itself, asks until there is an answer, and daily from then on', async () => {
    const clock = fakeClock(-1)
    const identity = boot(await newborn(), { clock })
    est.fail('time', { fault: 'cut' }, { fault: 'replayed' })
    const asked = () => est.requests.filter(one => one.operation === 'time').length
    const before = asked()
    identity.start()
    await expect.poll(() => asked() - before).toBe(1)
    const passing = async () => {
      await clock.advance(60)
      return identity.status().time.trust
    }
    await expect.poll(passing).toBe('signed')
    const then = asked()
    await clock.advance(86400 + 60)
    await expect.poll(() => asked() - then).toBe(1)
    identity.close()
  })

  it('wanted without a fleet or a key to believe is a mistake of the caller', async () => {
    const device = await newborn()
    expect(() => boot(device, { time: { trust: 'signed' } })).toThrow(TypeError)
    expect(() => boot(device, { time: { trust: 'signed', fleet: 'test', signers: ['no key'] } })).toThrow()
  })
})

describe('[F55] the trust that is in force', () => {
  it('none: nothing that may have ended is believed, and the error says why', async () => {
    const identity = boot(await newborn(), { time: { trust: 'none' }, clock: fakeClock(start) })
    await expect(identity.enroll()).rejects.toMatchObject({
      code: 'path_time_untrusted',
      message: expect.stringContaining('time trust: none'),
    })
    expect(identity.status()).toMatchObject({ timeTrusted: false, time: { trust: 'none', wanted: 'none', floor: 0, error: null } })
    identity.close()
  })

  it('floor: the clock is not looked at', async () => {
    const identity = boot(await newborn(), {
      time: { trust: 'floor' },
      clock: fakeClock(start + 400 * 86400),
      timeFloor: start - 86400,
    })
    expect(await identity.enroll()).toMatchObject({
      state: 'active',
      timeTrusted: false,
      time: { trust: 'floor', wanted: 'floor' },
    })
    identity.close()
  })

  it('network: the clock, and the floor where it shows what is past', async () => {
    const clock = fakeClock(start)
    const identity = boot(await newborn(), { time: { trust: 'network' }, clock, timeFloor: start - 86400 })
    expect((await identity.enroll()).time).toMatchObject({ trust: 'network', error: null })
    clock.set(5)
    expect(identity.status()).toMatchObject({
      timeTrusted: false,
      time: { trust: 'floor', wanted: 'network', error: { code: 'time_rejected' } },
    })
    identity.close()
  })
})

describe('[F55] over TLS, the server is judged by the same time', () => {
  it('a board in 1970 or in 2090 enrolls, and a server that has ended by the device’s time is refused though the machine’s clock would take it', async () => {
    for (const trust of ['signed', 'floor'] as const) {
      const identity = boot(await newborn(), { http: undefined, time: { trust, ...est.time } })
      expect(await identity.enroll()).toMatchObject({ state: 'active', time: { trust, error: null } })
      identity.close()
    }
    const late = boot(await newborn(), { http: undefined, time: { trust: 'floor' }, timeFloor: 253402300799 })
    await expect(late.enroll()).rejects.toMatchObject({ code: expect.stringMatching(/server_untrusted|path_expired/) })
    late.close()
  })

  it('another root, another name, a client’s certificate: refused without a clock as with one', async () => {
    const trust = { ...est.trust, server: est.authorities.stranger.pem }
    const stranger = boot(await newborn(), { http: undefined, trust })
    await expect(stranger.enroll()).rejects.toMatchObject({
      code: 'server_untrusted',
      message: expect.stringContaining('time trust: floor, signed wanted'),
    })
    stranger.close()
    // 127.0.0.2 reaches the same server; its certificate does not say so.
    const url = est.url.replace('127.0.0.1', '127.0.0.2')
    const named = boot(await newborn(), { http: undefined, server: { url } })
    await expect(named.enroll()).rejects.toMatchObject({ code: expect.stringMatching(/server_untrusted|network/) })
    named.close()
  })
})
