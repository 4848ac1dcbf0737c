// A simulated device: the real SDK, real TLS, real MQTT; only the sensor is made up. It enrolls, connects with its operational identity,
// sends telemetry, listens for notices, and tells what happens to it.

import { type Bytes, decodePem, type Membership, membershipOf, parseCertificate } from '@birthmark/device-sdk/core'
import {
  type Bus,
  createIdentity,
  type Identity,
  type IdentityOptions,
  memoryStore,
  type NodeKeyStore,
  nodeVerify,
  type Store,
} from '@birthmark/device-sdk/node'
import { noticeKeyId } from '@birthmark/fleet-revocation'
import { connectMqttBus, type MqttBus } from '@birthmark/fleet-revocation/broker'
import { createDeviceReceiver } from '@birthmark/fleet-revocation/device'
import type { DeviceFolder } from '../device-folder.ts'

export interface SimDevice {
  serial: string
  groups: string[]
  identity: Identity
  enroll(): Promise<void>
  /** Resolves when the broker has accepted the session; rejects with the broker's reason when it has not. */
  connect(): Promise<void>
  /** Sends one value; false when there is no session to send it on. */
  measure(): Promise<boolean>
  /** `performance.now()` of the moment the session ended without our doing; null while none was. */
  cutAt: number | null
  connected(): boolean
  /** Measurements that went out; each carries its number. */
  measured: number
  /** Those that the broker has acknowledged. */
  sent: number
  close(): Promise<void>
}

export interface SimDeviceOptions {
  serial: string
  groups: string[]
  keys: NodeKeyStore
  store: Store
  target: DeviceFolder
  secret?: IdentityOptions['secret']
  onCut?: (device: SimDevice) => void
  onRevoked?: (by: 'notice' | 'server') => void
}

// A session that is neither accepted nor refused within this is lost, whatever the broker thinks of it.
const connectTimeoutMs = 15_000

export function createSimDevice(options: SimDeviceOptions): SimDevice {
  const { serial, groups, keys, store, target } = options
  let session: MqttBus | null = null
  const heard = new Map<string, ((payload: Bytes) => void)[]>()

  /** The SDK's bus: what it subscribes to is subscribed on every session, also those to come. */
  const bus: Bus = {
    subscribe(topic, onMessage) {
      heard.set(topic, [...(heard.get(topic) ?? []), onMessage])
      session?.subscribe(topic, (_topic, payload) => onMessage(payload)).catch(() => {})
      return () => void heard.delete(topic)
    },
  }
  const notices = createDeviceReceiver({
    fleet: target.fleet,
    membership: () => membershipIn(identity),
    signers: target.noticeKeys.map(spki => ({ keyId: noticeKeyId(spki), algorithm: -7, spki })),
    verify: nodeVerify,
    store: memoryStore(),
  })
  const identity: Identity = createIdentity({
    keys,
    store,
    server: { url: target.est },
    trust: { server: target.serverAnchors, birth: target.birthAnchors, operational: target.operationalAnchors },
    notices,
    bus,
    secret: options.secret,
  })
  identity.on('revoked', event => options.onRevoked?.(event.by))

  const device: SimDevice = {
    serial,
    groups,
    identity,
    cutAt: null,
    measured: 0,
    sent: 0,
    connected: () => session?.connected() ?? false,
    async enroll() {
      await identity.enroll()
    },
    async connect() {
      const { cert, ca, key } = identity.tlsOptions()
      if (!key) throw new Error('a simulated device has its key in memory')
      // The session before, if any, ends first: the broker would end it for the new one, which would look like a cut.
      const before = session
      session = null
      await before?.close()
      const opened = connectMqttBus({
        url: target.mqtt,
        clientId: serial,
        tls: { ca, cert, key },
        log: { info() {}, warn() {}, error() {} },
        // One attempt: whether and when to come back is the simulation's to say.
        reconnectSeconds: 0,
      })
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error('the broker does not answer')), connectTimeoutMs)
        opened.onConnect(() => {
          clearTimeout(timer)
          session = opened
          resolve()
        })
        opened.onClose(error => {
          clearTimeout(timer)
          if (session === opened) {
            session = null
            device.cutAt = performance.now()
            options.onCut?.(device)
          }
          // After an accepted session this rejects a promise that is settled, which is nothing.
          reject(error ?? new Error('the broker closed the connection'))
        })
      }).catch(async (error: unknown) => {
        await opened.close()
        throw error
      })
      for (const [topic, listeners] of heard)
        for (const listener of listeners) await opened.subscribe(topic, (_topic, payload) => listener(payload))
    },
    async measure() {
      if (!session?.connected()) return false
      // Numbered when it leaves, since the next may leave before this one is acknowledged.
      const value = { n: ++device.measured, celsius: Math.round(200 + 50 * Math.sin(device.measured / 10)) / 10 }
      try {
        await session.publish(`devices/${serial}/telemetry`, Buffer.from(JSON.stringify(value)), { qos: 1, retain: false })
      } catch {
        // Cut while it was on its way: the session's end is told by onClose.
        return false
      }
      device.sent++
      return true
    },
    async close() {
      const ending = session
      session = null
      identity.close()
      await ending?.close()
    },
  }
  return device
}

/** What the operational certificate in use says about groups; null before the first. */
function membershipIn(identity: Identity): Membership | null {
  try {
    const [leaf] = decodePem(identity.tlsOptions().cert, 'CERTIFICATE', 8)
    return leaf ? membershipOf(parseCertificate(leaf)) : null
  } catch {
    // Not enrolled, expired or revoked: there is no certificate in use.
    return null
  }
}
