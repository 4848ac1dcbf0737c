import { beforeAll, describe, expect, it } from 'vitest'
import { encodeAcknowledgement } from './acknowledgement.ts'
import { chainsTo, createHeartbeats, decodeHeartbeat, heartbeatChain } from './heartbeat.ts'
import { createPublisher, type Outbox, type PublisherOptions } from './publisher.ts'
import { createRuleSet } from './rule-set.ts'
import { noticeSha256 } from './sign-notice.ts'
import { createSnapshots } from './snapshot.ts'
import { createTestHistory, heartbeatSecret, historyStart } from './testing/history.ts'
import { createManualClock, settle } from './testing/manual-clock.ts'
import { createMemoryBus, type MemoryBus, quietLog } from './testing/memory-bus.ts'
import { createTestNoticeKey } from './testing/notice-key.ts'

const key = createTestNoticeKey()
const history = createTestHistory(key)
const heartbeats = createHeartbeats(heartbeatSecret, 'acme')

beforeAll(async () => {
  for (let seq = 1; seq <= 70; seq++) await history.add([])
  // Derived here, so that no test waits for them.
  for (const seq of [1, 5]) await heartbeats.chain(seq)
})

function memoryOutbox(last: number): Outbox & { done: Set<number>; last: number; crash: boolean } {
  const outbox = {
    done: new Set<number>(),
    last,
    crash: false,
    pending: async (limit: number) =>
      history.notices.filter(({ seq }) => seq <= outbox.last && !outbox.done.has(seq)).slice(0, limit),
    delivered: async (seq: number) => {
      if (outbox.crash) throw new Error('killed')
      outbox.done.add(seq)
    },
    recent: async (limit: number) => history.notices.filter(({ seq }) => seq <= outbox.last).slice(-limit),
  }
  return outbox
}

function publisher(outbox: Outbox, bus: MemoryBus, more: Partial<PublisherOptions> = {}) {
  const clock = createManualClock(historyStart)
  return { clock, ...createPublisher({ outbox, bus, fleet: 'acme', clock, log: quietLog, ...more }) }
}

const headSeqs = (bus: MemoryBus) =>
  bus.published
    .filter(({ topic }) => topic === 'fr/1/acme/head')
    .map(({ payload }) => history.notices.findIndex(({ notice }) => notice === payload) + 1)

