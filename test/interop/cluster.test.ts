// Notices through a cluster that nobody here wrote: three nodes of Debian's nats-server, mutual TLS, one killed in the middle of a series. The
// publisher, a relying party and devices are on that node, others on the two that live on.

import {
  createHeartbeats,
  createPublisher,
  createRelyingParty,
  nodeVerify,
  type Pulled,
  type RelyingParty,
  systemClock,
} from '@birthmark/fleet-revocation'
import { connectMqttBus, type MqttBus } from '@birthmark/fleet-revocation/broker'
import { createDeviceReceiver } from '@birthmark/fleet-revocation/device'
import { afterEach, describe, expect, it } from 'vitest'
import { type Credential, createTestAuthority } from '../../packages/fleet-revocation/src/testing/authority.ts'
import { createTestHistory, heartbeatSecret } from '../../packages/fleet-revocation/src/testing/history.ts'
import { quietLog } from '../../packages/fleet-revocation/src/testing/memory-bus.ts'
import { createMemoryOutbox } from '../../packages/fleet-revocation/src/testing/memory-outbox.ts'
import { createTestNoticeKey } from '../../packages/fleet-revocation/src/testing/notice-key.ts'
import { fleet, until } from '../support/broker.ts'
import { type NatsCluster, startNats, usersBySubject } from '../support/nats.ts'
import { available } from './debian.ts'

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

const [devices, services, servers] = [
  createTestAuthority('devices'),
  createTestAuthority('services'),
  createTestAuthority('servers'),
]
const key = createTestNoticeKey()
const serviceSubject = (name: string): string => `CN=${name}`
const deviceSubject = (id: string): string => `SERIALNUMBER=${id},CN=${id}`

/** A client of node `first`, and of the others in turn when that is gone. */
function busAt({ nodes }: NatsCluster, first: number, clientId: string, { keyPem, certPem }: Credential): MqttBus {
  const bus = connectMqttBus({
    url: nodes.map((_, i) => nodes[(first + i) % nodes.length].url),
    clientId,
    tls: { ca: [servers.certPem], key: keyPem, cert: certPem },
    log: quietLog,
    reconnectSeconds: 0.5,
    // While the cluster chooses another leader nobody acknowledges; the outbox tries again.
    publishSeconds: 3,
  })
  cleanups.push(() => bus.close())
  return bus
}

async function partyAt(cluster: NatsCluster, n: number, name: string, pull?: (seq: number) => Promise<Pulled>) {
  // Not connected yet: its subscriptions are asked for until the cluster grants them.
  const bus = busAt(cluster, n, name, services.service(name))
  const party = await createRelyingParty({
    ...{ name, fleet, signers: [key.signer], bus, clock: systemClock, log: quietLog, ...(pull ? { pull } : {}) },
    state: { load: async () => null, save: async () => {} },
  })
  cleanups.push(() => party.close())
  await until(() => bus.connected(), `${name} is connected`, 40)
  return party
}

async function deviceAt(cluster: NatsCluster, n: number, gid: number) {
  const id = `dev-${gid}-${n}`
  const membership = { fleet, idx: gid * 10 + n, gids: [gid] }
  const bus = busAt(cluster, n, id, devices.device(id, membership))
  const records = new Map<string, Uint8Array>()
  const receiver = createDeviceReceiver({
    ...{ fleet, membership: () => membership, signers: [key.signer], verify: nodeVerify() },
    store: { get: name => records.get(name) ?? null, put: (name, record) => void records.set(name, record) },
  })
  const listening = new Set<string>()
  const listen = (): void => {
    for (const topic of receiver.topics) {
      if (listening.has(topic)) continue
      listening.add(topic)
      bus.subscribe(topic, (at, payload) => receiver.receive(at, payload, listen)).catch(() => listening.delete(topic))
    }
  }
  listen()
  await until(() => bus.connected(), `${id} is connected`, 40)
  return { membership, bus, receiver }
}

describe.skipIf(!available({ 'nats-server': 'nats-server' }))('a cluster of three with a node killed in the middle', () => {
  it('[F53] [F54] [F69] loses no notice, and who is revoked is denied on every side', async () => {
    const parties = ['party-0', 'party-1', 'party-2']
    const ids = [7, 8].flatMap(gid => [0, 1, 2].map(n => `dev-${gid}-${n}`))
    const { certPem, keyPem } = servers.server()
    const cluster = await startNats({
      tls: { ca: devices.certPem + services.certPem, cert: certPem, key: keyPem },
      users: usersBySubject([...['publisher', 'late', ...parties].map(serviceSubject), ...ids.map(deviceSubject)]),
    })
    cleanups.push(() => cluster.close())
    // The first client has the cluster make its stores.
    const bus = busAt(cluster, 0, 'publisher', services.service('publisher'))
    await until(() => bus.connected(), 'the publisher is connected', 40)
    const { notices, delivered, outbox } = createMemoryOutbox()
    const history = createTestHistory(key, { heartbeats: true })
    const heartbeats = createHeartbeats(heartbeatSecret, fleet)
    const publisher = createPublisher({
      ...{ outbox, bus, fleet, heartbeats, clock: systemClock, log: quietLog },
      // The last is not there, so the publisher shows head and ring again and again.
      relyingParties: [...parties, 'late'],
    })
    cleanups.push(() => publisher.close())
    const judges = await Promise.all(parties.map((name, n) => partyAt(cluster, n, name)))
    const members = await Promise.all([7, 8].flatMap(gid => [0, 1, 2].map(n => deviceAt(cluster, n, gid))))
    const tell = async (gid: number): Promise<void> => {
      const issuedAt = Math.floor(systemClock.now())
      notices.push({ seq: notices.length + 1, notice: await history.add([{ kind: 'group', gid, bound: 1000 }], { issuedAt }) })
      publisher.wake()
    }
    const everybodyHas = (seq: number) => () =>
      judges.every(party => party.progress().through === seq) &&
      members.every(({ receiver }) => receiver.progress().seq === seq && receiver.progress().missing === 0)

    for (const gid of [100, 101, 102]) await tell(gid)
    await until(everybodyHas(3), 'everybody has the first', 40)
    await tell(103)
    await cluster.nodes[0].kill()
    for (const gid of [104, 7, 105, 106]) await tell(gid)
    // New leaders take four to nine seconds, and a client that came too early four more, a few times over.
    await until(() => delivered.size === 8, 'every notice is delivered', 90)
    await until(everybodyHas(8), 'everybody has every notice', 120)
    await until(() => members.every(device => device.bus.connected()), 'all are at the nodes that live', 40)
    expect(members.map(({ receiver }) => receiver.revoked())).toEqual([true, true, true, false, false, false])
    const judged = (party: RelyingParty): string => members.map(({ membership }) => party.status(membership, null)).join(' ')
    const right = 'revoked revoked revoked good good good'
    await until(() => judges.every(party => judged(party) === right), 'every party denies the revoked, and them alone', 40)

    // Who comes only now has everything by pull, whatever the two have retained.
    const late = await partyAt(cluster, 1, 'late', async seq => ({
      snapshots: [],
      notices: notices.filter(entry => entry.seq > seq).map(({ notice }) => notice),
    }))
    await until(() => late.progress().through === 8, 'who comes late has every notice', 60)
    expect(late.rules.isRevoked({ idx: 70, gids: [7] }, null)).toBe(true)
    // Nothing comes back from the dead node: everything above was done by two.
    expect(cluster.nodes.map(node => node.alive())).toEqual([false, true, true])
  }, 400_000)
})
