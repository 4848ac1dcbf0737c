import { afterAll, beforeAll, expect, it } from 'vitest'
import { renewalTime } from '../../agent/schedule.ts'
import { fakeClock, startTestEst, type TestEst } from '../../testing/index.ts'
import { nodeHash } from './crypto.ts'
import { createIdentity, memoryKeys, memoryStore } from './index.ts'

const start = Date.UTC(2026, 10, 22) / 1000
const life = 30 * 86400
let est: TestEst
let serial = 0

beforeAll(async () => {
  est = await startTestEst({ now: () => start, lifetimeSeconds: life })
})
afterAll(() => est.close())

async function newborn() {
  const device = { keys: memoryKeys(), store: memoryStore(), id: `hint-${++serial}` }
  await est.bear(device.id, device)
  return device
}
const boot = ({ keys, store }: Awaited<ReturnType<typeof newborn>>, clock = fakeClock(start)) =>
  createIdentity({ keys, store, server: { url: est.url }, trust: est.trust, http: est.direct(), clock })

it('renews when the server said, after a reboot too', async () => {
  const device = await newborn()
  est.renewAfter('1234567')
  await boot(device).enroll()
  const clock = fakeClock(start)
  const identity = boot(device, clock).start()
  expect(identity.status().renewAt).toBe(start + 1234567)
  // A clock that is believed is not also counted: daily looks at it bring nothing nearer.
  const asked = est.requests.length
  await clock.advance(1234566)
  expect(est.requests).toHaveLength(asked)
  expect(identity.status().generation).toBe(1)
  est.renewAfter('700000')
  await clock.advance(2)
  await expect.poll(() => identity.status().generation).toBe(2)
  // From its activation, which was within these two seconds.
  expect(Math.abs(identity.status().renewAt - start - 1234567 - 700000)).toBeLessThan(2)
  identity.close()
})

it('without the header, with an odd one, and with an odd record its own schedule holds', async () => {
  for (const said of [null, '', '-5', '1e9', 'Mon, 23 Nov 2026 00:00:00 GMT', '99999999999999']) {
    const device = await newborn()
    est.renewAfter('1234567')
    const identity = boot(device)
    await identity.enroll()
    est.renewAfter(said)
    const { generation, renewAt } = await identity.renew()
    expect(renewAt, String(said)).toBe(renewalTime(nodeHash, device.id, generation, start, start + life))
    expect(device.store.get('renew-after'), String(said)).toBeNull()
    for (const record of ['2', '2 ', '2 -1', '2 1 ', 'x'.repeat(40), '\ufffd']) {
      device.store.put('renew-after', new TextEncoder().encode(record))
      expect(boot(device).status().renewAt, record).toBe(renewAt)
    }
  }
})

it('a server that lies neither wears out the device nor lets its certificate run out', async () => {
  for (const [said, at] of [
    ['0', life / 12],
    ['1', life / 12],
    ['999999999', (life / 12) * 11],
  ] as const) {
    est.renewAfter(said)
    expect((await boot(await newborn()).enroll()).renewAt).toBe(start + at)
  }
})

it('a refused answer says nothing about the next one, and a full disk costs only the memory of it', async () => {
  const device = await newborn()
  est.renewAfter('1000000')
  await boot(device).enroll()
  est.fail('simplereenroll', { fault: 'wrong-key' })
  est.renewAfter('400000')
  const identity = boot(device)
  await expect(identity.renew()).rejects.toMatchObject({ code: 'est_certificate_mismatch' })
  expect(identity.status().renewAt).toBe(start + 1000000)
  const { put } = device.store
  device.store.put = (name, value) => {
    if (name === 'renew-after') throw new Error('ENOSPC')
    put(name, value)
  }
  expect((await identity.renew()).renewAt).toBe(start + 400000)
  expect(boot(device).status().renewAt).toBe(renewalTime(nodeHash, device.id, 2, start, start + life))
})
