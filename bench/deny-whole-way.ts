// The whole way of a revocation, with nothing of it played: devices enrolled from a store on disk, a group revoked by the revocation story in one
// SQLite transaction, outbox → publisher → central broker → relying party → another broker that goes by that party's word. There a device
// publishes on and on while it is revoked; it is denied when its session is over and a subscriber beside it has had its last message.

import { generateKeyPairSync } from 'node:crypto'
import { encodePem } from '@birthmark/device-sdk/core'
import { createRevocation, type RecordedRules } from '@birthmark/est-server'
import { createHeartbeats, createPublisher, createRelyingParty, type RelyingParty, systemClock } from '@birthmark/fleet-revocation'
import { connectMqttBus, createEmbeddedBroker } from '@birthmark/fleet-revocation/broker'
import { noticeKeysOf, noticeSigner, noticeSpki, outboxOf } from '../packages/birthmark/src/notice-signing.ts'
import { listCoder } from '../packages/birthmark/src/recorded-rules.ts'
import { csrFor, fleet, issuedBy, type Kernel, kernel, keyOf, nameOf } from '../packages/est-server/src/testing/kernel.ts'
import { createTestAuthority } from '../packages/fleet-revocation/src/testing/authority.ts'
import { startClients } from './deny-clients.ts'
import { monotonicMs } from './monotonic.ts'
import type { ClientCredential } from './revoke-clients.ts'

export interface Denied {
  /** Milliseconds from the commit until the device is denied, by trial. */
  deniedMs: number[]
  /** The same from the request on, which signs and commits. */
  askedMs: number[]
  /** Messages that the subscriber had. */
  deliveries: number
}

const log = { info: () => {}, warn: () => {}, error: (fields: object, message: string) => console.error(message, fields) }
const unit = (trial: number) => `unit=${trial}`

/** Each alone in a group. */
async function enrolled(k: Kernel, count: number): Promise<ClientCredential[]> {
  const credentials: ClientCredential[] = []
  for (let trial = 0; trial < count; trial++) {
    const id = `dev-${trial}`
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const device = await k.device(id, [unit(trial)])
    const certificate = issuedBy(await k.enroll(device.peer(), csrFor(keyOf(privateKey, 'ecdsa-sha256'), nameOf(id))))
    const key = privateKey.export({ format: 'pem', type: 'pkcs8' }).toString()
    credentials.push({ id, key, cert: encodePem('CERTIFICATE', certificate) })
  }
  return credentials
}

/** What a subscriber of all devices has heard: by device, the number of its last message, and when it came. */
function hearsay() {
  const last = new Map<string, { number: number; at: number }>()
  let deliveries = 0
  return {
    last,
    deliveries: () => deliveries,
    hear: (topic: string, payload: Uint8Array): void => {
      deliveries++
      last.set(topic.split('/')[1], { number: (payload[0] << 8) | payload[1], at: monotonicMs() })
    },
  }
}

export async function wholeWay(trials: number): Promise<Denied> {
  const [servers, services] = ['servers', 'services'].map(name => createTestAuthority(name))
  const k = await kernel()
  // Certificates are judged by the brokers' clock.
  k.clock.at = Math.floor(Date.now() / 1000)
  const server = servers.server()
  const common = {
    ...{ host: '127.0.0.1', port: 0, tls: { key: server.keyPem, cert: server.certPem }, deviceAnchors: [k.ca.certificate], fleet },
    ...{ serviceAnchors: [services.der], clock: systemClock, log: { ...log, error: log.info } },
  }
  const central = await createEmbeddedBroker({ ...common, status: () => 'good', services: { edge: 'relying-party' } })
  let party: RelyingParty | null = null
  const edge = await createEmbeddedBroker({
    ...common,
    status: (membership, issuerKeyId) => party?.status(membership, issuerKeyId) ?? 'unknown',
    services: { watcher: 'observer' },
  })
  const busOf = (name: string, port: number) => {
    const { keyPem, certPem } = services.service(name)
    return connectMqttBus({
      ...{ url: `mqtts://localhost:${port}`, clientId: name, tls: { ca: [servers.certPem], key: keyPem, cert: certPem } },
      log: common.log,
    })
  }
  const [bus, watcher] = [busOf('edge', central.port), busOf('watcher', edge.port)]
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const heartbeats = createHeartbeats(new Uint8Array(32).fill(1), fleet)
  const keys = noticeKeysOf([privateKey])
  let committed = 0
  const revocation = createRevocation({
    ...{ store: k.store, fleet, clock: systemClock, log, coder: listCoder, signNotice: noticeSigner(keys, heartbeats) },
    // Told when the store has said that its transaction is on disk.
    onRecorded: (_what: RecordedRules) => {
      committed = monotonicMs()
    },
  })
  const publisher = createPublisher({
    ...{ outbox: outboxOf(k.store, fleet, systemClock.now, { before: async () => {} }), bus: central, fleet, heartbeats },
    ...{ clock: systemClock, log },
  })
  const clients = startClients(servers.certPem, fleet)
  const heard = hearsay()
  try {
    const signer = { algorithm: keys[0].algorithm, keyId: keys[0].keyId, spki: noticeSpki(privateKey) }
    party = await createRelyingParty({
      ...{ name: 'edge', fleet, signers: [signer], bus, clock: systemClock, log, enforce: () => edge.enforce() },
      state: { load: async () => null, save: async () => {} },
    })
    await watcher.subscribe('devices/#', heard.hear)
    const credentials = await enrolled(k, trials)
    await revocation.renew('the benchmark')
    publisher.wake()
    while (!party.fresh()) await new Promise(resolve => setTimeout(resolve, 20))
    await clients.connect(edge.port, credentials)
    const [deniedMs, askedMs]: number[][] = [[], []]
    const unanswered = new Map<string, number>()
    for (const [trial, { id }] of credentials.entries()) {
      await clients.talk(id)
      const silenced = clients.silenced()
      const asked = monotonicMs()
      await revocation.revokeGroup({ group: unit(trial), by: 'the benchmark' })
      publisher.wake()
      const { number, at } = await silenced
      unanswered.set(id, number)
      // Whatever came through before is with the watcher by then, or counts as late.
      await new Promise(resolve => setTimeout(resolve, 50))
      const end = Math.max(at, heard.last.get(id)?.at ?? 0)
      deniedMs.push(end - committed)
      askedMs.push(end - asked)
    }
    await clients.again(credentials.map(({ id }) => id))
    for (const [id, number] of unanswered) {
      const last = heard.last.get(id)?.number ?? 0
      // Every message that was acknowledged came, and of the one that was not it may go either way.
      if (last !== number && last !== number - 1) throw new Error(`${id}: message ${last} came, ${number} was unanswered`)
    }
    return { deniedMs, askedMs, deliveries: heard.deliveries() }
  } finally {
    clients.end()
    publisher.close()
    party?.close()
    await Promise.all([bus.close(), watcher.close()])
    await Promise.all([edge.close(), central.close()])
    await k.remove()
  }
}
