// The direct way of a notice to its subscribers: one packet encoded once, written straight to each socket, in slices. Aedes' way waits until
// every subscriber of a batch has taken the message before it serves the next batch; this one waits for nobody, so that one who doesn't
// read delays nobody. Sessions that outlive their connection keep aedes' bookkeeping, each on its own. Who may subscribe is the broker's.

import type { TLSSocket } from 'node:tls'
import type { Bytes } from '@birthmark/device-sdk/core'
import { within } from './access.ts'

/** A connected subscriber. */
export interface NoticeSubscriber {
  socket: Pick<TLSSocket, 'write' | 'writableLength' | 'destroy' | 'destroyed'>
  client: NoticeClient | null
}

/** The part of aedes' client that is used. */
export interface NoticeClient {
  clean: boolean
  connackSent: boolean
  _nextId: number
  _keepaliveTimer: { refresh(): unknown } | null
  deliverQoS(packet: NoticePacket, done: () => void): void
}

export interface NoticePacket {
  cmd: 'publish'
  brokerId: string
  brokerCounter: number
  topic: string
  payload: Buffer
  qos: 0 | 1
  retain: boolean
  dup: false
}

/** The part of aedes that is used. */
export interface NoticeBroker {
  id: string
  counter: number
  mq: { emit(packet: NoticePacket, done: () => void): void }
  persistence: {
    storeRetained(packet: NoticePacket): Promise<unknown>
    subscriptionsByTopic(topic: string): Promise<{ clientId: string; topic: string }[]>
    outgoingEnqueueCombi(subscriptions: { clientId: string; topic: string }[], packet: NoticePacket): Promise<unknown>
  }
}

export interface NoticeFanoutOptions<S extends NoticeSubscriber> {
  broker: NoticeBroker
  fleet: string
  /** Asked for each delivery: not revoked, and not being cut. */
  mayHear(subscriber: S): boolean
  /** Bytes that may wait for one who doesn't read; then it is cut, and finds the retained notice when it comes again. */
  waitingBytesMax: number
  onStalled(subscriber: S): void
}

export interface NoticeFanout<S extends NoticeSubscriber> {
  /** Whether this filter or topic takes the direct way. */
  covers(filter: string): boolean
  subscribe(subscriber: S, filter: string, qos: number): void
  unsubscribe(subscriber: S, filter: string): void
  leave(subscriber: S, filters: Iterable<string>): void
  /** Resolves when it is retained and written for everybody connected, and queued for everybody absent. */
  publish(topic: string, payload: Bytes, options: { qos: 0 | 1; retain: boolean }): Promise<void>
}

// Written before the event loop serves everybody else: ~0.1 s of work. Not fewer, since the acknowledgements of a slice are read before the
// next is written, and who comes last would wait for all of them.
const sliceSize = 10_000

/** MQTT 3.1.1 3.3, live (retain 0). `idAt`: where each subscriber's packet identifier goes; -1 with QoS 0. */
function encodePublish(topic: string, payload: Bytes, qos: 0 | 1): { bytes: Buffer; idAt: number } {
  const name = Buffer.from(topic)
  const rest = 2 + name.length + 2 * qos + payload.length
  const length: number[] = []
  for (let left = rest; length.length === 0 || left > 0; left = Math.floor(left / 128))
    length.push((left % 128) | (left >= 128 ? 0x80 : 0))
  const head = [0x30 | (qos << 1), ...length, name.length >> 8, name.length & 255]
  const idAt = qos === 0 ? -1 : head.length + name.length
  return { bytes: Buffer.concat([Buffer.from(head), name, Buffer.alloc(2 * qos), payload]), idAt }
}

/** Its own run of packet identifiers is aedes': 1 to 65535 (MQTT 2.3.1). */
function nextId(client: NoticeClient): number {
  const id = client._nextId
  client._nextId = id >= 65_535 ? 1 : id + 1
  return id
}

/**
 * Takes a PUBACK: true when there is nothing else to do. A session that ends with its connection has nothing stored that it could settle;
 * aedes would look for it all the same, and that for every subscriber after each notice.
 */
export function settled(client: NoticeClient | null): boolean {
  if (!client?.clean || !client.connackSent) return false
  client._keepaliveTimer?.refresh()
  return true
}

