// Bounds on what the broker keeps for absent devices. Aedes stores a session's subscriptions as the packet named them, granted or not,
// and queues without an end; both are limited here, in messages and in bytes, by standing before its store's methods. The broker keeps this in memory only: it is
// never the record of anything.

interface Subscriber {
  id: string
}

interface Queued {
  messageId?: number
  topic?: string
  payload?: Uint8Array | string
}

/** The part of aedes' persistence that is stood before. */
export interface SessionStore {
  addSubscriptions(client: Subscriber, subscriptions: { topic: string }[]): Promise<unknown>
  cleanSubscriptions(client: Subscriber): Promise<unknown>
  cleanIncoming(client: Subscriber): Promise<unknown>
  incomingStorePacket(client: Subscriber, packet: Queued): Promise<unknown>
  incomingDelPacket(client: Subscriber, packet: Queued): Promise<unknown>
  outgoingEnqueueCombi(subscriptions: { clientId: string; topic: string }[], packet: Queued): Promise<unknown>
  outgoingClearMessageId(client: Subscriber, packet: Queued): Promise<Queued | undefined>
  outgoingStream(client: Subscriber): AsyncIterable<Queued>
  createRetainedStream(pattern: string): AsyncIterable<{ topic: string; payload: Uint8Array }>
}

export interface BoundedSessions {
  /** Forgets subscriptions, queue and half-received messages of `id`. */
  drop(id: string): Promise<void>
  /** What waits for `id`. */
  queued(id: string): { messages: number; bytes: number }
  /** Held for all sessions together: queues, and messages of QoS 2 that their sender hasn't released. */
  bytes(): number
}

export interface SessionBounds {
  /** Messages that wait for one subscriber; a newer one is dropped when it is full, which QoS 1 allows a server that ends the session. */
  queueMax: number
  /** Their bytes, for this subscriber. */
  queueBytesMax(clientId: string): number
  /** Bytes for all; a few for each are beside the count, so that nobody who hoards cuts off the others. */
  heldBytesMax: number
  maySubscribe(client: Subscriber, filter: string): boolean
  mayQueue(clientId: string, topic: string): boolean
}

/** Room for a notice and a few commands, whatever the others hold: aedes ends a connected session whose message found no place. */
const ownBytes = 4096

/** What a message takes beside topic and payload: the packet's object and its place. */
const overhead = 256

function sizeOf({ topic = '', payload = '' }: Queued): number {
  return overhead + topic.length + payload.length
}

/** With a payload of its own: as it came, it is a view that keeps up to 64 KB of the connection's bytes alive, however short it is. */
function compact<P extends Queued>(packet: P): P {
  const { payload } = packet
  if (!(payload instanceof Uint8Array) || payload.length === payload.buffer.byteLength) return packet
  const own = Buffer.allocUnsafeSlow(payload.length)
  own.set(payload)
  return { ...packet, payload: own }
}

export function boundSessions(store: SessionStore, bounds: SessionBounds): BoundedSessions {
  const queues = new Map<string, { messages: number; bytes: number }>()
  /** By subscriber, then by message id: bytes. */
  const unreleased = new Map<string, Map<number, number>>()
  let held = 0
  const add = store.addSubscriptions.bind(store)
  const enqueue = store.outgoingEnqueueCombi.bind(store)
  const clear = store.outgoingClearMessageId.bind(store)
  const keep = store.incomingStorePacket.bind(store)
  const release = store.incomingDelPacket.bind(store)
  const forget = store.cleanIncoming.bind(store)

  store.addSubscriptions = async (client, subscriptions) =>
    add(
      client,
      subscriptions.filter(({ topic }) => bounds.maySubscribe(client, topic)),
    )
  store.outgoingEnqueueCombi = async (subscriptions, packet) => {
    const size = sizeOf(packet)
    const admitted = subscriptions.filter(({ clientId, topic }) => {
      const queue = queues.get(clientId) ?? { messages: 0, bytes: 0 }
      const bytes = queue.bytes + size
      if (queue.messages >= bounds.queueMax || bytes > bounds.queueBytesMax(clientId)) return false
      if (bytes > ownBytes && held + size > bounds.heldBytesMax) return false
      if (!bounds.mayQueue(clientId, topic)) return false
      queues.set(clientId, { messages: queue.messages + 1, bytes })
      // A payload that is queued for many is kept once and counted for each: wrong on the safe side.
      held += size
      return true
    })
    return admitted.length > 0 ? enqueue(admitted, compact(packet)) : undefined
  }
  store.outgoingClearMessageId = async (client, packet) => {
    const cleared = await clear(client, packet)
    const queue = queues.get(client.id)
    if (!cleared || !queue) return cleared
    // A message of QoS 2 has become its PUBREL, whose size says nothing: it is taken for an average one, and the last takes the rest.
    const size = cleared.payload === undefined ? queue.bytes / queue.messages : sizeOf(cleared)
    const freed = queue.messages > 1 ? Math.min(queue.bytes, Math.ceil(size)) : queue.bytes
    if (queue.messages > 1) queues.set(client.id, { messages: queue.messages - 1, bytes: queue.bytes - freed })
    else queues.delete(client.id)
    held -= freed
    return cleared
  }
  store.incomingStorePacket = async (client, packet) => {
    const size = sizeOf(packet)
    // The rejection ends the connection; without a PUBREC the sender still has the message.
    if (held + size > bounds.heldBytesMax) throw new Error('too much is held for all sessions')
    const own = unreleased.get(client.id) ?? new Map<number, number>()
    unreleased.set(client.id, own)
    held += size - (own.get(packet.messageId ?? 0) ?? 0)
    own.set(packet.messageId ?? 0, size)
    return keep(client, compact(packet))
  }
  store.incomingDelPacket = async (client, packet) => {
    const own = unreleased.get(client.id)
    held -= own?.get(packet.messageId ?? 0) ?? 0
    own?.delete(packet.messageId ?? 0)
    if (own?.size === 0) unreleased.delete(client.id)
    return release(client, packet)
  }
  store.cleanIncoming = async client => {
    for (const size of unreleased.get(client.id)?.values() ?? []) held -= size
    unreleased.delete(client.id)
    return forget(client)
  }
  return {
    drop: async id => {
      await store.cleanSubscriptions({ id })
      await store.cleanIncoming({ id })
      for await (const packet of store.outgoingStream({ id })) await store.outgoingClearMessageId({ id }, packet)
    },
    queued: id => queues.get(id) ?? { messages: 0, bytes: 0 },
    bytes: () => held,
  }
}
