// An embedded broker with a fleet of test devices, and clients for it: mqtt.js, and sockets that say exactly what a test wants.

import { connect, type TLSSocket } from 'node:tls'
import type { Membership } from '@birthmark/device-sdk/core'
import { type Clock, createRuleSet, type RuleSet, type Status, statusOf, systemClock } from '@birthmark/fleet-revocation'
import { type BrokerLimits, createEmbeddedBroker, type EmbeddedBroker, type ServiceRole } from '@birthmark/fleet-revocation/broker'
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt'
import { type Credential, createTestAuthority, type TestAuthority } from '../../packages/fleet-revocation/src/testing/authority.ts'

export const fleet = 'acme'

export interface LogLine {
  level: string
  message: string
  [field: string]: unknown
}

export interface TestBroker {
  broker: EmbeddedBroker
  rules: RuleSet
  devices: TestAuthority
  services: TestAuthority
  servers: TestAuthority
  log: LogLine[]
  device(id: string, membership?: Partial<Membership>): Credential
  /** Resolves when the broker has accepted; rejects with its reason. */
  connect(id: string, credential: Credential, options?: IClientOptions): Promise<MqttClient>
  /** A TLS connection without MQTT. */
  socket(credential: Credential): Promise<TLSSocket>
  close(): Promise<void>
}

export interface TestBrokerOptions {
  limits?: Partial<BrokerLimits>
  status?: (membership: Membership) => Status
  services?: { [name: string]: ServiceRole }
  clock?: Clock
}

export async function startTestBroker(options: TestBrokerOptions = {}): Promise<TestBroker> {
  const [devices, services, servers] = [
    createTestAuthority('devices'),
    createTestAuthority('services'),
    createTestAuthority('servers'),
  ]
  const rules = createRuleSet()
  const log: LogLine[] = []
  const note = (level: string) => (fields: object, message: string) => void log.push({ ...fields, level, message })
  const server = servers.server()
  const broker = await createEmbeddedBroker({
    host: '127.0.0.1',
    port: 0,
    tls: { key: server.keyPem, cert: server.certPem },
    deviceAnchors: [devices.der],
    serviceAnchors: [services.der],
    services: options.services ?? { publisher: 'publisher', gateway: 'relying-party', watcher: 'observer', desk: 'operator' },
    fleet,
    status: options.status ?? statusOf(rules, fleet),
    limits: options.limits ?? {},
    clock: options.clock ?? systemClock,
    log: { info: note('info'), warn: note('warn'), error: note('error') },
  })
  const clients: MqttClient[] = []
  const sockets: TLSSocket[] = []
  let idx = 0
  const tls = (credential: Credential) => ({ ca: [servers.certPem], key: credential.keyPem, cert: credential.certPem })
  return {
    broker,
    rules,
    devices,
    services,
    servers,
    log,
    device: (id, membership = {}) => devices.device(id, { fleet, idx: idx++, gids: [7], ...membership }),
    connect: (clientId, credential, more = {}) =>
      new Promise((resolve, reject) => {
        const client = mqtt.connect(`mqtts://127.0.0.1:${broker.port}`, {
          clientId,
          ...tls(credential),
          reconnectPeriod: 0,
          ...more,
        })
        clients.push(client)
        client.once('connect', () => resolve(client))
        client.once('error', reject)
        client.once('close', () => reject(new Error('closed before it was accepted')))
      }),
    socket: credential =>
      new Promise((resolve, reject) => {
        const socket = connect({ host: '127.0.0.1', port: broker.port, ...tls(credential) })
        sockets.push(socket)
        socket.once('secureConnect', () => resolve(socket))
        socket.once('error', reject)
        socket.on('error', () => {})
      }),
    close: async () => {
      for (const socket of sockets) socket.destroy()
      await Promise.all(clients.map(client => client.endAsync(true)))
      await broker.close()
    },
  }
}

/** Resolves when the connection is over, whichever way; rejects after `seconds`, which only bounds a hang. */
export function ended(connection: TLSSocket | MqttClient, seconds = 20): Promise<void> {
  return new Promise((resolve, reject) => {
    if ('destroyed' in connection && connection.destroyed) return resolve()
    const timer = setTimeout(() => reject(new Error(`still open after ${seconds} s`)), seconds * 1000)
    const over = (): void => {
      clearTimeout(timer)
      resolve()
    }
    // A socket that is read from notices the end.
    if ('resume' in connection) connection.resume()
    connection.once('close', over)
  })
}

/** Polls until `holds`; rejects after `seconds`. */
export async function until(holds: () => boolean | Promise<boolean>, what: string, seconds = 20): Promise<void> {
  for (const end = Date.now() + seconds * 1000; !(await holds()); ) {
    if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 10))
  }
}

/** An MQTT packet of any declared length; `body` may be shorter or longer. */
export function rawPacket(header: number, length: number, body: Uint8Array = new Uint8Array(0)): Buffer {
  const bytes = [header]
  let rest = length
  do {
    bytes.push((rest % 128) | (rest >= 128 ? 0x80 : 0))
    rest = Math.floor(rest / 128)
  } while (rest > 0)
  return Buffer.concat([Buffer.from(bytes), body])
}
