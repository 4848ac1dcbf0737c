import { beforeEach, describe, expect, it } from 'vitest'
import { type BoundedSessions, boundSessions, type SessionStore } from './bounded-sessions.ts'

type Packet = Parameters<SessionStore['incomingStorePacket']>[1]

/** What aedes' memory does with a queue, and no more. */
function memory() {
  const queues = new Map<string, Packet[]>()
  const half = new Map<string, Packet>()
  const store: SessionStore = {
    addSubscriptions: async () => {},
    cleanSubscriptions: async () => {},
    cleanIncoming: async () => half.clear(),
    incomingStorePacket: async ({ id }, packet) => half.set(`${id} ${packet.messageId}`, packet),
    incomingDelPacket: async ({ id }, packet) => half.delete(`${id} ${packet.messageId}`),
    outgoingEnqueueCombi: async (subscriptions, packet) => {
      for (const { clientId } of subscriptions) queues.set(clientId, [...(queues.get(clientId) ?? []), { ...packet }])
    },
    outgoingClearMessageId: async ({ id }, { messageId }) => {
      const queue = queues.get(id) ?? []
      const at = queue.findIndex(packet => packet.messageId === messageId)
      return at < 0 ? undefined : queue.splice(at, 1)[0]
    },
    outgoingStream: ({ id }) => ({
      async *[Symbol.asyncIterator]() {
        yield* [...(queues.get(id) ?? [])]
      },
    }),
    createRetainedStream: () => ({ async *[Symbol.asyncIterator]() {} }),
  }
  return { store, queues, half }
}

let mem: ReturnType<typeof memory>
let bounded: BoundedSessions
const to = (clientId: string) => [{ clientId, topic: 't' }]
const packet = (messageId: number, length: number): Packet => ({ messageId, topic: 't', payload: Buffer.alloc(length) })
// One character of topic, and the packet itself.
const size = (length: number) => length + 1 + 256

beforeEach(() => {
  mem = memory()
  bounded = boundSessions(mem.store, {
    queueMax: 5,
    queueBytesMax: id => (id === 'service' ? Number.POSITIVE_INFINITY : 50_000),
    heldBytesMax: 100_000,
    maySubscribe: () => true,
    mayQueue: () => true,
  })
})

describe('[F53] what is kept for absent sessions', () => {
  it('is bounded in messages and bytes for each, and in bytes for all', async () => {
    for (let n = 1; n <= 9; n++) await mem.store.outgoingEnqueueCombi(to('a'), packet(n, 10))
    expect(bounded.queued('a')).toEqual({ messages: 5, bytes: 5 * size(10) })
    for (let n = 1; n <= 9; n++) await mem.store.outgoingEnqueueCombi(to('b'), packet(n, 20_000))
    expect(bounded.queued('b')).toEqual({ messages: 2, bytes: 2 * size(20_000) })
    for (let n = 1; n <= 5; n++) await mem.store.outgoingEnqueueCombi(to('service'), packet(n, 50_000))
    expect(bounded.queued('service').messages).toBe(1)
    // A little is left for everybody.
    await mem.store.outgoingEnqueueCombi([...to('c'), ...to('d')], packet(1, 20_000))
    await mem.store.outgoingEnqueueCombi([...to('c'), ...to('d')], packet(2, 1000))
    for (const id of ['c', 'd']) expect(bounded.queued(id)).toEqual({ messages: 1, bytes: size(1000) })
    expect(mem.queues.get('c')).toHaveLength(1)
  })

  it('is bounded for 5,000 of them, each of which has room for a notice all the same', async () => {
    const absent = Array.from({ length: 5000 }, (_, n) => `d${n}`)
    const all = absent.flatMap(to)
    for (let n = 1; n <= 20; n++) await mem.store.outgoingEnqueueCombi(all, packet(n, 3000))
    await mem.store.outgoingEnqueueCombi(all, packet(21, 200))
    expect(bounded.bytes()).toBeLessThanOrEqual(100_000 + 5000 * 4096)
    const notices = absent.filter(id => mem.queues.get(id)?.some(({ messageId }) => messageId === 21))
    // The few that took their share of what all may hold are full.
    expect(notices.length).toBeGreaterThan(4990)
  })

  it('is counted back when it is delivered or dropped, whatever became of it', async () => {
    for (let n = 1; n <= 3; n++) await mem.store.outgoingEnqueueCombi(to('a'), packet(n, 1000 * n))
    // QoS 2: the message has become its PUBREL.
    mem.queues.get('a')?.splice(1, 1, { messageId: 2 })
    await mem.store.outgoingClearMessageId({ id: 'a' }, { messageId: 9 })
    expect(bounded.queued('a').messages).toBe(3)
    for (const messageId of [2, 1]) await mem.store.outgoingClearMessageId({ id: 'a' }, { messageId })
    expect(bounded.queued('a').messages).toBe(1)
    expect(bounded.bytes()).toBe(bounded.queued('a').bytes)
    await mem.store.outgoingClearMessageId({ id: 'a' }, { messageId: 3 })
    expect(bounded.bytes()).toBe(0)
    for (let n = 1; n <= 3; n++) await mem.store.outgoingEnqueueCombi(to('a'), packet(n, 100))
    await mem.store.incomingStorePacket({ id: 'a' }, packet(1, 100))
    await bounded.drop('a')
    expect([bounded.bytes(), bounded.queued('a')]).toEqual([0, { messages: 0, bytes: 0 }])
  })

  it('counts what a sender of QoS 2 has not released, once a message, and refuses more than all may hold', async () => {
    for (let n = 0; n < 3; n++) await mem.store.incomingStorePacket({ id: 'a' }, packet(7, 40_000))
    await mem.store.incomingStorePacket({ id: 'a' }, packet(8, 40_000))
    expect(bounded.bytes()).toBe(2 * size(40_000))
    await expect(mem.store.incomingStorePacket({ id: 'b' }, packet(1, 40_000))).rejects.toThrow('too much')
    await mem.store.incomingDelPacket({ id: 'a' }, packet(7, 0))
    await mem.store.incomingDelPacket({ id: 'a' }, packet(7, 0))
    expect(bounded.bytes()).toBe(size(40_000))
    await mem.store.incomingStorePacket({ id: 'b' }, packet(1, 40_000))
    for (const id of ['a', 'b']) await mem.store.cleanIncoming({ id })
    expect(bounded.bytes()).toBe(0)
  })

  it('keeps no more of the bytes it came in than its payload', async () => {
    const chunk = Buffer.alloc(65_536)
    await mem.store.outgoingEnqueueCombi(to('a'), { messageId: 1, topic: 't', payload: chunk.subarray(10, 20) })
    const payload = mem.queues.get('a')?.[0].payload
    expect(payload instanceof Uint8Array && payload.buffer.byteLength).toBe(10)
  })
})
