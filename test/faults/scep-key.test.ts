// The threads that hold SCEP's software keys end under a request: whoever asked hears so, readiness says it, and it comes back by itself.

import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Worker } from 'node:worker_threads'
import { softwareRa } from '@birthmark/est-server'
import { systemClock } from '@birthmark/fleet-revocation'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { compose } from '../../packages/birthmark/src/compose.ts'
import { prepareDevelopment } from '../../packages/birthmark/src/development.ts'
import { quietLog } from '../../packages/fleet-revocation/src/testing/memory-bus.ts'
import { rsaKey, startScepServer } from '../support/scep-server.ts'

/** Of keys, in the order in which they were opened. */
const threads = vi.hoisted(() => [] as Worker[])
vi.mock('node:worker_threads', async original => {
  const real = await original<typeof import('node:worker_threads')>()
  class Watched extends real.Worker {
    constructor(...given: ConstructorParameters<typeof Worker>) {
      super(...given)
      if (String(given[0]).includes('key-worker')) threads.push(this)
    }
  }
  return { ...real, Worker: Watched }
})

/** The system's, but for what a key's thread waits: that happens at `pass()`. */
function heldClock() {
  const held: (() => void)[] = []
  return {
    now: systemClock.now,
    setTimer(seconds: number, callback: () => void) {
      if (seconds !== 0.2) return systemClock.setTimer(seconds, callback)
      held.push(callback)
      return () => {}
    },
    pass: () => held.shift()?.(),
  }
}

const eventually = (holds: () => void) => vi.waitFor(holds, { timeout: 20_000, interval: 20 })
const cleanups: (() => unknown)[] = []
beforeEach(() => void threads.splice(0))
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

it('[F40] the RA: 503 with Retry-After, since not even a refusal can be signed; then the same message gets its certificate, and one alone', async () => {
  const told: string[] = []
  const line = (_fields: object, message: string) => void told.push(message)
  const clock = heldClock()
  const server = await startScepServer({
    async ra(given, { certificate, key }) {
      await given.close()
      return softwareRa({ certificate, privateKeyPem: key, clock, log: { ...quietLog, info: line, error: line } })
    },
  })
  cleanups.push(() => server.stop())
  const key = rsaKey()
  const { message } = server.request('ra-1', await server.challenge('ra-1'), key)
  const post = () => fetch(`${server.url}/scep?operation=PKIOperation`, { method: 'POST', body: Buffer.from(message) })
  expect(server.service.unready()).toBeNull()
  await threads.at(-1)!.terminate()
  await eventually(() => expect(server.service.unready()).toMatch(/^the RA key's thread ended: exit code/))
  const refused = await post()
  expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '5'])
  clock.pass()
  await eventually(() => expect(server.service.unready()).toBeNull())
  expect((await server.ask(message, key.privateKey)).status).toBe('success')
  expect(server.signatures()).toBe(1)
  expect(told).toEqual(["a key's thread ended; another one is opened", "a key's thread serves again"])
})

it('[F40] the issuer, as it signs: a signed refusal that says so, and the same message gets one certificate once it is back', async () => {
  const server = await startScepServer({ issuer: 'RSA-2048' })
  cleanups.push(() => server.stop())
  const first = rsaKey()
  // Opens the issuer's thread, behind the RA's.
  const before = server.request('iss-0', await server.challenge('iss-0'), first).message
  expect((await server.ask(before, first.privateKey)).status).toBe('success')
  const [, thread] = threads
  const key = rsaKey()
  const { message } = server.request('iss-1', await server.challenge('iss-1'), key)
  // Ends before it has read what it is given next.
  const { postMessage } = thread
  thread.postMessage = (...given) => {
    void thread.terminate()
    postMessage.apply(thread, given)
  }
  const refused = await server.ask(message, key.privateKey)
  expect([refused.status, refused.failInfoText]).toEqual(['failure', 'issuer_unavailable: the issuer key is not available now'])
  const intents = async () => (await server.audit()).filter(({ kind }) => kind === 'intent_voided').length
  expect([await intents(), (await server.store.openIntents(10)).length]).toEqual([1, 0])
  // Asked again and again until it is back: that the key is away is known before there is another intent.
  await vi.waitFor(async () => expect((await server.ask(message, key.privateKey)).status).toBe('success'), {
    timeout: 20_000,
    interval: 100,
  })
  expect(await intents()).toBe(1)
  const issued = (await server.audit()).filter(({ kind, device }) => kind === 'certificate_issued' && device === 'iss-1')
  expect(issued.length).toBe(1)
})

it('the server is not ready while the RA has no key, and ready again by itself', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'bm-'))
  cleanups.push(() => rmSync(folder, { recursive: true }))
  const where = { folder, host: '127.0.0.1', estPort: 0, mqttPort: 0, scepPort: 0 }
  const { settings } = await prepareDevelopment({ ...where, lifetimeSeconds: 86_400, random: randomBytes })
  const clock = heldClock()
  const running = await compose(settings, { clock, random: randomBytes, log: quietLog, onFatal: () => {} })
  cleanups.push(() => running.close())
  const unready = async () => (await running.administration.status()).unready
  expect(await unready()).toBeNull()
  await threads[0].terminate()
  await vi.waitFor(async () => expect(await unready()).toMatch(/RA key's thread ended/), { timeout: 20_000 })
  clock.pass()
  await vi.waitFor(async () => expect(await unready()).toBeNull(), { timeout: 20_000 })
})
