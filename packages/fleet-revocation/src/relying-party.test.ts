import type { Bytes } from '@birthmark/device-sdk/core'
import { encodeCbor, encodeSign1, sign1Header, sign1ToBeSigned } from '@birthmark/device-sdk/core'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeAcknowledgement } from './acknowledgement.ts'
import { encodeHeartbeat, heartbeatChain } from './heartbeat.ts'
import { createRelyingParty, type RelyingPartyEvent, type RelyingPartyOptions } from './relying-party.ts'
import { createTestHistory, heartbeatSecret, historyStart } from './testing/history.ts'
import { createManualClock, settle } from './testing/manual-clock.ts'
import { createMemoryBus, quietLog } from './testing/memory-bus.ts'
import { createTestNoticeKey, twinOf } from './testing/notice-key.ts'

const key = createTestNoticeKey()
const seven = { fleet: 'acme', idx: 4, gids: [7] }
const eight = { fleet: 'acme', idx: 4, gids: [8] }
const group = (gid: number, bound: number) => ({ kind: 'group' as const, gid, bound })
/** As many as a rule set keeps. */
const issuersMax = 256
const beatOf = (seq: number, i: number) => encodeHeartbeat({ seq, i, link: heartbeatChain(heartbeatSecret, 'acme', seq).link(i) })

function memoryState() {
  const state = {
    saved: null as Bytes | null,
    fails: false,
    saves: 0,
    load: async () => state.saved,
    save: async (bytes: Bytes) => write(bytes),
  }
  const write = (bytes: Bytes) => {
    if (state.fails) throw new Error('disk full')
    state.saved = bytes
    state.saves++
  }
  return state
}

async function relyingParty(more: Partial<RelyingPartyOptions> = {}) {
  const clock = createManualClock(historyStart)
  const bus = createMemoryBus()
  const state = memoryState()
  const events: RelyingPartyEvent[] = []
  const options: RelyingPartyOptions = {
    name: 'gateway',
    fleet: 'acme',
    signers: [key.signer],
    state,
    bus,
    clock,
    log: quietLog,
    onEvent: event => events.push(event),
    ...more,
  }
  return { clock, bus, state, events, options, party: await createRelyingParty(options) }
}

