// Revocation with a broker that brings nothing: everything that is signed over the server's own HTTPS port, to a relying party that has no
// other way, and a server's first minute.

import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { Agent, createServer, request } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { encodePem, judgeTime, timeRequest } from '@birthmark/device-sdk/core'
import {
  createPull,
  createRelyingParty,
  decodeHeartbeat,
  encodeQuestion,
  httpsGet,
  nodeVerify,
  noticeKeyId,
  openAnswer,
  stateFile,
  systemClock,
} from '@birthmark/fleet-revocation'
import { connectMqttBus } from '@birthmark/fleet-revocation/broker'
import { type DeviceEnv, requireDevice } from '@birthmark/fleet-revocation/hono'
import { createDeviceGuard } from '@birthmark/fleet-revocation/node'
import { getRequestListener } from '@hono/node-server'
import { Hono } from 'hono'
import { afterEach, expect, test } from 'vitest'
import { compose } from '../../packages/birthmark/src/compose.ts'
import { prepareDevelopment } from '../../packages/birthmark/src/development.ts'
import { createTestAuthority } from '../../packages/fleet-revocation/src/testing/authority.ts'
import { quietLog } from '../../packages/fleet-revocation/src/testing/memory-bus.ts'
import { until } from '../support/broker.ts'

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

async function start(more: { keys?: number; countersignAbove?: number } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'bm-'))
  cleanups.push(() => rmSync(folder, { recursive: true }))
  const options = { folder, host: '127.0.0.1', estPort: 0, mqttPort: 0, lifetimeSeconds: 86_400, random: randomBytes }
  const { settings } = await prepareDevelopment(options)
  const standby = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  const keys = more.keys === 2 ? [...settings.notices.keys, standby] : settings.notices.keys
  const issuing = createTestAuthority('device issuer')
  const issuer = {
    certificates: [issuing.der],
    previous: [],
    next: null,
    links: [],
    key: { kind: 'software' as const, pem: issuing.keyPem, passphrase: null },
  }
  const countersignAbove = more.countersignAbove === undefined ? null : { devices: more.countersignAbove, share: null }
  const notices = { keys, countersignAbove }
  const ports = { clock: systemClock, random: randomBytes, log: quietLog, onFatal: () => {} }
  const services = createTestAuthority('services')
  const serverAnchors = [...settings.serverAnchors, services.der]
  const mqtt = { ...settings.mqtt, services: { gateway: 'relying-party' as const } }
  const running = await compose({ ...settings, issuer, notices, serverAnchors, mqtt }, ports)
  cleanups.push(() => running.close())
  const ca = running.device.serverAnchors.map(der => encodePem('CERTIFICATE', der))
  const signers = running.device.noticeKeys.map(spki => ({ keyId: noticeKeyId(spki), algorithm: -7, spki }))
  const { fleet } = settings
  const relyingParty = async (oneSignature?: { most: number }) => {
    const party = await createRelyingParty({
      ...{ name: 'gateway', fleet, signers, clock: systemClock, log: quietLog },
      state: { load: async () => null, save: async () => {} },
      pull: createPull(fleet, httpsGet({ url: running.est, tls: { ca } })),
      ...(oneSignature ? { oneSignature } : {}),
    })
    cleanups.push(() => party.close())
    return party
  }
  return { running, fleet, ca, signers, relyingParty, issuing, services }
}

test('[F48] a new server signs a first notice by itself, so that a relying party may admit before anything was ever revoked', async () => {
  const { relyingParty } = await start()
  const party = await relyingParty()
  await until(() => party.fresh(), 'the party is fresh')
  expect(party.progress()).toMatchObject({ through: 1, newest: 1 })
})

test('[F48] what is revoked reaches a relying party over HTTPS alone, the snapshot among it', async () => {
  const { running, fleet, ca, relyingParty } = await start({ keys: 2, countersignAbove: 0 })
  await running.administration.mintSecret({ device: 'unit-1', groups: ['batch=1'], minutes: 5 })
  const plan = await running.administration.planRevocation('batch=1')
  await running.administration.revoke({ group: 'batch=1', digest: plan.digest, reason: 'test' })
  const party = await relyingParty({ most: 0 })
  await until(() => party.progress().through === 2, 'both notices are there')
  expect(party.rules.rules()).toMatchObject([{ kind: 'group', gid: 1 }])
  const get = httpsGet({ url: running.est, tls: { ca } })
  const snapshot = await get(`/.well-known/fr/1/${fleet}/snap/0`, 65_536)
  expect((await party.receiveSnapshot(snapshot ?? new Uint8Array(0))).kind).toBe('known')
  for (const path of ['snap/1', 'n/3', 'n/x', 'nothing']) expect(await get(`/.well-known/fr/1/${fleet}/${path}`, 65_536)).toBeNull()
})

test('[F55] the server answers a device’s nonce on the bus', async () => {
  const { running, fleet, ca, signers, issuing } = await start()
  const unit = issuing.device('unit-1', { fleet, idx: 1, gids: [] })
  const bus = connectMqttBus({
    ...{ url: running.mqtt, clientId: 'unit-1', log: quietLog },
    tls: { ca, cert: unit.certPem, key: unit.keyPem },
  })
  cleanups.push(() => bus.close())
  await new Promise<void>(resolve => bus.onConnect(resolve))
  const answers: Uint8Array[] = []
  await bus.subscribe(`fr/1/${fleet}/rsp/unit-1`, (_topic, payload) => answers.push(payload))
  const nonce = createHash('sha256').update('once').digest()
  await bus.publish(`fr/1/${fleet}/req`, encodeQuestion({ device: 'unit-1', nonce, idx: -1 }), { qos: 1, retain: false })
  await until(() => answers.length > 0, 'the answer is there')
  let seq = 0
  openAnswer(answers[0], fleet, signers, nodeVerify(), (_problem, body) => {
    if (body && Buffer.from(body.nonce).equals(nonce)) seq = body.seq
  })
  expect(seq).toBe(1)
})

