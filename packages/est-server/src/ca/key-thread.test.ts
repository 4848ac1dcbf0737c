import { generateKeyPairSync, randomBytes, verify } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import type { Worker } from 'node:worker_threads'
import { testAuthority } from '@birthmark/device-sdk/testing'
import { expect, test, vi } from 'vitest'
import { softwareIssuer } from './issuer-key.ts'
import { keyThread } from './key-thread.ts'
import type { KeyBatch } from './key-worker.ts'

/** The threads that were opened, in order, with the batches each was given. They are real. */
const threads = vi.hoisted(() => [] as (Worker & { given: KeyBatch[] })[])
const jobsOf = ({ given }: { given: KeyBatch[] }) => given.flatMap(({ jobs }) => jobs).length
vi.mock('node:worker_threads', async original => {
  const real = await original<typeof import('node:worker_threads')>()
  class Watched extends real.Worker {
    given: KeyBatch[] = []
    constructor(...given: ConstructorParameters<typeof Worker>) {
      super(...given)
      threads.push(this)
    }
    override postMessage(batch: KeyBatch): void {
      this.given.push(batch)
      super.postMessage(batch)
    }
  }
  return { ...real, Worker: Watched }
})

/** A busy machine starts a thread in seconds. */
const eventually = (holds: () => void) => vi.waitFor(holds, { timeout: 20_000 })

/** A clock that stands, and what is to happen later. */
function standingClock() {
  const timers: { seconds: number; callback: () => void }[] = []
  return {
    at: 0,
    timers,
    now(): number {
      return this.at
    },
    setTimer(seconds: number, callback: () => void) {
      const timer = { seconds, callback }
      timers.push(timer)
      return () => void timers.splice(timers.indexOf(timer), 1)
    },
  }
}

test('what fails in a batch fails alone, and a key that was closed signs no more', async () => {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const thread = keyThread({
    name: 'test',
    privateKeyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    nice: 0,
  })
  const messages = Array.from({ length: 40 }, () => randomBytes(300))
  const [signatures, other] = await Promise.all([
    Promise.all(messages.map(message => thread.sign('rsa-pkcs1-sha256', message))),
    thread.sign('ecdsa-sha256', messages[0]).catch((error: { code: string }) => error.code),
  ])
  expect(signatures.every((signature, i) => verify('sha256', messages[i], publicKey, signature))).toBe(true)
  expect(other).toBe('issuer_failed')
  const late = thread.sign('rsa-pkcs1-sha256', messages[0])
  const closed = thread.close()
  await expect(late).rejects.toMatchObject({ code: 'issuer_failed' })
  await closed
  await expect(thread.sign('rsa-pkcs1-sha256', messages[0])).rejects.toMatchObject({ code: 'issuer_failed' })
})

test('a thread that ended is followed by another: what it was asked and what is asked meanwhile is refused with the cause, and no job is done by both', async () => {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const clock = standingClock()
  const lines: { fields: object; message: string }[] = []
  const line = (fields: object, message: string) => void lines.push({ fields, message })
  const thread = keyThread({
    name: 'test',
    privateKeyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    nice: 0,
    clock,
    log: { info: line, warn: line, error: line },
  })
  const first = threads.length - 1
  const message = randomBytes(300)
  const sign = () => thread.sign('rsa-pkcs1-sha256', message)
  await sign()
  // No random bytes are that few: nothing in the thread catches it. Behind it as many as make more than one batch.
  const asked = [thread.decrypt(new Uint8Array(256), null, -1), ...Array.from({ length: 20 }, sign)]
  const ended = {
    code: 'issuer_failed',
    message: expect.stringMatching(/the test key's thread ended: .*out of range/),
    cause: expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }),
  }
  for (const one of await Promise.allSettled(asked)) expect(one).toMatchObject({ status: 'rejected', reason: ended })
  await expect(sign()).rejects.toMatchObject(ended)
  expect(thread.unready()).toMatch(/out of range/)
  expect(lines).toEqual([
    {
      fields: { key: 'test', err: ended.cause, againSeconds: 0.2 },
      message: "a key's thread ended; another one is opened",
    },
  ])

  clock.timers.shift()!.callback()
  // Until it has said that it lives.
  await expect(sign()).rejects.toMatchObject(ended)
  await eventually(() => expect(thread.unready()).toBeNull())
  expect(lines.at(-1)).toEqual({ fields: { key: 'test' }, message: "a key's thread serves again" })
  expect(verify('sha256', message, publicKey, await sign())).toBe(true)
  expect([threads.length - first, jobsOf(threads[first + 1]), lines.length]).toEqual([2, 1, 2])
  await thread.close()
})

