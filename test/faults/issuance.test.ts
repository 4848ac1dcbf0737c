// Whatever fails while a certificate is made: nothing is signed that was not recorded, nothing acknowledged is lost, a retry gets exactly one
// certificate, and every intent resolves. After each case the store is checked whole.

import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { hexOf, parseCertificate } from '@birthmark/device-sdk/core'
import { failpoints, type Peer, type Store } from '@birthmark/est-server'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  csrFor,
  fleet,
  issuedBy,
  type Kernel,
  type KernelOptions,
  kernel,
  nameOf,
  peerWith,
  type TestDevice,
  testKey,
} from '../../packages/est-server/src/testing/kernel.ts'
import type { ChildPlan } from './issuance-child.ts'

let k: Kernel
let d: TestDevice
const kernels: Kernel[] = []
const open = async (options: KernelOptions) => {
  const made = await kernel(options)
  kernels.push(made)
  return made
}
beforeEach(async () => {
  k = await kernel({ profile: { admitSecrets: true } })
  d = await k.device('m-1')
})
afterEach(async () => {
  for (const other of kernels.splice(0)) await other.close()
  const last = await kernel({ of: k, profile: { admitSecrets: true } })
  expect(await last.store.check()).toEqual([])
  expect(await last.store.openIntents(10)).toEqual([])
  await last.close()
  await k.remove()
})

const base64 = (der: Uint8Array) => Buffer.from(der).toString('base64')

function planFor(requests: ChildPlan['requests'], dieAt: string): ChildPlan {
  const { folder } = k
  return {
    folder,
    fleet,
    now: k.clock.at,
    issuer: k.ca.pem,
    issuerKey: k.ca.privateKeyPem,
    anchor: base64(k.root.certificate),
    requests,
    dieAt,
  }
}

const asked = (peer: Peer, csr: Uint8Array, operation: 'enroll' | 'reenroll' = 'enroll') => ({
  ...{ operation, chain: peer.chain && peer.chain.map(base64), basic: peer.basic, csr: base64(csr) },
})

/** Runs the child; `onLine` sees each acknowledged certificate, in hex, and may kill it. */
function run(plan: ChildPlan, onLine: (line: string, kill: () => void) => void = () => {}) {
  const child = spawn(
    process.execPath,
    [
      '--conditions=source',
      '--disable-warning=ExperimentalWarning',
      fileURLToPath(new URL('issuance-child.ts', import.meta.url)),
      JSON.stringify(plan),
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  )
  let rest = ''
  let errors = ''
  child.stdout.setEncoding('utf8').on('data', text => {
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) onLine(line, () => child.kill('SIGKILL'))
  })
  child.stderr.setEncoding('utf8').on('data', text => {
    errors += text
  })
  return new Promise<{ signal: string | null; errors: string }>(done => child.on('close', (_, signal) => done({ signal, errors })))
}

const certificatesOf = async (from: Kernel) => (await from.audit()).filter(r => r.kind === 'certificate_issued')

