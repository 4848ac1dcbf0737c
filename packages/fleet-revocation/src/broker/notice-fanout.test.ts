import { describe, expect, it } from 'vitest'
import { createNoticeFanout, type NoticeBroker, type NoticePacket, type NoticeSubscriber, settled } from './notice-fanout.ts'

const head = 'fr/1/acme/head'
const notice = new Uint8Array([1, 2, 3])

interface Listener extends NoticeSubscriber {
  got: Buffer[]
  waiting: number
  delivered: NoticePacket[]
  cut: boolean
}

function listener({ clean = true, connackSent = true, nextId = 1 } = {}): Listener {
  const own: Listener = {
    ...{ got: [], delivered: [], waiting: 0, cut: false },
    socket: {
      write: (bytes: Buffer) => own.got.push(bytes) > 0,
      destroy: () => {
        own.cut = true
      },
      get writableLength() {
        return own.waiting
      },
      get destroyed() {
        return own.cut
      },
    } as unknown as Listener['socket'],
    client: {
      ...{ clean, connackSent, _nextId: nextId, _keepaliveTimer: null },
      deliverQoS: packet => own.delivered.push(packet),
    },
  }
  return own
}

function fanoutOf(mayHear: (one: Listener) => boolean = () => true) {
  const order: string[] = []
  const queued: string[] = []
  const stalled: Listener[] = []
  const broker: NoticeBroker = {
    ...{ id: 'broker', counter: 0 },
    mq: { emit: () => order.push('aedes') },
    persistence: {
      storeRetained: async () => order.push('retained'),
      subscriptionsByTopic: async topic => [{ clientId: 'absent', topic }],
      outgoingEnqueueCombi: async subscriptions => queued.push(...subscriptions.map(({ clientId }) => clientId)),
    },
  }
  const onStalled = (one: Listener) => stalled.push(one)
  const fanout = createNoticeFanout<Listener>({ broker, fleet: 'acme', mayHear, waitingBytesMax: 1000, onStalled })
  return { fanout, order, queued, stalled }
}

describe('the direct way of a notice', () => {
  it('is taken by notices alone', () => {
    const { fanout } = fanoutOf()
    for (const topic of [head, 'fr/1/acme/hb', 'fr/1/acme/n/5', 'fr/1/acme/n/+', 'fr/1/acme/snap/0'])
      expect(fanout.covers(topic)).toBe(true)
    for (const topic of ['fr/1/acme/#', 'fr/1/acme/ack/x', 'fr/1/other/head', 'fr/1/acmehead', 'devices/a/b', '#'])
      expect(fanout.covers(topic), topic).toBe(false)
  })

  it('writes one packet to all, at the QoS each asked for; whose own numbers are near has another identifier (MQTT 2.3.1)', async () => {
    const { fanout, order } = fanoutOf()
    const [far, last, near, two, zero] = [
      listener({ nextId: 30_000 }),
      listener({ nextId: 65_535 }),
      listener({ nextId: 7 }),
      listener({ nextId: 40_000 }),
      listener(),
    ]
    for (const one of [far, last, near]) fanout.subscribe(one, head, 1)
    fanout.subscribe(two, head, 2)
    fanout.subscribe(zero, head, 0)
    await fanout.publish(head, notice, { qos: 1, retain: true })
    await fanout.publish(head, notice, { qos: 1, retain: true })
    const topic = `000e${Buffer.from(head).toString('hex')}`
    const heard = (one: Listener) => one.got.map(bytes => bytes.toString('hex'))
    const numbered = (...ids: string[]) => ids.map(id => `3215${topic}${id}010203`)
    expect(heard(far)).toEqual(numbered('0001', '0002'))
    expect(heard(two)).toEqual(numbered('0001', '0002'))
    expect(two.got[0]).toBe(far.got[0])
    // 65535, then 1: the run goes on at its start.
    expect(heard(last)).toEqual(numbered('ffff', '0001'))
    expect(heard(near)).toEqual(numbered('0007', '0008'))
    expect(heard(zero)[0]).toBe(`3013${topic}010203`)
    expect(order.slice(0, 2)).toEqual(['retained', 'aedes'])
  })

  it('tells a subscriber of both filters once, and nobody who left', async () => {
    const { fanout } = fanoutOf()
    const [both, gone] = [listener(), listener()]
    fanout.subscribe(both, 'fr/1/acme/n/+', 0)
    fanout.subscribe(both, 'fr/1/acme/n/5', 1)
    fanout.subscribe(gone, 'fr/1/acme/n/+', 1)
    fanout.subscribe(gone, head, 1)
    fanout.leave(gone, ['fr/1/acme/n/+', head])
    await fanout.publish('fr/1/acme/n/5', notice, { qos: 1, retain: true })
    await fanout.publish(head, notice, { qos: 1, retain: true })
    expect(both.got.map(bytes => bytes[0])).toEqual([0x32])
    expect(gone.got).toEqual([])
  })

  it('[F53] waits for nobody: who does not read is cut when too much waits, and the others have it', async () => {
    const { fanout, stalled } = fanoutOf()
    const [stuck, next] = [listener(), listener()]
    stuck.waiting = 999
    fanout.subscribe(stuck, head, 1)
    fanout.subscribe(next, head, 1)
    await fanout.publish(head, notice, { qos: 1, retain: true })
    expect(stalled).toEqual([stuck])
    expect(stuck.cut).toBe(true)
    expect(stuck.got).toEqual([])
    expect(next.got).toHaveLength(1)
  })

  it('[F12] says nothing to the revoked, or before CONNACK', async () => {
    const revoked = listener()
    const { fanout } = fanoutOf(one => one !== revoked)
    const early = listener({ connackSent: false })
    for (const one of [revoked, early]) fanout.subscribe(one, head, 1)
    await fanout.publish(head, notice, { qos: 1, retain: true })
    expect([revoked.got, early.got]).toEqual([[], []])
  })

  it('[F53] queues for sessions that are kept before it delivers to them, in aedes’ way', async () => {
    const { fanout, queued } = fanoutOf()
    const kept = listener({ clean: false })
    fanout.subscribe(kept, head, 1)
    await fanout.publish(head, notice, { qos: 1, retain: true })
    expect(queued).toEqual(['absent'])
    expect(kept.delivered).toMatchObject([{ topic: head, retain: false, qos: 1 }])
    expect(settled(kept.client)).toBe(false)
    expect(settled(listener().client)).toBe(true)
  })
})