export function createNoticeFanout<S extends NoticeSubscriber>(options: NoticeFanoutOptions<S>): NoticeFanout<S> {
  const { broker, fleet, mayHear, waitingBytesMax } = options
  const fr = `fr/1/${fleet}`
  const patterns = ['head', 'n/+', 'hb', 'snap/+'].map(name => `${fr}/${name}`)
  /** By filter; the subscriber's QoS. */
  const subscribers = new Map<string, Map<S, number>>()

  function covers(filter: string): boolean {
    // Most topics are a device's own: told by their first letters.
    return filter.startsWith(fr) && patterns.some(pattern => within(filter, pattern))
  }

  function drop(subscriber: S, filter: string): void {
    const those = subscribers.get(filter)
    those?.delete(subscriber)
    if (those?.size === 0) subscribers.delete(filter)
  }

  /** With the QoS that each is served at. One who holds both filters is told once. */
  function audience(topic: string, qos: 0 | 1): [S, 0 | 1][] {
    const exact = subscribers.get(topic)
    const pattern = patterns.find(one => one.endsWith('+') && within(topic, one))
    const wide = pattern === undefined || pattern === topic ? undefined : subscribers.get(pattern)
    const all: [S, 0 | 1][] = []
    const add = (subscriber: S, granted: number) => all.push([subscriber, qos === 0 || granted === 0 ? 0 : 1])
    for (const [subscriber, granted] of exact ?? []) add(subscriber, Math.max(granted, wide?.get(subscriber) ?? 0))
    for (const [subscriber, granted] of wide ?? []) if (!exact?.has(subscriber)) add(subscriber, granted)
    return all
  }

  function write(subscriber: S, packet: { bytes: Buffer; idAt: number }): void {
    const { socket, client } = subscriber
    // Before its CONNACK it is told nothing; what is retained or queued waits for it.
    if (!client?.connackSent || socket.destroyed || !mayHear(subscriber)) return
    if (socket.writableLength + packet.bytes.length > waitingBytesMax) {
      options.onStalled(subscriber)
      socket.destroy()
      return
    }
    if (packet.idAt < 0) {
      socket.write(packet.bytes)
      return
    }
    const own = Buffer.from(packet.bytes)
    own.writeUInt16BE(nextId(client), packet.idAt)
    socket.write(own)
  }

  /** Those whose session is stored, absent or not: queued first, so that it is delivered again if its connection ends before its PUBACK. */
  async function tellStored(packet: NoticePacket, connected: S[]): Promise<void> {
    const stored = await broker.persistence.subscriptionsByTopic(packet.topic)
    if (stored.length > 0) await broker.persistence.outgoingEnqueueCombi(stored, packet)
    for (const { client } of connected) client?.deliverQoS({ ...packet, retain: false }, () => {})
  }

  return {
    covers,
    subscribe: (subscriber, filter, qos) => {
      const those = subscribers.get(filter) ?? new Map<S, number>()
      subscribers.set(filter, those.set(subscriber, qos))
    },
    unsubscribe: drop,
    leave: (subscriber, filters) => {
      for (const filter of filters) drop(subscriber, filter)
    },
    publish: async (topic, payload, { qos, retain }) => {
      const packet: NoticePacket = {
        ...{ cmd: 'publish', brokerId: broker.id, brokerCounter: ++broker.counter, dup: false },
        ...{ topic, payload: Buffer.from(payload), qos, retain },
      }
      if (retain) await broker.persistence.storeRetained(packet)
      const shared = [encodePublish(topic, payload, 0), encodePublish(topic, payload, 1)]
      const stored: S[] = []
      for (const [at, [subscriber, at1]] of audience(topic, qos).entries()) {
        if (at > 0 && at % sliceSize === 0) await new Promise(resolve => setImmediate(resolve))
        if (at1 === 1 && subscriber.client?.clean === false) stored.push(subscriber)
        else write(subscriber, shared[at1])
      }
      if (qos === 1) await tellStored(packet, stored)
      // Subscribers in this process, and services with wider filters: in aedes' way, which nobody waits for.
      broker.mq.emit(packet, () => {})
    },
  }
}