describe('[F36] killed at a failpoint', () => {
  const ways = {
    birth: async () => asked(d.peer(), csrFor(testKey(), nameOf('m-1'))),
    secret: async () => {
      const { user, password } = await k.registry.mintSecret({ deviceId: 'm-2', lifetimeSeconds: 600, by: 'test' })
      return asked(peerWith(null, { basic: { user, password } }), csrFor(testKey(), nameOf('m-2')))
    },
    renewal: async () => {
      const operational = issuedBy(await k.enroll(d.peer(), csrFor(testKey(), nameOf('m-1'))))
      return asked(peerWith([operational]), csrFor(testKey(), nameOf('m-1', 'm-1')), 'reenroll')
    },
  }
  const cases = Object.entries(ways).flatMap(([way, make]) => failpoints.map(point => [way, point, make] as const))

  it.each(cases)('%s at `%s`: the retry gets exactly one certificate, every intent resolves', async (_, point, make) => {
    const request = await make()
    const before = (await certificatesOf(k)).length
    await k.close()
    let acknowledged = 0
    const died = await run(planFor([request], point), () => acknowledged++)
    expect(died).toEqual({ signal: 'SIGKILL', errors: '' })
    expect(acknowledged).toBe(0)

    const after = await open({ of: k, profile: { admitSecrets: true } })
    const intended = ['intended', 'signed', 'verified'].includes(point)
    expect(await after.enrollment.reconcile()).toEqual({ voided: intended ? 1 : 0 })
    const peer = peerWith(request.chain && request.chain.map(c => new Uint8Array(Buffer.from(c, 'base64'))), {
      basic: request.basic,
    })
    const retry = () => after.enroll(peer, new Uint8Array(Buffer.from(request.csr, 'base64')), { operation: request.operation })
    const outcome = await retry()
    expect(outcome).toMatchObject({ kind: 'issued', again: point === 'recorded' })
    expect(await retry()).toMatchObject({ kind: 'issued', again: true })
    expect((await certificatesOf(after)).length).toBe(before + 1)
    const { serial } = parseCertificate(issuedBy(outcome))
    expect((await certificatesOf(after)).at(-1)?.detail).toContain(hexOf(serial))
    expect((await after.audit()).filter(r => r.kind === 'intent_voided')).toHaveLength(intended ? 1 : 0)
  })

  it('[F67] killed at any moment under load: everything acknowledged is there, once, and the rest can be asked again', async () => {
    const devices = await Promise.all(Array.from({ length: 40 }, (_, i) => k.device(`load-${i}`)))
    const requests = devices.map(device => asked(device.peer(), csrFor(testKey(), nameOf(device.id))))
    await k.close()
    const acknowledged = new Set<string>()
    // The acknowledgement after which the child is killed; the others of its batch are on their way.
    for (const killAfter of [1, 7, 23]) {
      let lines = 0
      await run(planFor(requests, ''), (line, kill) => {
        acknowledged.add(line)
        if (++lines === killAfter) kill()
      })
      const after = await kernel({ of: k })
      expect(await after.store.check()).toEqual([])
      for (const certificate of acknowledged) {
        const { serial } = parseCertificate(new Uint8Array(Buffer.from(certificate, 'hex')))
        expect(hexOf((await after.store.certificate(after.issuer.keyId, serial))!.der)).toBe(certificate)
      }
      await after.close()
    }
    await run(planFor(requests, ''), line => acknowledged.add(line))
    expect(acknowledged.size).toBe(40)
    const after = await open({ of: k })
    expect(await certificatesOf(after)).toHaveLength(40)
  })
})

describe('a write of the store fails', () => {
  const unknown = Object.assign(new Error('lost'), {})
  /** The `at`-th call of `method` fails once: before it was done, or after it was done and before the answer. */
  function failing(method: 'recordIntent' | 'recordCertificate' | 'voidIntent', persisted: boolean) {
    let calls = 0
    return (store: Store): Store => ({
      ...store,
      async [method](...args: never[]) {
        if (calls++ > 0) return (store[method] as (...a: never[]) => Promise<unknown>)(...args)
        if (persisted) await (store[method] as (...a: never[]) => Promise<unknown>)(...args)
        throw unknown
      },
    })
  }

  it.each([
    ['recordIntent', false],
    ['recordIntent', true],
    ['recordCertificate', false],
    ['recordCertificate', true],
  ] as const)('%s (persisted: %s): not answered as issued; the retry gets exactly one certificate', async (method, persisted) => {
    const broken = await open({ of: k, between: failing(method, persisted) })
    const csr = csrFor(testKey(), nameOf('m-1'))
    expect(await broken.enroll(d.peer(), csr)).toMatchObject({ kind: 'unavailable' })
    const signed = broken.signatures()
    expect(signed).toBe(method === 'recordIntent' ? 0 : 1)
    const again = method === 'recordCertificate' && persisted
    expect(await broken.enroll(d.peer(), csr)).toMatchObject({ kind: 'issued', again })
    expect(await certificatesOf(broken)).toHaveLength(1)
  })

  it('[F68] the disk is full: refused at once and ever after, nothing is signed without its intent', async () => {
    await k.close()
    // Leaves room for little more than what is there.
    const full = await open({ of: k, storeOptions: { bytesMax: 4096 }, profile: { supersedesMax: 1000 } })
    const ask = () => full.enroll(d.peer(), csrFor(testKey(), nameOf('m-1')))
    const outcomes = []
    for (let i = 0; i < 100 && outcomes.at(-1)?.kind !== 'unavailable'; i++) outcomes.push(await ask())
    expect(outcomes.at(-1)).toMatchObject({ kind: 'unavailable', code: 'store_unavailable' })
    const signed = full.signatures()
    expect(await ask()).toMatchObject({ kind: 'unavailable', code: 'store_unavailable' })
    expect(full.signatures()).toBe(signed)
  })
})

