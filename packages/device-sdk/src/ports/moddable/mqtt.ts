// The device's line to the broker over ECMA-419's MQTT client: notices come in, telemetry goes out. One session by one identity; when another comes into
// use, or the session ends, the firmware opens a new one. What is published while the line is busy waits, bounded; a session that ended keeps nothing.

import type { Bytes } from '../../core/bytes.ts'

/** ECMA-419's MQTT client, of which a session is made. */
export interface ModdableMqttClient {
  read(count: number): ArrayBuffer | undefined
  /** How much may be written next. Throws beyond that. */
  write(data: ArrayBuffer | Uint8Array | null, options: object): number
  close(): void
}

/** What the firmware passes to the client's constructor, next to its host, port, identifier, resolver and socket. */
export interface ModdableMqttHandlers {
  onControl(message: { operation: number }): void
  onReadable(count: number, message: { topic?: string; byteLength?: number; more: boolean }): void
  onWritable(count: number): void
  onError(): void
}

export interface BusEvents {
  /** The broker accepted the session: subscribe now. */
  online(): void
  message(topic: string, payload: Bytes): void
  /** Refused, or cut; once. */
  closed(): void
}

export interface BusSession {
  /** Notices come with quality of service 1. False: none of it is taken, for the same reasons as below. Whoever does not ask again hears nothing there. */
  subscribe(topics: string[]): boolean
  /** With quality of service 1. False: not taken, the session is over, too much is waiting, or it is longer than one packet may be. */
  publish(topic: string, payload: Bytes): boolean
  close(): void
}

// MQTT 3.1.1, 2.2.1.
const CONNACK = 2
const SUBSCRIBE = 8
/** A fixed header with a length of up to 2 MB, a topic's length and a packet identifier; with a subscription, its quality of service. */
const packetOverhead = 10

export interface ModdableMqttLimits {
  /** Of a message; what is longer is read over. A notice has at most 8192 octets. */
  payloadBytesMax: number
  /** Messages that wait to be written. */
  waitingMax: number
  /**
   * Of a packet that is written, which has to fit into the room of a socket with nothing under way: a longer one would wait for good, and all others behind
   * it. The default is for the smallest send buffer that ESP-IDF can be set to, 2,440 octets, with what TLS and the client keep of it.
   */
  packetBytesMax: number
}

interface Waiting {
  data: Bytes | null
  options: object
  length: number
}

/** `open` makes the client with these handlers; whoever it connects as, and to whom, is the firmware's. */
export function moddableMqtt(
  open: (handlers: ModdableMqttHandlers) => ModdableMqttClient,
  events: BusEvents,
  limits: ModdableMqttLimits = { payloadBytesMax: 8192, waitingMax: 8, packetBytesMax: 2048 },
): BusSession {
  let over = false
  let online = false
  let writable = 0
  let topic = ''
  let wanted = 0
  let received = 0
  let payload: Bytes | null = null
  const waiting: Waiting[] = []

  const end = (): void => {
    if (over) return
    over = true
    client.close()
    events.closed()
  }
  const flush = (): void => {
    while (!over && online && waiting.length && waiting[0].length <= writable) {
      const { data, options } = waiting.shift() as Waiting
      writable = client.write(data, options)
    }
  }
  const fits = (length: number): boolean => length + packetOverhead <= limits.packetBytesMax
  const send = (data: Bytes | null, options: object, length: number): boolean => {
    if (over || waiting.length >= limits.waitingMax || !fits(length)) return false
    waiting.push({ data, options, length: length + packetOverhead })
    flush()
    return !over
  }
  const client = open({
    onControl({ operation }) {
      if (over || operation !== CONNACK) return
      // The client itself ends a session that was refused.
      online = true
      events.online()
      flush()
    },
    onReadable(count, message) {
      if (message.topic !== undefined) {
        topic = message.topic
        wanted = message.byteLength ?? 0
        received = 0
        payload = wanted <= limits.payloadBytesMax ? new Uint8Array(wanted) : null
      }
      const part = new Uint8Array(client.read(count) ?? new ArrayBuffer(0))
      if (payload && received + part.length <= wanted) payload.set(part, received)
      received += part.length
      if (over || message.more || !payload || received !== wanted) return
      const whole = payload
      payload = null
      events.message(topic, whole)
    },
    onWritable(count) {
      writable = count
      flush()
    },
    onError: end,
  })
  return {
    subscribe(topics) {
      // All of a ring's topics may be wanted at once: as many packets as that takes.
      const packets: { items: { topic: string; QoS: number }[]; length: number }[] = []
      for (const topic of topics) {
        const more = topic.length + 3
        let last = packets[packets.length - 1]
        if (!last || !fits(last.length + more)) {
          last = { items: [], length: 0 }
          packets.push(last)
        }
        last.items.push({ topic, QoS: 1 })
        last.length += more
      }
      if (over || waiting.length + packets.length > limits.waitingMax) return false
      if (!packets.every(({ length }) => fits(length))) return false
      for (const { items, length } of packets) send(null, { operation: SUBSCRIBE, items }, length)
      return !over
    },
    publish: (to, data) => send(data, { topic: to, QoS: 1 }, to.length + data.length),
    close() {
      if (over) return
      over = true
      client.close()
    },
  }
}
