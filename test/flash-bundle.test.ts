// The script that the footprint benchmark weighs, at work: run where there is nothing of Node's, nor what small engines lack, with ports
// lent from outside, it enrolls, renews and obeys.
import { runInNewContext } from 'node:vm'
import type { createAgent } from '@birthmark/device-sdk/agent'
import { defaultAlgorithms } from '@birthmark/device-sdk/core'
import { memoryKeys, memoryStore, nodeHash, nodeRng, nodeVerify } from '@birthmark/device-sdk/node'
import { fakeClock, startTestEst } from '@birthmark/device-sdk/testing'
import { expect, it } from 'vitest'
import { limits, run } from '../bench/footprint.ts'
import { deviceScript } from '../tools/device-bundle.ts'

const { findingsIn } = (await import(new URL('../tools/lint-subset.mjs', import.meta.url).href)) as {
  findingsIn(code: string): unknown[]
}

const lacking =
  'Map Set WeakMap WeakSet WeakRef Symbol Proxy Reflect Promise BigInt Intl JSON Atomics SharedArrayBuffer BigInt64Array eval Function'

it('the flashed script enrolls, renews and obeys a revocation on a bare engine', async () => {
  const script = await deviceScript()
  // As it is flashed: the lint itself sees it before its names were tried out.
  expect(findingsIn(script)).toEqual([])
  const engine: { birthmark?: { createAgent: typeof createAgent } } = {}
  runInNewContext(`for (const name of '${lacking}'.split(' ')) delete globalThis[name]`, engine)
  runInNewContext(script, engine)
  const flashed = engine.birthmark as { createAgent: typeof createAgent }

  const start = Date.UTC(2026, 10, 22) / 1000
  const est = await startTestEst({ now: () => start })
  const device = { keys: memoryKeys(), store: memoryStore() }
  await est.bear('flashed', device)
  const boot = () =>
    flashed.createAgent(
      { ...device, hash: nodeHash, verify: nodeVerify, rng: nodeRng, http: est.direct(), clock: fakeClock(start) },
      {
        label: null,
        birthAnchors: [est.authorities.birth.certificate],
        operationalAnchors: [],
        secret: null,
        name: new Uint8Array(0),
        algorithms: defaultAlgorithms,
        timeFloor: start - 86400,
        prove: null,
      },
      () => {},
    )
  const ended = (begin: (done: (error: unknown) => void) => void) => new Promise(resolve => begin(resolve))

  const agent = boot()
  expect(await ended(done => agent.enroll(false, done))).toBeNull()
  expect(agent.status()).toMatchObject({ state: 'active', deviceId: 'flashed', generation: 1, timeTrusted: true })
  expect(agent.identity()?.chain.map(({ notAfter }) => notAfter > start)).toEqual([true, true])

  est.fail('simplereenroll', { fault: 'wrong-ca' }, { fault: 'lost-reply' })
  expect(await ended(done => agent.renew(done))).toMatchObject({ code: 'path_no_anchor' })
  const rebooted = boot()
  expect(rebooted.status()).toMatchObject({ state: 'active', generation: 1 })
  expect(await ended(done => rebooted.renew(done))).toMatchObject({ code: 'network' })
  expect(await ended(done => rebooted.renew(done))).toBeNull()
  expect(rebooted.status()).toMatchObject({ state: 'active', generation: 2 })

  est.revoke('flashed')
  expect(await ended(done => rebooted.renew(done))).toMatchObject({ code: 'revoked' })
  expect(boot().status().state).toBe('revoked')
  await est.close()
  // Most of the time goes into trying names.
}, 180_000)

it('the footprint names nothing of Node, tells its figures and keeps the limit on flash', async () => {
  const { table, figures } = await run()
  expect(table).toContain('core + agent, as flashed')
  expect(Object.values(figures).every(figure => figure > 0)).toBe(true)
  for (const [name, limit] of Object.entries(limits)) expect(figures[name], name).toBeLessThanOrEqual(limit)
}, 180_000)
