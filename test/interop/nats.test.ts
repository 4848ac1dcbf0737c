// The nodes of Debian's nats-server cut and refuse by themselves who is revoked: the relying party that hears of it takes them off each node's
// users and has it read them again. Neighbours on every node go on undisturbed.

import { once } from 'node:events'
import { connect as connectTcp } from 'node:net'
import { createHeartbeats, createPublisher, createRelyingParty, systemClock } from '@birthmark/fleet-revocation'
import { connectMqttBus, type ServiceRole } from '@birthmark/fleet-revocation/broker'
import { createNatsUsers, type NatsDevice, type NatsUsers, signalReload } from '@birthmark/fleet-revocation/nats'
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt'
import { afterAll, describe, expect, it } from 'vitest'
import { type Credential, createTestAuthority } from '../../packages/fleet-revocation/src/testing/authority.ts'
import { createTestHistory, heartbeatSecret } from '../../packages/fleet-revocation/src/testing/history.ts'
import { quietLog } from '../../packages/fleet-revocation/src/testing/memory-bus.ts'
import { createMemoryOutbox } from '../../packages/fleet-revocation/src/testing/memory-outbox.ts'
import { createTestNoticeKey } from '../../packages/fleet-revocation/src/testing/notice-key.ts'
import { fleet, until } from '../support/broker.ts'
import { startNats, usersBySubject } from '../support/nats.ts'
import { available } from './debian.ts'