describe('the random source', () => {
  it('[F35] repeats itself: a taken serial is drawn again, three times, then 500; never two certificates of one serial', async () => {
    const random = (n: number) => new Uint8Array(n).fill(7)
    let intents = 0
    const counting = (store: Store): Store => ({
      ...store,
      recordIntent(intent) {
        intents++
        return store.recordIntent(intent)
      },
    })
    const poor = await open({ of: k, random, between: counting })
    const other = await k.device('m-2')
    expect((await poor.enroll(d.peer(), csrFor(testKey(), nameOf('m-1')))).kind).toBe('issued')
    const ask = () => poor.enroll(other.peer(), csrFor(testKey(), nameOf('m-2')))
    expect(await ask()).toMatchObject({ kind: 'unavailable', code: 'serial_conflict' })
    expect(intents).toBe(1 + 3)
    expect(poor.signatures()).toBe(1)
    // The clock moves on, and with it the serial's first part.
    poor.clock.at++
    expect((await ask()).kind).toBe('issued')
    // A repeat that ends is not noticed outside.
    const third = await k.device('m-3')
    const once = await open({ of: poor, random: n => new Uint8Array(randomBytes(n)).fill(7, 0, 20) })
    expect((await once.enroll(third.peer(), csrFor(testKey(), nameOf('m-3')))).kind).toBe('issued')
  })
})

describe('the last look before signing', () => {
  it('[F37] a lint failure: 500, an alarm, and the key was not used', async () => {
    const strict = await open({ of: k, lints: [c => (c.subjectAltNames.length === 0 ? 'no alternative name' : null)] })
    expect(await strict.enroll(d.peer(), csrFor(testKey(), nameOf('m-1')))).toMatchObject({
      kind: 'unavailable',
      code: 'lint_failed',
    })
    expect(strict.signatures()).toBe(0)
    expect(strict.logged.filter(l => l.level === 'error')).toMatchObject([
      { fields: { code: 'lint_failed' }, message: expect.stringContaining('alarm') },
    ])
    expect((await strict.audit()).at(-1)).toMatchObject({ kind: 'failure', code: 'lint_failed' })
    expect(await strict.store.openIntents(1)).toEqual([])
  })

  it('[F41] a wrong signature is not released and not recorded', async () => {
    let wrong = true
    const faulty = await open({
      of: k,
      issuer: issuer => ({
        ...issuer,
        async sign(tbs) {
          const signature = Buffer.from(await issuer.sign(tbs))
          if (wrong) signature[signature.length - 1] ^= 1
          return signature
        },
      }),
    })
    const csr = csrFor(testKey(), nameOf('m-1'))
    expect(await faulty.enroll(d.peer(), csr)).toMatchObject({ kind: 'unavailable', code: 'signature_wrong' })
    expect((await faulty.audit()).map(r => r.kind)).toEqual(['manifest_imported', 'intent_voided', 'failure'])
    wrong = false
    expect(await faulty.enroll(d.peer(), csr)).toMatchObject({ kind: 'issued', again: false })
  })

  it('[F40] the key does not answer: 503, the intent is void, the next request starts anew', async () => {
    let gone = true
    const absent = await open({
      of: k,
      issuer: issuer => ({ ...issuer, sign: tbs => (gone ? Promise.reject(new Error('token removed')) : issuer.sign(tbs)) }),
    })
    const csr = csrFor(testKey(), nameOf('m-1'))
    expect(await absent.enroll(d.peer(), csr)).toMatchObject({
      kind: 'unavailable',
      code: 'issuer_unavailable',
      retryAfterSeconds: 30,
    })
    gone = false
    expect(await absent.enroll(d.peer(), csr)).toMatchObject({ kind: 'issued', again: false })
  })
})

describe('the clock', () => {
  it.each([
    ['an hour', 3600],
    ['a year', 366 * 86_400],
  ])(
    '[F39] goes back %s: issuance halts, also after a restart, until it is right or an operator accepts it',
    async (_, seconds) => {
      expect((await k.enroll(d.peer(), csrFor(testKey(), nameOf('m-1')))).kind).toBe('issued')
      const other = await k.device('m-2')
      const signed = k.signatures()
      const right = k.clock.at
      k.clock.at = right - seconds
      const ask = (from: Kernel) => from.enroll(other.peer(), csrFor(testKey(), nameOf('m-2')))
      expect(await ask(k)).toMatchObject({ kind: 'unavailable', code: 'clock_regressed' })
      const restarted = await open({ of: k })
      expect(await ask(restarted)).toMatchObject({ kind: 'unavailable', code: 'clock_regressed' })
      expect(k.signatures() + restarted.signatures()).toBe(signed)
      k.clock.at = right - 60
      expect((await ask(k)).kind).toBe('issued')
      k.clock.at = right - seconds
      const accepted = {
        at: k.clock.at,
        kind: 'clock_accepted',
        requestId: '',
        fleet: '',
        device: '',
        by: 'operator',
        code: '',
        detail: '',
      } as const
      await k.store.acceptTime(accepted)
      expect((await k.enroll(d.peer(), csrFor(testKey(), nameOf('m-1')))).kind).toBe('issued')
    },
  )
})
