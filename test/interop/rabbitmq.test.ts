// Debian's RabbitMQ with its HTTP authentication backend in place of our broker: it asks our webhook at every CONNECT, SUBSCRIBE and PUBLISH,
// and a revocation ends the sessions by its management API. It has never heard of Birthmark.

import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Membership } from '@birthmark/device-sdk/core'
import { createRuleSet, type Status, statusOf, systemClock } from '@birthmark/fleet-revocation'
import { createSessionEnder, createWebhook, rabbitSessions, webhookListener } from '@birthmark/fleet-revocation/http-auth'
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Credential, createTestAuthority } from '../../packages/fleet-revocation/src/testing/authority.ts'
import { quietLog } from '../../packages/fleet-revocation/src/testing/memory-bus.ts'
import { ended, fleet, until } from '../support/broker.ts'
import { type Rabbit, startRabbit } from '../support/rabbitmq.ts'
import { available } from './debian.ts'

const [devices, services, servers] = [
  createTestAuthority('devices'),
  createTestAuthority('services'),
  createTestAuthority('servers'),
]
const rules = createRuleSet()
const judge = statusOf(rules, fleet)
let fresh = true
const known = new Map<string, { membership: Membership; issuerKeyId: null }>()
const webhook = createWebhook({
  fleet,
  find: id => known.get(id) ?? null,
  status: (membership, issuerKeyId): Status => (fresh ? judge(membership, issuerKeyId) : 'unknown'),
  services: { 'watcher@acme': 'observer', 'publisher@acme': 'publisher' },
  administrators: { enforcer: createHash('sha256').update('a password').digest('hex') },
  log: quietLog,
})
const secret = 'test-secret-0123456789'
const cleanups: (() => unknown)[] = []
let rabbit: Rabbit

describe.skipIf(!available({ 'rabbitmq-server': 'rabbitmq-server' }))('a real RabbitMQ asks the webhook', () => {
  beforeAll(async () => {
    const asked = createServer(webhookListener(webhook, { secret, log: quietLog }))
    await new Promise<void>(resolve => asked.listen(0, '127.0.0.1', resolve))
    cleanups.push(() => asked.close().closeAllConnections())
    const { keyPem, certPem } = servers.server()
    rabbit = await startRabbit({
      tls: { ca: devices.certPem + services.certPem, cert: certPem, key: keyPem },
      webhook: `http://127.0.0.1:${(asked.address() as AddressInfo).port}/${secret}`,
    })
    cleanups.push(() => rabbit.close())
  }, 120_000)

  afterAll(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
  })

  let idx = 0
  function device(id: string, gids: number[]): Credential {
    const membership = { fleet, idx: idx++, gids }
    known.set(id, { membership, issuerKeyId: null })
    return devices.device(id, membership)
  }
  const open: MqttClient[] = []
  cleanups.push(() => Promise.all(open.map(client => client.endAsync(true))))
  const connect = (clientId: string, { keyPem, certPem }: Credential, more: IClientOptions = {}): Promise<MqttClient> =>
    new Promise((resolve, reject) => {
      const client = mqtt.connect(`mqtts://localhost:${rabbit.mqttPort}`, {
        ...{ clientId, ca: [servers.certPem], key: keyPem, cert: certPem, reconnectPeriod: 0 },
        ...more,
      })
      open.push(client)
      client.once('connect', () => resolve(client))
      client.once('error', reject)
      client.once('close', () => reject(new Error('closed')))
    })

  it('[F12] [F50] [F51] admits by certificate, topic by topic, cuts the revoked without their Will, refuses them, and leaves the neighbour', async () => {
    const ender = createSessionEnder({
      sessions: rabbitSessions({ url: rabbit.managementUrl, user: 'enforcer', password: 'a password' }),
      ...webhook,
      candidates: webhook.admitted,
      clock: systemClock,
      log: quietLog,
      sweepSeconds: 3600,
    })
    cleanups.push(() => ender.close())
    const watcher = await connect('watcher@acme', services.service('watcher@acme'))
    const seen: string[] = []
    watcher.on('message', (topic, payload) => seen.push(`${topic} ${payload}`))
    await watcher.subscribeAsync('devices/#', { qos: 1 })
    const sevens = await Promise.all(
      ['seven-1', 'seven-2', 'seven-3'].map(async id => {
        const credential = device(id, [7])
        const will = { topic: `devices/${id}/gone`, payload: Buffer.from('will'), qos: 1, retain: false } as const
        return { id, credential, client: await connect(id, credential, { will }) }
      }),
    )
    const eight = { credential: device('eight', [8]), client: await connect('eight', device('eight', [8])) }
    for (const { id, client } of sevens) {
      await client.subscribeAsync([`devices/${id}/cmd`, `fr/1/${fleet}/head`], { qos: 1 })
      await client.publishAsync(`devices/${id}/telemetry`, 'before', { qos: 1 })
    }
    await until(() => sevens.every(({ id }) => seen.includes(`devices/${id}/telemetry before`)), 'all are heard')

    // Another's name, and another's topics: RabbitMQ ends a session that publishes what it may not.
    await expect(connect('eight', sevens[0].credential)).rejects.toThrow()
    await expect(connect('stranger', devices.device('stranger', { fleet, idx: 999, gids: [] }))).rejects.toThrow()
    const nosy = await connect('nosy', device('nosy', [9]))
    expect((await nosy.subscribeAsync('devices/eight/#', { qos: 1 }).catch(() => [{ qos: 128 }]))[0].qos).toBe(128)
    for (const topic of ['devices/eight/telemetry', `fr/1/${fleet}/head`]) {
      const liar = await connect('liar', device('liar', [9]))
      liar.publish(topic, 'forged', { qos: 1 })
      await ended(liar)
    }

    const over = Promise.all(sevens.map(({ client }) => ended(client)))
    rules.merge([{ kind: 'group', gid: 7, bound: 1000 }])
    const at = performance.now()
    expect((await ender.enforce()).cut).toBeGreaterThanOrEqual(3)
    await over
    expect(performance.now() - at).toBeLessThan(10_000)
    for (const { id, credential } of sevens) await expect(connect(id, credential)).rejects.toThrow()
    expect(eight.client.connected).toBe(true)
    await eight.client.publishAsync('devices/eight/telemetry', 'after', { qos: 1 })
    await until(() => seen.includes('devices/eight/telemetry after'), 'the neighbour is heard')
    expect(seen.filter(message => /will|forged/.test(message))).toEqual([])
  })

  it('[F48] admits nobody while nothing proves that no revocation was missed, and keeps what is connected', async () => {
    const credential = device('nine', [9])
    const standing = await connect('nine', credential)
    fresh = false
    await expect(connect('ten', device('ten', [9]))).rejects.toThrow()
    expect(standing.connected).toBe(true)
    fresh = true
    await connect('ten', device('ten', [9]))
  })

  it('is closed to who does not know its secret or asks for an administrator without the password', async () => {
    const url = (path: string) => `http://127.0.0.1:${Number(/:(\d+)/.exec(rabbit.managementUrl)?.[1])}${path}`
    const api = (password: string) =>
      fetch(url('/api/whoami'), { headers: { authorization: `Basic ${Buffer.from(`enforcer:${password}`).toString('base64')}` } })
    expect((await api('a password')).status).toBe(200)
    expect((await api('another')).status).toBe(401)
  })
})