const [devices, services, servers] = ['devices', 'services', 'servers'].map(name => createTestAuthority(name))
const key = createTestNoticeKey()
const cleanups: (() => unknown)[] = []
afterAll(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

const known: NatsDevice[] = []
/** A device with a certificate. */
function born(id: string, gid: number): Credential {
  const membership = { fleet, idx: known.length, gids: [gid] }
  known.push({ id, membership, issuerKeyId: null })
  return devices.device(id, membership)
}

/** Resolves when the node has accepted; rejects when it does not. What waited for the session is heard from the first on. */
function admitted(
  url: string,
  clientId: string,
  { keyPem, certPem }: Credential,
  more: IClientOptions = {},
  hear: (topic: string) => void = () => {},
): Promise<MqttClient> {
  return new Promise((resolve, reject) => {
    const client = mqtt.connect(url, {
      ...{ clientId, ca: [servers.certPem], key: keyPem, cert: certPem, reconnectPeriod: 0, connectTimeout: 20_000, ...more },
    })
    cleanups.push(() => client.endAsync(true))
    client.on('message', hear)
    client.once('connect', () => resolve(client))
    client.once('error', reject)
    client.once('close', () => reject(new Error('closed')))
  })
}

/**
 * The same of a device that was written into the users just now: a node reads them when it gets to it. A CONNECT that meets a node before a leader was
 * chosen for what it stores is never answered, one that comes after it at once: so each is given a few seconds only.
 */
async function admittedSoon(...[url, id, credential, more, hear]: Parameters<typeof admitted>): Promise<MqttClient> {
  const clients: MqttClient[] = []
  const isIn = () =>
    admitted(url, id, credential, { connectTimeout: 4000, ...more }, hear).then(
      client => clients.push(client) > 0,
      () => false,
    )
  await until(isIn, `${id} is let in`)
  return clients[0]
}

/** A node without a leader for what it stores refuses. */
const listens = (client: MqttClient, topics: string | string[]) =>
  until(
    () =>
      client.subscribeAsync(topics, { qos: 1 }).then(
        granted => granted.every(({ qos }) => qos === 1),
        () => false,
      ),
    `${topics} is granted`,
    40,
  )

describe.skipIf(!available({ 'nats-server': 'nats-server' }))('nodes of a NATS cluster', () => {
  it('[F12] [F49] [F50] cut who is revoked on every node, refuse it on each, and leave the neighbours', async () => {
    const roles: { [name: string]: ServiceRole } = {
      ...{ 'publisher@acme': 'publisher', 'enforcer@acme': 'relying-party' },
      ...{ 'watcher@acme': 'observer', 'operator@acme': 'operator' },
    }
    const { certPem, keyPem } = servers.server()
    const { nodes, close } = await startNats({
      tls: { ca: devices.certPem + services.certPem, cert: certPem, key: keyPem },
      users: usersBySubject(Object.keys(roles).map(name => `CN=${name}`)),
    })
    cleanups.push(close)
    const kept = born('kept', 10)
    const people = [7, 8].flatMap(gid =>
      nodes.map(({ url }, n) => {
        const id = `dev-${gid}-${n}`
        return { id, gid, url, credential: born(id, gid) }
      }),
    )
    // The rest of a fleet, which never comes, in each node’s file as well.
    for (let i = 0; i < 1000; i++)
      known.push({ id: `rest-${i}`, membership: { fleet, idx: known.length, gids: [10] }, issuerKeyId: null })
    const busOf = (name: string, n: number) => {
      const { keyPem: key, certPem: cert } = services.service(name)
      const bus = connectMqttBus({ url: nodes[n].url, clientId: name, tls: { ca: [servers.certPem], key, cert }, log: quietLog })
      cleanups.push(() => bus.close())
      return bus
    }

    const { notices, outbox } = createMemoryOutbox()
    const history = createTestHistory(key, { heartbeats: true })
    const publisher = createPublisher({
      ...{ outbox, bus: busOf('publisher@acme', 0), fleet, heartbeats: createHeartbeats(heartbeatSecret, fleet) },
      ...{ clock: systemClock, log: quietLog, relyingParties: ['enforcer@acme'] },
    })
    cleanups.push(() => publisher.close())
    const tell = async (gid: number): Promise<void> => {
      const issuedAt = Math.floor(systemClock.now())
      notices.push({ seq: notices.length + 1, notice: await history.add([{ kind: 'group', gid, bound: 1000 }], { issuedAt }) })
      publisher.wake()
    }
    let users: NatsUsers[] = []
    const party = await createRelyingParty({
      ...{ name: 'enforcer@acme', fleet, signers: [key.signer], bus: busOf('enforcer@acme', 1), clock: systemClock, log: quietLog },
      state: { load: async () => null, save: async () => {} },
      enforce: async () => ({ cut: (await Promise.all(users.map(node => node.enforce()))).reduce((sum, { cut }) => sum + cut, 0) }),
    })
    cleanups.push(() => party.close())
    await tell(100)
    await until(() => party.fresh(), 'the party has heard a heartbeat', 40)
    users = await Promise.all(
      nodes.map(({ usersFile, pidFile }) =>
        createNatsUsers({
          ...{ path: usersFile, fleet, devices: () => known, status: party.status, services: roles, everySeconds: 3600 },
          ...{ reload: signalReload(pidFile), clock: systemClock, log: quietLog },
        }),
      ),
    )
    cleanups.push(() => users.map(node => node.close()))
    // Whose first MQTT client ever comes in the middle of that may never answer one (docs/enforcement.md); node 2 has had none.
    await until(
      () => nodes.every(node => node.log().includes('Reloaded server configuration')),
      'the nodes have read their users',
      40,
    )

    const heard: string[] = []
    const watcher = await admittedSoon(nodes[2].url, 'watcher@acme', services.service('watcher@acme'))
    watcher.on('message', (topic, payload) => heard.push(`${topic} ${payload}`))
    await listens(watcher, 'devices/#')
    const sessions = await Promise.all(
      people.map(async person => {
        const will = { topic: `devices/${person.id}/gone`, payload: Buffer.from('will'), qos: 1, retain: false } as const
        const client = await admittedSoon(person.url, person.id, person.credential, { will })
        const session = { ...person, client, closed: false, notices: 0 }
        client.on('close', () => (session.closed = true))
        client.on('message', () => session.notices++)
        await listens(client, [`fr/1/${fleet}/head`, `devices/${person.id}/#`])
        return session
      }),
    )
    const [sevens, eights] = [sessions.filter(({ gid }) => gid === 7), sessions.filter(({ gid }) => gid === 8)]
    const say = (list: typeof sessions, word: string) =>
      Promise.all(list.map(({ id, client }) => client.publishAsync(`devices/${id}/up`, word, { qos: 1 })))
    await say(sessions, 'before')
    await until(() => sessions.every(({ id }) => heard.includes(`devices/${id}/up before`)), 'all are heard', 20)

    // By the access table: no topic of another, no notice of one's own.
    const [nosy] = eights
    for (const filter of ['devices/dev-7-0/#', '$MQTT/sub/#', '$MQTT/#'])
      expect((await nosy.client.subscribeAsync(filter, { qos: 1 }).catch(() => [{ qos: 128 }]))[0].qos).toBe(128)
    for (const topic of ['devices/dev-7-0/up', `fr/1/${fleet}/head`]) nosy.client.publish(topic, 'forged', { qos: 0 })
    // And by certificate alone: NATS' own protocol knows the name, and there is no password to it.
    const native = connectTcp(nodes[0].clientPort, '127.0.0.1')
    native.write(`CONNECT {"user":"SERIALNUMBER=dev-8-0,CN=dev-8-0","pass":"","verbose":true}\r\nPING\r\n`)
    let answer = ''
    native.on('data', data => (answer += data))
    await once(native, 'close')
    expect(answer).toContain('Authorization Violation')

    // A session that waits for its device gives nothing to another that comes under its ClientId.
    const stays = { clean: false }
    const owner = await admittedSoon(nodes[0].url, 'kept', kept, stays)
    await listens(owner, 'devices/kept/#')
    await owner.endAsync()
    const operator = await admittedSoon(nodes[2].url, 'operator@acme', services.service('operator@acme'))
    await operator.publishAsync('devices/kept/cmd', 'secret', { qos: 1 })
    const stolen: string[] = []
    const thief = await admittedSoon(nodes[0].url, 'kept', nosy.credential, stays, topic => stolen.push(topic))
    await new Promise(resolve => setTimeout(resolve, 1000))
    expect(stolen).toEqual([])
    await thief.endAsync()
    const commands: string[] = []
    await admittedSoon(nodes[0].url, 'kept', kept, stays, topic => commands.push(topic))
    await until(() => commands.length === 1, 'it waits for its device', 20)

    const before = eights.map(({ notices: count }) => count)
    await tell(7)
    await until(() => sevens.every(({ closed }) => closed), 'the revoked are cut on every node', 30)
    for (const { id, credential } of sevens)
      for (const { url } of nodes) await expect(admitted(url, id, credential), `${id} at ${url}`).rejects.toThrow()
    await say(eights, 'after')
    await until(() => eights.every(({ id }) => heard.includes(`devices/${id}/up after`)), 'the neighbours are heard', 20)
    await until(() => eights.every(({ notices: count }, n) => count > before[n]), 'the neighbours hear the notice', 20)
    expect(eights.some(({ closed }) => closed)).toBe(false)
    expect(heard.filter(line => /forged|will/.test(line))).toEqual([])
    // Who is new comes in by the same file.
    const late = born('dev-9', 9)
    await Promise.all(users.map(node => node.enforce()))
    await admittedSoon(nodes[1].url, 'dev-9', late)
  }, 120_000)
})