test('[F55] the server signs the time over a nonce of 16 to 32 bytes, for anybody and for nothing else', async () => {
  const { running, fleet, ca, signers } = await start()
  const get = httpsGet({ url: running.est, tls: { ca } })
  const nonce = new Uint8Array(randomBytes(16))
  const body = (await get(timeRequest(nonce).path, 256)) ?? new Uint8Array(0)
  const judged: unknown[] = []
  for (const [asked, of] of [
    [nonce, fleet],
    [new Uint8Array(16), fleet],
    [nonce, 'other'],
  ] as const)
    judgeTime({ status: 200, headers: {}, body }, asked, of, signers, nodeVerify(), (error, time) =>
      judged.push(error?.message ?? Math.abs(time - Date.now() / 1000) < 60),
    )
  expect(judged).toEqual([true, 'time_rejected: another nonce', 'time_rejected: another fleet'])
  for (const query of ['', '?nonce=00', `?nonce=${'ab'.repeat(33)}`, `?nonce=${'AB'.repeat(16)}`, `?nonce=${'ab'.repeat(16)}&x=1`])
    await expect(get(`/.well-known/birthmark/time${query}`, 256)).rejects.toThrow('status 400')
})

test.each(['MQTT and HTTPS', 'HTTPS alone'])(
  '[F12] [F48] an API that listens by %s cuts and refuses a revoked device within seconds',
  async way => {
    const { running, fleet, ca, signers, issuing, services } = await start()
    await running.administration.mintSecret({ device: 'unit-1', groups: ['batch=1'], minutes: 5 })
    // As docs/enforcement.md has it.
    const folder = mkdtempSync(join(tmpdir(), 'bm-api-'))
    cleanups.push(() => rmSync(folder, { recursive: true }))
    const common = { fleet, clock: systemClock, log: quietLog }
    let cuts = 0
    const guard = createDeviceGuard({ ...common, issuers: [issuing.der], status: (m, k) => party.status(m, k) })
    const gateway = services.service('gateway')
    const tls = { ca, cert: gateway.certPem, key: gateway.keyPem }
    const bus = way === 'HTTPS alone' ? null : connectMqttBus({ url: running.mqtt, clientId: 'gateway', log: quietLog, tls })
    if (bus) cleanups.push(() => bus.close())
    const party = await createRelyingParty({
      ...{
        ...common,
        name: 'gateway',
        signers,
        state: stateFile(join(folder, 'revocation')),
        enforce: async () => {
          const { cut } = await guard.enforce()
          cuts += cut
          return { cut }
        },
      },
      pull: createPull(fleet, httpsGet({ url: running.est, tls: { ca } })),
      ...(bus ? { bus } : { pullSeconds: 1 }),
    })
    cleanups.push(() => party.close(), guard.close)
    const app = new Hono<DeviceEnv>()
    app.use(requireDevice(guard))
    app.get('/me', c => c.text(c.get('device').id))
    const own = createTestAuthority('api').server()
    const https = createServer(
      { key: own.keyPem, cert: own.certPem, requestCert: true, rejectUnauthorized: false, keepAliveTimeout: 60_000 },
      getRequestListener(app.fetch as (request: Request, env: unknown) => Response),
    )
    guard.watch(https)
    await new Promise<void>(resolve => https.listen(0, '127.0.0.1', resolve))
    cleanups.push(() => https.close().closeAllConnections())

    const get = ({ certPem, keyPem }: { certPem: string; keyPem: string }) => {
      const agent = new Agent({ keepAlive: true, rejectUnauthorized: false, cert: certPem, key: keyPem })
      cleanups.push(() => agent.destroy())
      return () =>
        new Promise<number>(resolve => {
          const { port } = https.address() as AddressInfo
          request({ host: '127.0.0.1', port, path: '/me', agent }, response => {
            response.resume()
            response.on('end', () => resolve(response.statusCode ?? 0))
          })
            .on('error', () => resolve(0))
            .end()
        })
    }
    const unit = get(issuing.device('unit-1', { fleet, idx: 0, gids: [1] }))
    const neighbour = get(issuing.device('unit-2', { fleet, idx: 0, gids: [2] }))
    await until(() => party.fresh(), 'the party is fresh')
    expect([await unit(), await neighbour()]).toEqual([200, 200])
    expect(guard.connections()).toBe(2)
    const plan = await running.administration.planRevocation('batch=1')
    await running.administration.revoke({ group: 'batch=1', digest: plan.digest, reason: 'test' })
    await until(async () => (await unit()) === 403, 'the revoked device is refused')
    expect(cuts).toBe(1)
    expect(await neighbour()).toBe(200)
  },
)

test('[F48] a party that only pulls stays fresh by the heartbeats that it pulls', async () => {
  const { fleet, ca, running } = await start()
  const get = httpsGet({ url: running.est, tls: { ca } })
  await until(async () => (await get(`/.well-known/fr/1/${fleet}/hb`, 64)) !== null, 'there is a heartbeat')
  const { notices, heartbeat } = await createPull(fleet, get)(0)
  expect(notices).toHaveLength(1)
  expect(decodeHeartbeat(heartbeat ?? new Uint8Array(0))).toMatchObject({ seq: 1 })
})