describe('the publisher', () => {
  it('drains the outbox in order, ring before head, retained', async () => {
    const [outbox, bus] = [memoryOutbox(0), createMemoryBus()]
    const { drained } = publisher(outbox, bus)
    await drained()
    outbox.last = 3
    await drained()
    expect(bus.published.map(({ topic }) => topic)).toEqual([1, 2, 3].flatMap(seq => [`fr/1/acme/n/${seq}`, 'fr/1/acme/head']))
    expect(bus.published.every(({ retain }) => retain)).toBe(true)
    expect([...outbox.done]).toEqual([1, 2, 3])
  })

  it('fills 64 places, the newest at its number modulo 64', async () => {
    const [outbox, bus] = [memoryOutbox(70), createMemoryBus()]
    await publisher(outbox, bus).drained()
    expect(bus.retained.get('fr/1/acme/n/6')).toBe(history.notices[69].notice)
    expect(bus.retained.get('fr/1/acme/n/7')).toBe(history.notices[6].notice)
    expect([...bus.retained.keys()].filter(topic => topic.includes('/n/'))).toHaveLength(64)
    expect(bus.retained.get('fr/1/acme/head')).toBe(history.notices[69].notice)
  })

  it('[F54] tries again, with growing pauses, until the broker has acknowledged', async () => {
    const [outbox, bus] = [memoryOutbox(2), createMemoryBus()]
    bus.weather = 'down'
    const { clock } = publisher(outbox, bus)
    await settle()
    await clock.advance(5)
    expect(outbox.done.size).toBe(0)
    bus.weather = 'lost'
    await clock.advance(20)
    expect(outbox.done.size).toBe(0)
    bus.weather = 'fair'
    await clock.advance(40)
    expect([...outbox.done]).toEqual([1, 2])
    expect(bus.retained.get('fr/1/acme/head')).toBe(history.notices[1].notice)
  })

  it('[F54] killed between publishing and marking, publishes again and loses nothing', async () => {
    const [outbox, bus] = [memoryOutbox(2), createMemoryBus()]
    outbox.crash = true
    const first = publisher(outbox, bus)
    await settle()
    first.close()
    expect(outbox.done.size).toBe(0)
    outbox.crash = false
    await publisher(outbox, bus).drained()
    expect([...outbox.done]).toEqual([1, 2])
    expect(headSeqs(bus).at(-1)).toBe(2)
  })

  it('[F54] fills a broker that was killed after it had acknowledged everything', async () => {
    const [outbox, bus] = [memoryOutbox(3), createMemoryBus()]
    await publisher(outbox, bus).drained()
    bus.restart()
    await settle()
    expect([...bus.retained.keys()].sort()).toEqual(['fr/1/acme/head', 'fr/1/acme/n/1', 'fr/1/acme/n/2', 'fr/1/acme/n/3'])
  })

  it('[F53] asks for acknowledgements again, with growing pauses, until a subscription that delivers nothing has shown them all', async () => {
    const [outbox, bus] = [memoryOutbox(1), createMemoryBus()]
    const clock = createManualClock(historyStart)
    let hear: Parameters<MemoryBus['subscribe']>[1] = () => {}
    const asked: number[] = []
    let shows = false
    const { confirmations, wake } = createPublisher({
      ...{ outbox, fleet: 'acme', clock, log: quietLog, relyingParties: ['gateway'] },
      bus: {
        publish: bus.publish,
        subscribe: async (_topic, onMessage) => {
          hear = onMessage
        },
        subscribeAgain: async topic => {
          expect(topic).toBe('fr/1/acme/ack/+')
          asked.push(clock.now() - historyStart)
          if (shows) for (const [at, word] of bus.retained) if (at.startsWith('fr/1/acme/ack/')) hear(at, word)
        },
      },
    })
    const confirm = (seq: number) =>
      bus.publish(
        'fr/1/acme/ack/gateway',
        encodeAcknowledgement({ relyingParty: 'gateway', seq, appliedAt: historyStart, sessionsClosed: 0 }),
        { qos: 1, retain: true },
      )
    await settle()
    await confirm(1)
    await clock.advance(200)
    expect([confirmations.seqOf('gateway'), asked]).toEqual([0, [10, 30, 70, 130, 190]])
    shows = true
    await clock.advance(1000)
    expect([confirmations.seqOf('gateway'), asked.slice(5)]).toEqual([1, [250]])
    // Of the next notice it begins again.
    outbox.last = 2
    wake()
    await settle()
    await confirm(2)
    await clock.advance(1000)
    expect([confirmations.seqOf('gateway'), asked.slice(6)]).toEqual([2, [1210]])
  })

  it('[F54] shows the head again until every relying party has confirmed it', async () => {
    const [outbox, bus] = [memoryOutbox(2), createMemoryBus()]
    const { clock, drained } = publisher(outbox, bus, { relyingParties: ['gateway', 'api'] })
    await drained()
    const confirm = (relyingParty: string, seq: number, as = relyingParty) =>
      bus.publish(`fr/1/acme/ack/${as}`, encodeAcknowledgement({ relyingParty, seq, appliedAt: historyStart, sessionsClosed: 4 }), {
        qos: 1,
        retain: true,
      })
    await confirm('gateway', 2)
    await confirm('api', 1)
    // Written by another than the one it names: the broker would not let it, and it counts for nobody.
    await confirm('api', 2, 'gateway')
    const before = headSeqs(bus).length
    await clock.advance(31)
    expect(headSeqs(bus).slice(before)).toEqual([2])
    await confirm('api', 2)
    const after = headSeqs(bus).length
    await clock.advance(600)
    expect(headSeqs(bus)).toHaveLength(after)
  })

  it('shows heartbeats that lead to the anchor of the newest notice', async () => {
    const [outbox, bus] = [memoryOutbox(5), createMemoryBus()]
    const { clock, drained } = publisher(outbox, bus, { heartbeats })
    await drained()
    await clock.advance(60)
    const beats = bus.published.filter(({ topic }) => topic.endsWith('/hb')).map(({ payload }) => decodeHeartbeat(payload))
    // Notice 5 was issued 4 seconds after the start; a step is a third of its max-age.
    expect(beats.map(beat => beat?.i)).toEqual([0, 1, 2, 3, 4, 5])
    const { anchor } = heartbeatChain(heartbeatSecret, 'acme', 5)
    for (const beat of beats) expect(beat && chainsTo(beat.link, beat.i, anchor)).toBe(true)
  })

  it('asks for another notice before the heartbeats run out', async () => {
    const [outbox, bus] = [memoryOutbox(1), createMemoryBus()]
    const renewals: number[] = []
    const renew = async (seq: number) => {
      renewals.push(seq)
      if (renewals.length < 3) throw new Error('the key is away')
      outbox.last = 2
    }
    const { clock, drained } = publisher(outbox, bus, { heartbeats, renew })
    await drained()
    clock.set(historyStart + 65536 * 10 * 0.8)
    await clock.advance(30)
    // Twice in vain, then there is another notice.
    expect(renewals.slice(0, 3)).toEqual([1, 1, 1])
    expect(headSeqs(bus).at(-1)).toBe(2)
  })

  it('asks for a first notice where there is none, since nobody is admitted by heartbeats before', async () => {
    const [outbox, bus] = [memoryOutbox(0), createMemoryBus()]
    const renewals: number[] = []
    const renew = async (seq: number) => {
      renewals.push(seq)
      outbox.last = 1
    }
    await publisher(outbox, bus, { renew }).drained()
    await settle()
    expect(renewals).toEqual([0])
    expect(headSeqs(bus)).toEqual([1])
  })

  it('shows snapshots after the notices, once until they are others, and again to a broker that forgot', async () => {
    const [outbox, bus] = [memoryOutbox(1), createMemoryBus()]
    const rules = [
      { kind: 'group' as const, gid: 7, bound: 5 },
      { kind: 'range' as const, start: 200_000, length: 2 },
    ]
    const snapshots = createSnapshots({
      fleet: 'acme',
      newest: async () => ({ seq: outbox.last, sha256: noticeSha256(history.notices[outbox.last - 1].notice) }),
      rules: async () => createRuleSet(rules),
      keys: [key],
      now: () => historyStart,
    })
    const { drained } = publisher(outbox, bus, { snapshots })
    const shown = () => bus.published.flatMap(({ topic, retain }) => (topic.includes('/snap/') && retain ? [topic] : []))
    await drained()
    expect(bus.published.map(({ topic }) => topic.split('/')[3])).toEqual(['n', 'head', 'n', 'head', 'snap', 'snap'])
    for (outbox.last = 2; outbox.last < 33; outbox.last++) await drained()
    expect(shown()).toHaveLength(2)
    await drained()
    expect(shown()).toEqual(['fr/1/acme/snap/0', 'fr/1/acme/snap/1', 'fr/1/acme/snap/0', 'fr/1/acme/snap/1'])
    bus.restart()
    await drained()
    expect([...bus.retained.keys()].filter(topic => topic.includes('/snap/'))).toHaveLength(2)
  })

  it('says nothing more once it is closed', async () => {
    const [outbox, bus] = [memoryOutbox(0), createMemoryBus()]
    const { clock, drained, close, wake } = publisher(outbox, bus, { heartbeats })
    await drained()
    close()
    outbox.last = 3
    wake()
    await clock.advance(100)
    expect(bus.published).toEqual([])
    await expect(drained()).rejects.toMatchObject({ code: 'bus_closed' })
  })
})
