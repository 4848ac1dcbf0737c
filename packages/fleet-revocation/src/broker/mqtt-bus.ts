// A broker elsewhere, by URL: mqtts with a client certificate. The connection is held and renewed by the client; a publication is done
// when the broker has acknowledged it (QoS 1), which says that it took it and nothing more.

import mqtt, { type MqttClient } from 'mqtt'
import { RevocationError } from '../errors.ts'
import type { Bus, Log } from '../ports.ts'

export interface MqttBusOptions {
  /** `mqtts://host:port`; `mqtt://` only to loopback. */
  url: string
  clientId: string
  /** PEM. `ca` alone is trusted, nothing of the system's; without it the system's store is. `key` and `cert` for a broker that asks for them. */
  tls?: { ca: string[]; key?: string | Buffer; cert?: string | Buffer }
  log: Log
  /** Between attempts to connect; 0 for a single attempt. */
  reconnectSeconds?: number
  /** For the acknowledgement of a publication; after it the outbox tries again. */
  publishSeconds?: number
}

export interface MqttBus extends Bus {
  connected(): boolean
  /** Called whenever a connection ended or could not be made. `error` says why where that is known, such as a refused CONNECT. */
  onClose(callback: (error: Error | null) => void): void
  close(): Promise<void>
}

const loopback = new Set(['localhost', '127.0.0.1', '[::1]'])

/** Returns at once; the connection comes and goes. Throws `configuration_invalid` for a URL that would send anything in clear. */
export function connectMqttBus(options: MqttBusOptions): MqttBus {
  const { log } = options
  const url = new URL(options.url)
  const encrypted = url.protocol === 'mqtts:' || url.protocol === 'ssl:' || url.protocol === 'tls:'
  if (!encrypted && !(url.protocol === 'mqtt:' && loopback.has(url.hostname)))
    throw new RevocationError('configuration_invalid', `${url.protocol}//${url.hostname}: use mqtts`)
  const handlers = new Map<string, ((topic: string, payload: Uint8Array) => void)[]>()
  const connectCallbacks: (() => void)[] = []
  const closeCallbacks: ((error: Error | null) => void)[] = []
  let lastError: Error | null = null
  let closed = false
  const client: MqttClient = mqtt.connect(options.url, {
    clientId: options.clientId,
    clean: true,
    reconnectPeriod: (options.reconnectSeconds ?? 2) * 1000,
    // Subscriptions are made again below, so that a broker that forgot them is told.
    resubscribe: false,
    // The outbox is the queue: what can't be sent now fails now.
    queueQoSZero: false,
    ...(encrypted && options.tls ? { ...options.tls, rejectUnauthorized: true } : {}),
  })

  client.on('error', error => {
    lastError = error
    log.warn({ err: error, url: url.host }, 'broker connection')
  })
  client.on('close', () => {
    const error = lastError
    lastError = null
    for (const callback of closeCallbacks) callback(error)
  })
  client.on('connect', () => {
    if (handlers.size > 0)
      client.subscribe([...handlers.keys()], { qos: 1 }, error => error && log.warn({ err: error }, 'not subscribed again'))
    for (const callback of connectCallbacks) callback()
  })
  client.on('message', (topic, payload) => {
    for (const [filter, list] of handlers) if (matches(filter, topic)) for (const handler of list) handler(topic, payload)
  })

  return {
    connected: () => client.connected,
    publish: (topic, payload, { qos, retain }) =>
      new Promise<void>((resolve, reject) => {
        if (closed) return reject(new RevocationError('bus_closed', topic))
        if (!client.connected) return reject(new RevocationError('bus_failed', `${topic}: not connected to ${url.host}`))
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
    subscribe: async (filter, onMessage) => {
      const list = handlers.get(filter)
      if (list) list.push(onMessage)
      else handlers.set(filter, [onMessage])
      if (client.connected)
        await client.subscribeAsync(filter, { qos: 1 }).catch((error: unknown) => {
          throw new RevocationError('bus_failed', `${filter} not granted`, error)
        })
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
