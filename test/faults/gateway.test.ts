// A device behind a gateway, over real TLS: it enrolls and renews by its own signatures, and a gateway that lies gets nothing for anybody.
import { type Agent, type AgentEvents, createAgent, type GatewayLink, gatewayHttp } from '@birthmark/device-sdk/agent'
import { type Bytes, defaultAlgorithms, membershipOf } from '@birthmark/device-sdk/core'
import { createGateway } from '@birthmark/device-sdk/gateway'
import {
  createIdentity,
  type Identity,
  memoryKeys,
  memoryStore,
  nodeHash,
  nodeRng,
  nodeVerify,
  systemClock,
} from '@birthmark/device-sdk/node'
import { afterEach, expect, test } from 'vitest'
import { type GatewayBench, gatewayBench } from '../support/gateway-bench.ts'

let bench: GatewayBench
afterEach(() => bench.close())

type Carried = Parameters<GatewayLink['exchange']>[0]

/** A device without TLS: an agent over a link whose other end is `forward`. */
function behind(
  unit: { keys: ReturnType<typeof memoryKeys>; store: ReturnType<typeof memoryStore> },
  forward: (request: Carried) => ReturnType<ReturnType<typeof createGateway>['forward']>,
  { skew = 0, operationalAnchors = bench.operationalAnchors, secret = null as { user: string; password: string } | null } = {},
): Agent {
  const link: GatewayLink = {
    exchange(request, done) {
      forward(request).then(
        response => done(null, response),
        error => done(error, null),
      )
      return () => {}
    },
  }
  const clock = { ...systemClock, now: () => systemClock.now() + skew }
  return createAgent(
    { ...unit, hash: nodeHash, verify: nodeVerify, rng: nodeRng, http: gatewayHttp(link, unit.keys, nodeHash, clock), clock },
    {
      ...{
        label: null,
        birthAnchors: [],
        operationalAnchors,
        secret,
        name: new Uint8Array([0x30, 0]),
      },
      ...{ algorithms: defaultAlgorithms, timeFloor: 1767225600, prove: null },
    },
    <T extends keyof AgentEvents>(_type: T, _value: AgentEvents[T]) => {},
  )
}
const run = (f: (done: (error: Error | null) => void) => void) =>
  new Promise<string>(resolve => f(error => resolve(error ? error.message : 'done')))

async function enrolledGateway(id: string): Promise<Identity> {
  const unit = await bench.bear(id, id.startsWith('gw') ? ['role=gateway'] : ['role=meter'])
  const identity = createIdentity({ ...unit, server: { url: bench.url }, trust: bench.trust })
  await identity.enroll()
  return identity
}

test('a device that cannot do mutual TLS enrolls and renews through a gateway, in its own name and with its own keys', async () => {
  bench = await gatewayBench({ gateways: ['role=gateway'] })
  const gateway = createGateway({ identity: await enrolledGateway('gw-1'), server: bench.url, trust: bench.trust.server })
  const unit = await bench.bear('meter-1', ['role=meter'])
  const device = behind(unit, request => gateway.forward(request))
  expect(await run(done => device.enroll(false, done))).toBe('done')
  expect(device.status()).toMatchObject({ state: 'active', deviceId: 'meter-1', generation: 1 })
  expect(await run(done => device.renew(done))).toBe('done')
  const [leaf] = device.identity()?.chain ?? []
  expect(membershipOf(leaf)?.gids).toEqual((await bench.device('meter-1')).gids)
  expect(device.status().generation).toBe(2)
  // Its use behind the gateway is the device's, and retires what came before.
  expect((await bench.device('meter-1')).idxFloor).toBe(membershipOf(leaf)?.idx)
})

test('a device that was not told who issues asks nobody on a link where anybody could answer', async () => {
  bench = await gatewayBench({ gateways: ['role=gateway'] })
  const asked: string[] = []
  const listening = (request: Carried) => {
    asked.push(request.path)
    return Promise.reject(new Error('not asked'))
  }
  const device = behind(await bench.bear('meter-1', ['role=meter']), listening, { operationalAnchors: [] })
  expect(await run(done => device.enroll(false, done))).toMatch(/^path_no_anchor/)
  expect(asked).toEqual([])
})

const secret = { user: 'meter-1', password: 'a one-time secret' }

/** Whoever answers on a link: asks each for its secret, and keeps what it was told. */
function challenger() {
  const said: Carried[] = []
  const challenging = async (request: Carried) => {
    said.push(request)
    return { status: 401, headers: { 'www-authenticate': 'Basic realm="est"' }, body: new Uint8Array(0) }
  }
  return { said, challenging }
}

test('a device that has a secret alone says it to nobody on a link where anybody could hear it, and asks nobody who issues', async () => {
  bench = await gatewayBench({ gateways: ['role=gateway'] })
  const { said, challenging } = challenger()
  const enrolling = (operationalAnchors: Bytes[]) => {
    const device = behind({ keys: memoryKeys(), store: memoryStore() }, challenging, { operationalAnchors, secret })
    return run(done => device.enroll(false, done))
  }
  expect(await enrolling([])).toMatch(/^path_no_anchor/)
  expect(await enrolling(bench.operationalAnchors)).toMatch(/^identity_missing/)
  expect(said).toEqual([])
})