test('a thread that ends again and again is opened at growing pauses, one that lived a minute at once, and none after the key was closed', async () => {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const clock = standingClock()
  const privateKeyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
  const thread = keyThread({ name: 'test', privateKeyPem, nice: 0, clock })
  const pauses: number[] = []
  const end = async () => {
    await threads.at(-1)!.terminate()
    await eventually(() => expect(clock.timers.length).toBe(1))
    pauses.push(clock.timers[0].seconds)
  }
  for (let i = 0; i < 10; i++) {
    await end()
    // None but two come to life.
    clock.timers.shift()!.callback()
    if (i === 2 || i === 9) await eventually(() => expect(thread.unready()).toBeNull())
  }
  expect(pauses).toEqual([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30])
  clock.at += 60
  await end()
  expect([pauses.at(-1), thread.unready()]).toEqual([0.2, "the test key's thread ended: exit code 1"])
  await thread.close()
  expect(clock.timers).toEqual([])
})

test('a key that is closed amid its work refuses that, and stays closed, whatever its thread still says', async () => {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const clock = standingClock()
  const privateKeyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
  const thread = keyThread({ name: 'test', privateKeyPem, nice: 0, clock })
  const refused = { code: 'issuer_failed', message: expect.stringContaining('was closed') }
  const away = expect(thread.sign('rsa-pkcs1-sha256', randomBytes(100))).rejects.toMatchObject(refused)
  await new Promise(resolve => setImmediate(resolve))
  const closing = thread.close()
  // What it says last: an answer to what was away, and that it has its key.
  threads.at(-1)!.emit('message', [new Uint8Array(256)])
  threads.at(-1)!.emit('message', [])
  await Promise.all([away, closing])
  await expect(thread.sign('rsa-pkcs1-sha256', randomBytes(100))).rejects.toMatchObject(refused)
})

test('an issuer whose thread for the patient has ended says so to them and signs for the others', async () => {
  const { certificate, privateKeyPem } = testAuthority('Root').subordinate('RSA CA', 'RSA-2048')
  const clock = standingClock()
  const issuer = softwareIssuer({ certificate, privateKeyPem, clock })
  const tbs = randomBytes(500)
  await issuer.sign(tbs, true)
  expect([issuer.unready?.(true), issuer.unready?.()]).toEqual([null, null])
  const away = issuer.sign(tbs, true)
  await threads.at(-1)!.terminate()
  await expect(away).rejects.toMatchObject({ code: 'issuer_failed' })
  expect([issuer.unready?.(true), issuer.unready?.()]).toEqual(["the issuer key's thread ended: exit code 1", null])
  expect(issuer.verify(tbs, await issuer.sign(tbs))).toBe(true)
  clock.timers[0].callback()
  await eventually(() => expect(issuer.unready?.(true)).toBeNull())
  expect(issuer.verify(tbs, await issuer.sign(tbs, true))).toBe(true)
  await issuer.close?.()
})

/** How many of this process's threads the system runs behind the others: niceness 10 (proc(5), field 19 of stat). Elsewhere there is no such thing. */
const behind = () =>
  process.platform !== 'linux'
    ? null
    : readdirSync('/proc/self/task').filter(
        thread => readFileSync(`/proc/self/task/${thread}/stat`, 'latin1').split(') ')[1].split(' ')[16] === '10',
      ).length

test('what an RSA issuer signs for the patient goes to a thread of theirs, what it signs for others does not, and both are alike', async () => {
  const { certificate, privateKeyPem } = testAuthority('Root').subordinate('RSA CA', 'RSA-2048')
  const issuer = softwareIssuer({ certificate, privateKeyPem })
  const before = threads.length
  const tbs = randomBytes(500)
  const prompt = await issuer.sign(tbs)
  expect(threads.length).toBe(before)
  const already = behind()
  const patient = await issuer.sign(tbs, true)
  expect(behind()).toBe(already === null ? null : already + 1)
  expect([threads.length - before, jobsOf(threads.at(-1)!)]).toEqual([1, 1])
  expect(Buffer.compare(prompt, patient)).toBe(0)
  expect(issuer.verify(tbs, patient)).toBe(true)
  await issuer.close?.()
})

test('the thread is asked to make way between two operations while somebody else is served, and not otherwise', async () => {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  let isCalm = true
  const thread = keyThread({
    name: 'test',
    privateKeyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    nice: 0,
    loopTurns: { isCalm: () => isCalm },
  })
  const messages = [randomBytes(300), randomBytes(300)]
  const asked = async () => {
    const from = threads.at(-1)!.given.length
    const signatures = await Promise.all(messages.map(message => thread.sign('rsa-pkcs1-sha256', message)))
    expect(signatures.every((signature, i) => verify('sha256', messages[i], publicKey, signature))).toBe(true)
    return threads.at(-1)!.given.slice(from)
  }
  const batch = (makeWay: boolean) => [{ jobs: [expect.anything(), expect.anything()], makeWay }]
  expect(await asked()).toEqual(batch(false))
  isCalm = false
  expect(await asked()).toEqual(batch(true))
  await thread.close()
})
