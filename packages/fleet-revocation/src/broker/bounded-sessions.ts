// Bounds on what the broker keeps for absent devices. Aedes stores a session's subscriptions as the packet named them, granted or not,
// and queues without an end; both are limited here, by standing before its store's methods. The broker keeps this in memory only: it is
// never the record of anything.

interface Subscriber {
  id: string
}

interface Queued {
  messageId?: number
}

/** The part of aedes' persistence that is stood before. */
export interface SessionStore {
  addSubscriptions(client: Subscriber, subscriptions: { topic: string }[]): Promise<unknown>
  cleanSubscriptions(client: Subscriber): Promise<unknown>
  cleanIncoming(client: Subscriber): Promise<unknown>
  outgoingEnqueueCombi(subscriptions: { clientId: string; topic: string }[], packet: object): Promise<unknown>
  outgoingClearMessageId(client: Subscriber, packet: Queued): Promise<unknown>
  outgoingStream(client: Subscriber): AsyncIterable<Queued>
  createRetainedStream(pattern: string): AsyncIterable<{ topic: string; payload: Uint8Array }>
}

export interface BoundedSessions {
  /** Forgets subscriptions, queue and half-received messages of `id`. */
  drop(id: string): Promise<void>
  /** Messages waiting for `id`. */
  queued(id: string): number
}

export interface SessionBounds {
  /** Messages that wait for one subscriber; a newer one is dropped when it is full, which QoS 1 allows a server that ends the session. */
  queueMax: number
  maySubscribe(client: Subscriber, filter: string): boolean
  mayQueue(clientId: string, topic: string): boolean
}

export function boundSessions(store: SessionStore, bounds: SessionBounds): BoundedSessions {
  const counts = new Map<string, number>()
  const add = store.addSubscriptions.bind(store)
  const enqueue = store.outgoingEnqueueCombi.bind(store)
  const clear = store.outgoingClearMessageId.bind(store)

  store.addSubscriptions = async (client, subscriptions) =>
    add(
      client,
      subscriptions.filter(({ topic }) => bounds.maySubscribe(client, topic)),
    )
  store.outgoingEnqueueCombi = async (subscriptions, packet) => {
    const admitted = subscriptions.filter(({ clientId, topic }) => {
      const count = counts.get(clientId) ?? 0
      if (count >= bounds.queueMax || !bounds.mayQueue(clientId, topic)) return false
      counts.set(clientId, count + 1)
      return true
    })
    return enqueue(admitted, packet)
  }
  store.outgoingClearMessageId = async (client, packet) => {
    const cleared = await clear(client, packet)
    const count = counts.get(client.id) ?? 0
    if (cleared && count > 1) counts.set(client.id, count - 1)
    else if (cleared) counts.delete(client.id)
    return cleared
  }
  return {
    drop: async id => {
      await store.cleanSubscriptions({ id })
      await store.cleanIncoming({ id })
      for await (const packet of store.outgoingStream({ id })) await store.outgoingClearMessageId({ id }, packet)
    },
    queued: id => counts.get(id) ?? 0,
  }
}
