// A broker elsewhere, by URL: mqtts with a client certificate. The connection is held and renewed by the client; a publication is done
// when the broker has acknowledged it (QoS 1), which says that it took it and nothing more.

import mqtt, { type MqttClient } from 'mqtt'
import { RevocationError } from '../errors.ts'
import type { Bus, Log } from '../ports.ts'

type OnMessage = Parameters<Bus['subscribe']>[1]

export interface MqttBusOptions {
  /** `mqtts://host:port`; `mqtt://` only to loopback. Several, all of one scheme: the nodes of a cluster, tried in turn. */
  url: string | string[]
  clientId: string
  /** PEM. `ca` alone is trusted, nothing of the system's; without it the system's store is. `key` and `cert` for a broker that asks for them. */
  tls?: { ca: string[]; key?: string | Buffer; cert?: string | Buffer }
  log: Log
  /** Between attempts to connect; 0 for a single attempt. */
  reconnectSeconds?: number
  /**
   * For the acknowledgement of a publication; after it the outbox tries again. 3 for NATS, which acknowledges after 4 s what it could not retain.
   */
  publishSeconds?: number
}

export interface MqttBus extends Bus {
  /** `onGranted`: called each time that the broker has granted it, on every connection; what it retains follows, if it has not come already. */
  subscribe(filter: string, onMessage: OnMessage, onGranted?: () => void): Promise<void>
  subscribeAgain(filter: string): Promise<void>
  connected(): boolean
  /** Called whenever a connection ended or could not be made. `error` says why where that is known, such as a refused CONNECT. */
  onClose(callback: (error: Error | null) => void): void
  close(): Promise<void>
}

// Between attempts to be granted a subscription that was refused; doubled each time up to the maximum.
const subscribeSecondsMin = 1
const subscribeSecondsMax = 60
const encrypted = (protocol: string): boolean => ['mqtts:', 'ssl:', 'tls:'].includes(protocol)
const loopback = new Set(['localhost', '127.0.0.1', '[::1]'])

function serverOf({ protocol, hostname, port }: URL): { host: string; port: number; protocol: 'mqtt' | 'mqtts' } {
  const secure = encrypted(protocol)
  // An IPv6 address comes in brackets.
  return {
    host: hostname.replace(/^\[|\]$/g, ''),
    port: Number(port) || (secure ? 8883 : 1883),
    protocol: secure ? 'mqtts' : 'mqtt',
  }
}

/** Returns at once; the connection comes and goes. Throws `configuration_invalid` for a URL that would send anything in clear. */
export function connectMqttBus(options: MqttBusOptions): MqttBus {
  const { log } = options
  const urls = [options.url].flat().map(text => new URL(text))
  const nodes = urls.map(url => url.host).join(', ')
  if (urls.length === 0) throw new RevocationError('configuration_invalid', 'no URL of a broker')
  for (const { protocol, hostname } of urls) {
    if (!encrypted(protocol) && !(protocol === 'mqtt:' && loopback.has(hostname)))
      throw new RevocationError('configuration_invalid', `${protocol}//${hostname}: use mqtts`)
    if (encrypted(protocol) !== encrypted(urls[0].protocol))
      throw new RevocationError('configuration_invalid', `${nodes}: mqtts for all of them or for none`)
  }
  const secure = encrypted(urls[0].protocol)
  const handlers = new Map<string, { onMessage: OnMessage; onGranted(): void }[]>()
  const connectCallbacks: (() => void)[] = []
  const closeCallbacks: ((error: Error | null) => void)[] = []
  let lastError: Error | null = null
  let closed = false
  let connections = 0
  const client: MqttClient = mqtt.connect(urls[0].href, {
    ...(urls.length > 1 ? { servers: urls.map(serverOf) } : {}),
    clientId: options.clientId,
    clean: true,
    reconnectPeriod: (options.reconnectSeconds ?? 2) * 1000,
    // Subscriptions are made again below, so that a broker that forgot them is told.
    resubscribe: false,
    // The outbox is the queue: what can't be sent now fails now.
    queueQoSZero: false,
    ...(secure && options.tls ? { ...options.tls, rejectUnauthorized: true } : {}),
  })

  client.on('error', error => {
    lastError = error
    log.warn({ err: error, url: nodes }, 'broker connection')
  })
  client.on('close', () => {
    const error = lastError
    lastError = null
    for (const callback of closeCallbacks) callback(error)
  })
  /** Asked until granted: the node of a cluster that is choosing a leader refuses for seconds, and who gave up would stay deaf. */
  function subscribeAgain(filter: string, connection: number, retrySeconds: number): void {
    if (connection !== connections || !client.connected || closed) return
    client.subscribe(filter, { qos: 1 }, error => {
      if (connection !== connections || closed) return
      if (!error) {
        for (const { onGranted } of handlers.get(filter) ?? []) onGranted()
        return
      }
      log.warn({ err: error, filter, retrySeconds }, 'not subscribed again; trying again')
      const next = Math.min(retrySeconds * 2, subscribeSecondsMax)
      setTimeout(() => subscribeAgain(filter, connection, next), retrySeconds * 1000).unref()
    })
  }

  client.on('connect', () => {
    connections++
    for (const filter of handlers.keys()) subscribeAgain(filter, connections, subscribeSecondsMin)
    for (const callback of connectCallbacks) callback()
  })
  client.on('message', (topic, payload) => {
    for (const [filter, list] of handlers) if (matches(filter, topic)) for (const { onMessage } of list) onMessage(topic, payload)
  })

  async function ask(filter: string): Promise<void> {
    await client.subscribeAsync(filter, { qos: 1 }).catch((error: unknown) => {
      throw new RevocationError('bus_failed', `${filter} not granted`, error)
    })
  }

  return {
    connected: () => client.connected,
    publish: (topic, payload, { qos, retain }) =>
      new Promise<void>((resolve, reject) => {
        if (closed) return reject(new RevocationError('bus_closed', topic))
        if (!client.connected) return reject(new RevocationError('bus_failed', `${topic}: not connected to ${nodes}`))
        const seconds = options.publishSeconds ?? 10
        const timer = setTimeout(
          () => reject(new RevocationError('bus_failed', `${topic}: not acknowledged within ${seconds} s`)),
          seconds * 1000,
        )
        client.publish(topic, Buffer.from(payload), { qos, retain }, error => {
          clearTimeout(timer)
          if (error) reject(new RevocationError('bus_failed', topic, error))
          else resolve()
        })
      }),
    subscribe: async (filter, onMessage, onGranted = () => {}) => {
      const handler = { onMessage, onGranted }
      const list = handlers.get(filter)
      if (list) list.push(handler)
      else handlers.set(filter, [handler])
      if (!client.connected) return
      await ask(filter)
      onGranted()
    },
    subscribeAgain: async filter => {
      const asking = handlers.get(filter)
      if (!asking || !client.connected || closed) return
      await ask(filter)
      for (const { onGranted } of asking) onGranted()
    },
    onConnect: callback => {
      connectCallbacks.push(callback)
    },
    onClose: callback => {
      closeCallbacks.push(callback)
    },
    close: async () => {
      closed = true
      await client.endAsync(true)
    },
  }
}

/** MQTT 4.7: `+` one level, `#` the rest and its parent. */
export function matches(filter: string, topic: string): boolean {
  const wanted = filter.split('/')
  const levels = topic.split('/')
  for (let i = 0; i < wanted.length; i++) {
    if (wanted[i] === '#') return true
    if (i >= levels.length || (wanted[i] !== '+' && wanted[i] !== levels[i])) return false
  }
  return wanted.length === levels.length
}
