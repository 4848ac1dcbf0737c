// What a device does when it is held back or taken back: it keeps its identity in quarantine, stops when revoked, says so, and comes back by its birth
// certificate where the policy has it.
import { createIdentity, type IdentityOptions, memoryKeys, memoryStore } from '@birthmark/device-sdk/node'
import { fakeClock, startTestEst, type TestEst } from '@birthmark/device-sdk/testing'
import { afterAll, beforeAll, expect, test } from 'vitest'

const start = Date.UTC(2026, 10, 22) / 1000
let est: TestEst

beforeAll(async () => {
  est = await startTestEst({ now: () => start })
})
afterAll(() => est.close())

async function enrolled(id: string, more: Partial<IdentityOptions> = {}) {
  const device = { keys: memoryKeys(), store: memoryStore() }
  await est.bear(id, device)
  const clock = fakeClock(start)
  const boot = () => createIdentity({ ...device, server: { url: est.url }, trust: est.trust, http: est.direct(), clock, ...more })
  const identity = boot()
  await identity.enroll()
  return { identity, clock, boot }
}

test('in quarantine a device keeps its identity, says so, and asks again with backoff until it is lifted', async () => {
  const { identity, clock } = await enrolled('held-1')
  est.quarantine('held-1')
  const failures: string[] = []
  identity.on('failed', ({ error }) => failures.push(error.code))
  identity.on('revoked', () => failures.push('revoked'))
  await expect(identity.renew()).rejects.toMatchObject({ code: 'quarantined', retryable: true })
  identity.start()
  for (let failed = 1; failed < 5; failed++) {
    const [next] = clock.timers()
    expect(next).toBeGreaterThanOrEqual(10 * 2 ** (failed - 1))
    await clock.advance(next)
    await expect.poll(() => failures.length).toBe(failed + 1)
  }
  expect(new Set(failures)).toEqual(new Set(['quarantined']))
  expect(identity.status()).toMatchObject({ state: 'active', generation: 1, lastError: { code: 'quarantined' } })
  expect(identity.tlsOptions().cert).toContain('CERTIFICATE')
  est.release('held-1')
  await clock.advance(clock.timers()[0])
  await expect.poll(() => identity.status().generation).toBe(2)
  identity.close()
})

test('revoked, a device stops, says so once, and stays stopped over a reboot', async () => {
  const { identity, clock, boot } = await enrolled('held-2')
  const said: string[] = []
  identity.on('revoked', ({ by }) => said.push(by))
  identity.start()
  est.revoke('held-2')
  await expect(identity.renew()).rejects.toMatchObject({ code: 'revoked', retryable: false })
  expect(said).toEqual(['server'])
  expect(identity.status().state).toBe('revoked')
  expect(() => identity.tlsOptions()).toThrow(expect.objectContaining({ code: 'revoked' }))
  const asked = est.requests.length
  await clock.advance(90 * 86400)
  identity.close()
  const again = boot().start()
  await clock.advance(90 * 86400)
  expect(again.status().state).toBe('revoked')
  expect(est.requests.length).toBe(asked)
  again.close()
})

test('with readmission by birth it asks ever less often, each time with its birth certificate, until the policy says yes', async () => {
  const { identity, clock, boot } = await enrolled('held-3', { readmission: 'birth' })
  identity.start()
  est.revoke('held-3')
  await expect(identity.renew()).rejects.toMatchObject({ code: 'revoked' })
  const from = est.requests.length
  const asked = () => est.requests.slice(from).filter(one => one.operation === 'simpleenroll')
  for (let refusals = 0; refusals < 4; refusals++) {
    const [next] = clock.timers()
    expect(next).toBeGreaterThanOrEqual(600 * 2 ** refusals)
    expect(next).toBeLessThan(1200 * 2 ** refusals)
    await clock.advance(next)
    await expect.poll(() => asked().length).toBe(refusals + 1)
    await expect.poll(() => clock.timers().length).toBe(1)
    expect(identity.status().state).toBe('revoked')
  }
  // Whatever it asked with, it was not what was taken back.
  expect(est.requests.slice(from).filter(one => one.operation === 'simplereenroll')).toEqual([])
  identity.close()
  est.release('held-3')
  const again = boot().start()
  expect(again.status().state).toBe('revoked')
  await clock.advance(1200)
  await expect.poll(() => again.status().state).toBe('active')
  expect(again.status().generation).toBe(2)
  again.close()
})