test('a device with a birth certificate does not say its secret there either, whoever asks for it', async () => {
  bench = await gatewayBench({ gateways: ['role=gateway'] })
  const { said, challenging } = challenger()
  const device = behind(await bench.bear('meter-1', ['role=meter']), challenging, { secret })
  expect(await run(done => device.enroll(false, done))).toMatch(/^est_unauthorized/)
  expect(said.map(({ headers }) => headers.authorization)).toEqual([undefined])
})

test('a gateway that lies gets nothing: swapped CSRs, mixed devices, other paths, old proofs, no proofs', async () => {
  bench = await gatewayBench({ gateways: ['role=gateway'] })
  const gateway = createGateway({ identity: await enrolledGateway('gw-1'), server: bench.url, trust: bench.trust.server })
  const issued = await bench.issued()
  const seen: Carried[] = []
  const spying = (change: (request: Carried) => Carried) => (request: Carried) => {
    seen.push(request)
    return gateway.forward(change(request))
  }
  const attempt = async (id: string, change: (request: Carried) => Carried, skew = 0) => {
    const device = behind(await bench.bear(id, ['role=meter']), spying(change), { skew })
    return run(done => device.enroll(false, done))
  }
  const csrOfAnother = async () => {
    await attempt('meter-0', request => ({ ...request, path: '/.well-known/est/simplereenroll' }))
    return seen[0]
  }
  const other = await csrOfAnother()
  const refused = /^est_unauthorized: 401 proof_refused/
  // Another device's CSR under this one's proof; this one's CSR under another's proof.
  expect(await attempt('meter-1', request => ({ ...request, body: other.body }))).toMatch(
    /proof_refused: the device's proof: it is for another body/,
  )
  const mixed = (request: Carried) => ({
    ...request,
    headers: { ...request.headers, 'birthmark-proof': other.headers['birthmark-proof'] },
  })
  expect(await attempt('meter-2', mixed)).toMatch(/it is for another body/)
  // Another operation, a changed bit, no proof at all: the gateway's own certificate never speaks for it.
  expect(await attempt('meter-3', request => ({ ...request, path: '/.well-known/est/simplereenroll' }))).toMatch(
    /it is for another path/,
  )
  const bent = (request: Carried) => {
    const proof = Buffer.from(request.headers['birthmark-proof'], 'base64')
    proof[proof.length - 5] ^= 1
    return { ...request, headers: { ...request.headers, 'birthmark-proof': proof.toString('base64') } }
  }
  expect(await attempt('meter-4', bent)).not.toBe('done')
  expect(
    await attempt('meter-5', ({ headers, ...request }) => ({ ...request, headers: { 'content-type': headers['content-type'] } })),
  ).toMatch(/^not carried: no proof/)
  // A proof of ten minutes ago, or of in ten minutes.
  for (const skew of [-600, 600]) expect(await attempt(`meter-late${skew < 0 ? 0 : 1}`, request => request, skew)).toMatch(refused)
  // Requests that are nobody's.
  for (const path of ['/.well-known/est/serverkeygen', '/healthz', '/.well-known/est/../admin'])
    await expect(gateway.forward({ method: 'POST', path, headers: {}, body: new Uint8Array(1) })).rejects.toMatchObject({
      code: 'est_refused',
    })
  expect(await bench.issued()).toBe(issued)
  // A replay of the very request gives the very certificate, to whoever has no key for it.
  const unit = await bench.bear('meter-9', ['role=meter'])
  expect(
    await run(done =>
      behind(
        unit,
        spying(request => request),
      ).enroll(false, done),
    ),
  ).toBe('done')
  const after = await bench.issued()
  const replayed = seen.findLast(({ path }) => path.endsWith('simpleenroll')) as Carried
  expect((await gateway.forward(replayed)).status).toBe(200)
  expect(await bench.issued()).toBe(after)
})

test('who is no gateway carries nothing: another group, a profile without gateways, a gateway that was revoked', async () => {
  bench = await gatewayBench({ gateways: ['role=gateway'] })
  const carriedBy = async (id: string) => {
    const gateway = createGateway({ identity: await enrolledGateway(id), server: bench.url, trust: bench.trust.server })
    const device = behind(await bench.bear(`behind-${id}`, ['role=meter']), request => gateway.forward(request))
    return { again: () => run(done => device.enroll(false, done)) }
  }
  expect(await (await carriedBy('meter-1')).again()).toMatch(/^est_refused: 403 gateway_not_admitted/)
  const once = await carriedBy('gw-1')
  await bench.revoke('role=gateway')
  expect(await once.again()).toMatch(/^est_refused: 403 gateway_not_admitted/)
  await bench.close()
  bench = await gatewayBench({})
  expect(await (await carriedBy('gw-2')).again()).toMatch(/^est_refused: 403 gateway_not_admitted/)
})
