// The direct way of a notice to its subscribers: one packet encoded once, the same bytes written straight to each socket, in slices. Aedes'
// way encodes one for each and ends when every subscriber has taken it; this one waits for nobody, so that one who doesn't read delays
// nobody. Sessions that outlive their connection keep aedes' bookkeeping, each on its own. Who may subscribe is the broker's.

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

// MQTT 2.3.1.
const idMax = 65_535
// Messages of a session that may be unacknowledged before and after a notice.
const ownIds = 1000

const endsSlice = (told: number): boolean => told > 0 && told % sliceSize === 0
const turn = () => new Promise(resolve => setImmediate(resolve))

interface NoticeBytes {
  bytes: Buffer
  /** The packet identifier in `bytes`, and where it is; -1 with QoS 0. */
  id: number
  idAt: number
}

/** MQTT 3.1.1 3.3, live (retain 0). */
function encodePublish(topic: string, payload: Bytes, qos: 0 | 1, id: number): NoticeBytes {
  const name = Buffer.from(topic)
  const rest = 2 + name.length + 2 * qos + payload.length
  const length: number[] = []
  for (let left = rest; length.length === 0 || left > 0; left = Math.floor(left / 128))
    length.push((left % 128) | (left >= 128 ? 0x80 : 0))
  const head = [0x30 | (qos << 1), ...length, name.length >> 8, name.length & 255]
  const own = qos === 0 ? [] : [id >> 8, id & 255]
  const idAt = qos === 0 ? -1 : head.length + name.length
  return { bytes: Buffer.concat([Buffer.from(head), name, Buffer.from(own), payload]), id, idAt }
}

/**
 * Whether no other message of this session has the identifier, which must be unused (MQTT 2.3.1). Aedes numbers a session's in one run that
 * begins anywhere: those that wait for a PUBACK are behind its end, those of the next minutes before it.
 */
function isFree(id: number, client: NoticeClient): boolean {
  const apart = Math.abs(id - client._nextId)
  return apart > ownIds && apart < idMax - ownIds
}

/** A copy that goes on with aedes' run, for the few in a hundred whose run is near. */
function withOwnId({ bytes, idAt }: NoticeBytes, client: NoticeClient): Buffer {
  const own = Buffer.from(bytes)
  own.writeUInt16BE(client._nextId, idAt)
  client._nextId = client._nextId >= idMax ? 1 : client._nextId + 1
  return own
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
  /** Of the last notice: the same at all its subscribers, so that one packet serves them. */
  let id = 0

  function covers(filter: string): boolean {
    // Most topics are a device's own: told by their first letters.
    return filter.startsWith(fr) && patterns.some(pattern => within(filter, pattern))
  }

  function drop(subscriber: S, filter: string): void {
    const those = subscribers.get(filter)
    those?.delete(subscriber)
    if (those?.size === 0) subscribers.delete(filter)
  }

  function write(subscriber: S, packet: NoticeBytes): void {
    const { socket, client } = subscriber
    // Before its CONNACK it is told nothing; what is retained or queued waits for it.
    if (!client?.connackSent || socket.destroyed || !mayHear(subscriber)) return
    if (socket.writableLength + packet.bytes.length > waitingBytesMax) {
      options.onStalled(subscriber)
      socket.destroy()
      return
    }
    socket.write(packet.idAt < 0 || isFree(packet.id, client) ? packet.bytes : withOwnId(packet, client))
  }

  /** Everybody connected who holds a filter of this topic, and each once. Gives those who are left to the caller: at QoS 1, in a stored session. */
  async function tellConnected(topic: string, qos: 0 | 1, packets: [NoticeBytes, NoticeBytes]): Promise<S[]> {
    const exact = subscribers.get(topic)
    const pattern = patterns.find(one => one.endsWith('+') && within(topic, one))
    const wide = pattern === undefined || pattern === topic ? undefined : subscribers.get(pattern)
    const stored: S[] = []
    const tell = (subscriber: S, granted: number): void => {
      const at = qos === 0 || granted === 0 ? 0 : 1
      if (at === 1 && subscriber.client?.clean === false) stored.push(subscriber)
      else write(subscriber, packets[at])
    }
    let told = 0
    for (const [subscriber, granted] of exact ?? []) {
      if (endsSlice(told++)) await turn()
      tell(subscriber, wide === undefined ? granted : Math.max(granted, wide.get(subscriber) ?? 0))
    }
    for (const [subscriber, granted] of wide ?? []) {
      if (endsSlice(told++)) await turn()
      if (!exact?.has(subscriber)) tell(subscriber, granted)
    }
    return stored
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
      id = (id % idMax) + 1
      const stored = await tellConnected(topic, qos, [encodePublish(topic, payload, 0, id), encodePublish(topic, payload, 1, id)])
      if (qos === 1) await tellStored(packet, stored)
      // Subscribers in this process, and services with wider filters: in aedes' way, which nobody waits for.
      broker.mq.emit(packet, () => {})
    },
  }
}