describe('a relying party', () => {
  it('denies first, then cuts, then saves, then acknowledges', async () => {
    const order: string[] = []
    const clock = createManualClock(historyStart)
    const bus = createMemoryBus()
    const { party } = await relyingParty({
      clock,
      bus: { ...bus, publish: async topic => void order.push(topic) },
      state: { load: async () => null, save: async () => void order.push('saved') },
      enforce: async () => {
        order.push(party.status(seven, null))
        return { cut: 3 }
      },
    })
    expect(await party.receive(await createTestHistory(key).add([group(7, 5)]))).toEqual({ kind: 'applied', seq: 1, cut: 3 })
    expect(order).toEqual(['revoked', 'saved', 'fr/1/acme/ack/gateway'])
  })

  it('takes notices from head, ring and heartbeats on the bus, and says what it did', async () => {
    const { bus, party, events } = await relyingParty({ enforce: async () => ({ cut: 2 }) })
    const notice = await createTestHistory(key).add([group(7, 5)])
    await bus.publish('fr/1/acme/head', notice, { qos: 1, retain: true })
    await bus.publish('fr/1/acme/n/1', notice, { qos: 1, retain: true })
    await settle(20)
    expect(party.status(seven, null)).toBe('revoked')
    expect(party.status(eight, null)).toBe('good')
    expect(events).toEqual([{ type: 'applied', seq: 1, grew: true, cut: 2 }, { type: 'fresh' }])
    const ack = bus.published.find(({ topic }) => topic === 'fr/1/acme/ack/gateway')
    expect(ack && decodeAcknowledgement(ack.payload)).toEqual({
      relyingParty: 'gateway',
      seq: 1,
      appliedAt: historyStart,
      sessionsClosed: 2,
    })
  })

  it('[F48] refuses new connections when heartbeats stay away, keeps denying, and comes back with one', async () => {
    const { clock, party, events } = await relyingParty()
    await party.receive(await createTestHistory(key, { heartbeats: true }).add([group(7, 5)]))
    expect(party.fresh()).toBe(true)
    await clock.advance(29)
    party.heartbeat(beatOf(1, 2))
    await clock.advance(20)
    expect(party.status(eight, null)).toBe('good')
    await clock.advance(12)
    expect(party.status(eight, null)).toBe('unknown')
    expect(party.status(seven, null)).toBe('revoked')
    expect(events.at(-1)).toEqual({ type: 'alarm', reason: 'stale' })
    party.heartbeat(beatOf(1, 6))
    expect(party.status(eight, null)).toBe('good')
    expect(events.at(-1)).toEqual({ type: 'fresh' })
  })

  it('believes no heartbeat that is forged, old, of another notice or from the future', async () => {
    const { clock, party } = await relyingParty()
    await party.receive(await createTestHistory(key, { heartbeats: true }).add([]))
    await clock.advance(25)
    party.heartbeat(beatOf(1, 2))
    const { provenAt } = party.progress()
    expect(provenAt).toBe(historyStart + 20)
    party.heartbeat(encodeHeartbeat({ seq: 1, i: 3, link: new Uint8Array(16) }))
    party.heartbeat(beatOf(1, 1))
    party.heartbeat(beatOf(2, 3))
    party.heartbeat(beatOf(1, 60_000))
    party.heartbeat(new Uint8Array(5))
    expect(party.progress().provenAt).toBe(provenAt)
  })

  it('[F39] is not fresh while its clock is far from the publisher’s, in either direction', async () => {
    const { clock, party } = await relyingParty()
    await party.receive(await createTestHistory(key).add([]))
    clock.set(historyStart - 3600)
    expect(party.fresh()).toBe(false)
    clock.set(historyStart + 3600)
    expect(party.fresh()).toBe(false)
    clock.set(historyStart)
    expect(party.fresh()).toBe(true)
  })

  it('[F44] knows after a restart what it knew, and takes an older notice for known', async () => {
    const { party, options, state } = await relyingParty()
    const history = createTestHistory(key)
    for (const bound of [5, 6, 7]) await party.receive(await history.add([group(7, bound)]))
    const again = await createRelyingParty({ ...options, bus: createMemoryBus() })
    expect(again.progress()).toEqual({ through: 3, newest: 3, provenAt: historyStart + 2 })
    expect(again.rules.rules()).toEqual([group(7, 7)])
    const { saves } = state
    for (const { notice } of history.notices) expect((await again.receive(notice)).kind).toBe('known')
    expect(state.saves).toBe(saves)
    expect(again.fresh()).toBe(true)
  })

  it('does not begin with a damaged state, which would forget who is revoked', async () => {
    const { party, state, options } = await relyingParty()
    await party.receive(await createTestHistory(key).add([group(7, 5)]))
    const saved = state.saved ?? new Uint8Array(0)
    for (const bytes of [saved.subarray(1), saved.subarray(0, -1), new Uint8Array(0), encodeCbor([1, 'acme'])]) {
      state.saved = bytes
      await expect(createRelyingParty(options)).rejects.toMatchObject({ code: 'state_malformed' })
    }
    state.saved = saved
    await expect(createRelyingParty({ ...options, fleet: 'other' })).rejects.toMatchObject({ code: 'state_malformed' })
  })

  it('[F68] denies in memory what it could not save, and does not acknowledge it', async () => {
    const { party, state, bus } = await relyingParty()
    state.fails = true
    await expect(party.receive(await createTestHistory(key).add([group(7, 5)]))).rejects.toMatchObject({ code: 'state_not_saved' })
    expect(party.status(seven, null)).toBe('revoked')
    expect(bus.published).toEqual([])
  })

  it('[F47] refuses what is not signed for it, and its state stays', async () => {
    const { party, state, events } = await relyingParty()
    const forged = await createTestHistory(createTestNoticeKey()).add([group(7, 5)])
    expect(await party.receive(forged)).toEqual({ kind: 'refused', problem: 'notice_signer_unknown' })
    expect(await party.receive(new Uint8Array(10 << 20))).toEqual({ kind: 'refused', problem: 'notice_too_large' })
    expect(state.saves).toBe(0)
    expect(party.status(seven, null)).toBe('unknown')
    expect(events.filter(({ type }) => type === 'refused')).toHaveLength(2)
  })

  it('is not fresh over a gap, and pulls what is missing', async () => {
    const history = createTestHistory(key)
    for (const gid of [7, 8, 9]) await history.add([group(gid, 5)], { issuedAt: historyStart })
    let pulls = 0
    const { party, clock, events } = await relyingParty({
      pull: async seq => {
        pulls++
        return { snapshots: [], notices: pulls < 2 ? [] : history.notices.slice(seq).map(({ notice }) => notice) }
      },
    })
    await party.receive(history.notices[0].notice)
    await party.receive(history.notices[2].notice)
    // What has come is in force, gap or not.
    expect(party.status({ ...seven, gids: [9] }, null)).toBe('revoked')
    expect(party.status({ ...seven, gids: [1] }, null)).toBe('unknown')
    expect(events.at(-1)).toEqual({ type: 'alarm', reason: 'gap' })
    await clock.advance(11)
    await settle(20)
    expect(party.progress()).toMatchObject({ through: 3, newest: 3 })
    expect(party.status({ ...seven, gids: [1] }, null)).toBe('good')
  })

  it('denies all that it pulled before the first is cut, and takes in the others where one can not be', async () => {
    const history = createTestHistory(key)
    for (const gid of [7, 8, 9]) await history.add([group(gid, 5)], { issuedAt: historyStart })
    let cuts = 0
    let giveUp = () => {}
    const unreachable = new Promise<{ cut: number }>((_, failed) => {
      giveUp = () => failed(new Error('the broker does not answer'))
    })
    const { party, clock } = await relyingParty({
      pull: async () => ({ snapshots: [], notices: history.notices.map(({ notice }) => notice) }),
      enforce: () => (cuts++ === 0 ? unreachable : Promise.resolve({ cut: 0 })),
    })
    await clock.advance(31)
    await settle(20)
    expect([7, 8, 9].map(gid => party.status({ ...seven, gids: [gid] }, null))).toEqual(['revoked', 'revoked', 'revoked'])
    expect(party.progress().through).toBe(1)
    giveUp()
    await settle(20)
    expect(party.progress().through).toBe(3)
  })

  it('calls nobody good once a notice holds more than it can keep', async () => {
    const history = createTestHistory(key)
    const issuers = (from: number, count: number) =>
      Array.from({ length: count }, (_, i) => {
        const keyId = new Uint8Array(20)
        new DataView(keyId.buffer).setUint32(0, from + i)
        return { kind: 'issuer' as const, keyId }
      })
    const { party, clock, events } = await relyingParty()
    await party.receive(await history.add([group(7, 5)], { issuedAt: historyStart }))
    expect(party.status({ ...seven, gids: [1] }, null)).toBe('good')
    for (let from = 0; from < issuersMax; from += 16)
      await party.receive(await history.add(issuers(from, 16), { issuedAt: historyStart }))
    expect(party.status({ ...seven, gids: [1] }, null)).toBe('good')
    await expect(party.receive(await history.add(issuers(issuersMax, 1), { issuedAt: historyStart }))).rejects.toMatchObject({
      code: 'rules_limit',
    })
    expect(party.status({ ...seven, gids: [1] }, null)).toBe('unknown')
    await clock.advance(11)
    expect(events.at(-1)).toEqual({ type: 'alarm', reason: 'gap' })
  })

  it('[F53] comes to the same end whatever the order', async () => {
    const history = createTestHistory(key)
    for (let gid = 1; gid <= 6; gid++) await history.add([group(gid, gid)], { issuedAt: historyStart })
    await fc.assert(
      fc.asyncProperty(fc.shuffledSubarray(history.notices, { minLength: 6 }), async order => {
        const { party } = await relyingParty()
        for (const { notice } of order) await party.receive(notice)
        expect(party.progress()).toMatchObject({ through: 6, newest: 6 })
        expect(party.rules.rules()).toHaveLength(6)
        expect(party.fresh()).toBe(true)
      }),
      { numRuns: 20 },
    )
  })

  it('[F7] enforces what it understands of a later version’s notice, and relies on nothing until it is updated', async () => {
    const { party, events, options } = await relyingParty()
    const header = sign1Header(-7)
    const later = async (fields: [number, Parameters<typeof encodeCbor>[0]][]) => {
      const payload = encodeCbor({ map: fields })
      return encodeSign1(header, key.keyId, payload, await key.sign(sign1ToBeSigned(header, payload)))
    }
    const common: [number, Parameters<typeof encodeCbor>[0]][] = [
      [1, 'acme'],
      [2, 1],
      [3, null],
      [4, historyStart],
      [5, 30],
      [6, new Uint8Array(16)],
      [
        7,
        [
          [1, 7, 5],
          [77, 1, 2, 3],
        ],
      ],
    ]
    expect((await party.receive(await later(common))).kind).toBe('applied')
    expect(party.status(seven, null)).toBe('revoked')
    expect(party.status(eight, null)).toBe('unknown')
    expect(events.some(event => event.type === 'alarm' && event.reason === 'unsupported')).toBe(true)
    // After the restart it is still missing, until a version that knows the rule reads it.
    const again = await createRelyingParty({ ...options, bus: createMemoryBus() })
    expect(again.progress().through).toBe(0)
    expect(again.fresh()).toBe(false)
    expect(await again.receive(await later([...common.slice(0, 6), [7, []], [10, 1]]))).toEqual({
      kind: 'refused',
      problem: 'notice_unsupported',
    })
    expect(again.fresh()).toBe(false)
  })

  it('takes the other form of a notice’s signature for the notice that it is', async () => {
    const history = createTestHistory(key)
    for (const gid of [7, 8]) await history.add([group(gid, 5)], { issuedAt: historyStart })
    const [first, second] = history.notices.map(({ notice }) => notice)
    const { party, events } = await relyingParty()
    expect((await party.receive(twinOf(first))).kind).toBe('applied')
    expect((await party.receive(first)).kind).toBe('known')
    expect((await party.receive(second)).kind).toBe('applied')
    expect((await party.receive(twinOf(second))).kind).toBe('known')
    expect(party.fresh()).toBe(true)
    expect(events.filter(({ type }) => type === 'alarm')).toEqual([])
  })

  it('[F45] enforces both notices of one number, and relies on neither history: a publisher came back from a backup', async () => {
    // How far the publisher fell back: to the newest number, within what is remembered, and beyond it.
    for (const [taken, spent] of [
      [1, 1],
      [3, 2],
      [80, 2],
    ]) {
      const [one, other] = [createTestHistory(key), createTestHistory(key)]
      for (let seq = 1; seq <= taken; seq++) await one.add([group(7, 5)], { issuedAt: historyStart })
      for (let seq = 1; seq < spent; seq++) await other.add([group(7, 5)], { issuedAt: historyStart })
      const again = await other.add([group(8, 5)], { issuedAt: historyStart })
      const { party, events, options } = await relyingParty({ enforce: async () => ({ cut: 1 }) })
      for (const { notice } of one.notices) await party.receive(notice)
      expect(party.fresh()).toBe(true)
      const restarted = await createRelyingParty({ ...options, bus: createMemoryBus() })
      for (const its of [party, restarted]) {
        expect(await its.receive(again)).toEqual({ kind: 'applied', seq: spent, cut: 1 })
        expect(its.status(eight, null)).toBe('revoked')
        expect(its.fresh()).toBe(false)
        expect((await its.receive(again)).kind).toBe('known')
      }
      expect(events.filter(event => event.type === 'alarm' && event.reason === 'forked')).toHaveLength(2)
      expect((await createRelyingParty({ ...options, bus: createMemoryBus() })).fresh()).toBe(false)
    }
  })

  it('[F45] notices a number spent twice although the second notice revokes nothing new', async () => {
    const { party } = await relyingParty()
    await party.receive(await createTestHistory(key).add([group(7, 5)]))
    await party.receive(await createTestHistory(key).add([]))
    expect(party.fresh()).toBe(false)
    expect(party.status(seven, null)).toBe('revoked')
  })

  it('[F45] stops relying on a history that forks, also after a restart', async () => {
    const [one, other] = [createTestHistory(key), createTestHistory(key)]
    await one.add([group(7, 1)])
    await other.add([group(7, 2)])
    const second = await other.add([group(8, 5)])
    const { party, events, options } = await relyingParty()
    await party.receive(one.notices[0].notice)
    expect(party.fresh()).toBe(true)
    await party.receive(second)
    expect(party.status(eight, null)).toBe('revoked')
    expect(party.fresh()).toBe(false)
    expect(events.some(event => event.type === 'alarm' && event.reason === 'forked')).toBe(true)
    expect((await createRelyingParty({ ...options, bus: createMemoryBus() })).fresh()).toBe(false)
  })
})
