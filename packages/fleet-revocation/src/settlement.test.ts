import type { Bytes } from '@birthmark/device-sdk/core'
import { describe, expect, it } from 'vitest'
import { decodeAcknowledgement } from './acknowledgement.ts'
import { createRelyingParty, type RelyingPartyEvent } from './relying-party.ts'
import { emptyState } from './relying-party-state.ts'
import { createSettlement } from './settlement.ts'
import { createTestHistory, historyStart } from './testing/history.ts'
import { createManualClock, settle } from './testing/manual-clock.ts'
import { createMemoryBus, quietLog } from './testing/memory-bus.ts'
import { createTestNoticeKey } from './testing/notice-key.ts'

const key = createTestNoticeKey()
const topic = 'fr/1/acme/ack/gateway'
const rule = { kind: 'group', gid: 7, bound: 5 } as const
const revoked = { fleet: 'acme', idx: 4, gids: [7] }
const revokedToo = { fleet: 'acme', idx: 4, gids: [8] }

/** A medium and sessions that outlive the party; each start is the process anew. */
function gateway() {
  const clock = createManualClock(historyStart)
  const world = { saved: null as Bytes | null, saves: 0, full: false, sessions: 2, passes: 0, unreachable: false, cutSeconds: 0 }
  const events: RelyingPartyEvent[] = []
  async function enforce(): Promise<{ cut: number }> {
    world.passes++
    if (world.cutSeconds > 0) await new Promise<void>(resolve => clock.setTimer(world.cutSeconds, resolve))
    if (world.unreachable) throw new Error('the broker does not answer')
    const cut = world.sessions
    world.sessions = 0
    return { cut }
  }
  async function save(bytes: Bytes): Promise<void> {
    world.saves++
    if (world.full) throw new Error('disk full')
    world.saved = bytes
  }
  async function start() {
    const bus = createMemoryBus()
    const party = await createRelyingParty({
      ...{ name: 'gateway', fleet: 'acme', signers: [key.signer], bus, clock, log: quietLog, enforce },
      ...{ state: { load: async () => world.saved, save }, onEvent: event => events.push(event) },
    })
    const heard = () => bus.published.filter(one => one.topic === topic).map(({ payload }) => decodeAcknowledgement(payload))
    return { ...party, bus, heard }
  }
  return { clock, world, events, start }
}

const word = (seq: number, sessionsClosed: number, at = historyStart) => ({
  ...{ relyingParty: 'gateway', seq, appliedAt: at, sessionsClosed },
})

describe('a settlement', () => {
  it('owes from the denial on, whatever becomes of its turn, and still owes what was denied while it cut', async () => {
    const clock = createManualClock(historyStart)
    const state = emptyState()
    const done: string[] = []
    let meanwhile = () => {}
    const settlement = createSettlement({
      ...{ state, clock, say: () => {}, onSettled: ({ seq, cut }) => done.push(`${seq}: ${cut}`) },
      save: async () => void done.push(state.uncut ? 'saved uncut' : 'saved'),
      enforce: async () => {
        meanwhile()
        return { cut: 1 }
      },
    })
    expect(settlement.owes()).toBe(false)
    settlement.denied(3)
    expect(settlement.owes()).toBe(true)
    meanwhile = () => settlement.denied(4)
    await settlement.makeUp()
    expect([settlement.owes(), done]).toEqual([true, ['saved uncut', '3: 1']])
    meanwhile = () => {}
    await settlement.settle(4, true)
    expect([settlement.owes(), done.slice(2)]).toEqual([false, ['saved', '4: 1']])
  })
})

describe('a relying party', () => {
  it('[F68] that could not save a notice saves and acknowledges it when it is shown again, with the sessions that it cut', async () => {
    const { world, start } = gateway()
    const { receive, heard } = await start()
    const notice = await createTestHistory(key).add([rule])
    world.full = true
    await expect(receive(notice)).rejects.toMatchObject({ code: 'state_not_saved' })
    await expect(receive(notice)).rejects.toMatchObject({ code: 'state_not_saved' })
    expect(heard()).toEqual([])
    world.full = false
    expect((await receive(notice)).kind).toBe('known')
    expect(heard()).toEqual([word(1, 2)])
    expect((await receive(notice)).kind).toBe('known')
    expect(heard()).toHaveLength(1)
    expect((await (await start()).receive(notice)).kind).toBe('known')
  })

  it('[F68] that could not save a notice does so by itself once there is room, and says what it did', async () => {
    const { clock, world, events, start } = gateway()
    const { receive, heard } = await start()
    world.full = true
    await expect(receive(await createTestHistory(key).add([rule]))).rejects.toMatchObject({ code: 'state_not_saved' })
    await clock.advance(60)
    expect(heard()).toEqual([])
    world.full = false
    await clock.advance(10)
    expect(heard()).toMatchObject([{ seq: 1, sessionsClosed: 2 }])
    expect(events.filter(({ type }) => type === 'applied')).toEqual([{ type: 'applied', seq: 1, grew: true, cut: 2 }])
    expect((await start()).status(revoked, null)).toBe('revoked')
  })

  it('[F68] counts the sessions of a notice that it could not save with those of the next', async () => {
    const { world, start } = gateway()
    const { receive, heard } = await start()
    const history = createTestHistory(key)
    world.full = true
    await expect(receive(await history.add([rule]))).rejects.toMatchObject({ code: 'state_not_saved' })
    Object.assign(world, { full: false, sessions: 3 })
    await receive(await history.add([{ ...rule, gid: 8 }]))
    expect(heard()).toEqual([word(2, 5)])
  })

  it('that could not cut has saved what it denies, and acknowledges nothing until it has cut', async () => {
    const { clock, world, start } = gateway()
    const { receive, heard } = await start()
    world.unreachable = true
    await expect(receive(await createTestHistory(key).add([rule]))).rejects.toThrow('the broker does not answer')
    expect((await start()).status(revoked, null)).toBe('revoked')
    expect(heard()).toEqual([])
    world.unreachable = false
    await clock.advance(10)
    expect(heard()).toMatchObject([{ seq: 1, sessionsClosed: 2 }])
  })

  it('[F44] that died while a broker took its time to cut denies after the restart, cuts, and only then acknowledges', async () => {
    const { clock, world, start } = gateway()
    const first = await start()
    world.cutSeconds = 8
    void first.receive(await createTestHistory(key).add([rule]))
    await settle(20)
    await clock.advance(2)
    first.close()
    world.cutSeconds = 0
    const { status, bus, heard } = await start()
    expect(status(revoked, null)).toBe('revoked')
    bus.restart()
    await clock.advance(3)
    expect(heard()).toEqual([])
    await clock.advance(3)
    expect(heard()).toMatchObject([{ seq: 1, sessionsClosed: 2 }])
  })

  it('[F44] says after a restart what it said before, and not what nobody did', async () => {
    const { clock, start } = gateway()
    const first = await start()
    await first.receive(await createTestHistory(key).add([rule]))
    expect(first.heard()).toEqual([word(1, 2)])
    first.close()
    await clock.advance(3600)
    const { bus, heard } = await start()
    bus.restart()
    await clock.advance(3)
    expect(heard()).toEqual([word(1, 2)])
  })

  it('[F44] keeps the sessions that it cut for a notice beyond a gap, over a restart, until it may speak of it', async () => {
    const { start } = gateway()
    const history = createTestHistory(key)
    const [first, second] = [await history.add([rule]), await history.add([{ ...rule, gid: 8 }])]
    const before = await start()
    await before.receive(second)
    await settle()
    expect(before.heard()).toEqual([])
    before.close()
    const { receive, heard } = await start()
    await receive(first)
    expect(heard()).toEqual([word(2, 2)])
  })

  it('denies what a notice says while the sessions of the one before are being cut, and acknowledges each after its own are', async () => {
    const { clock, world, start } = gateway()
    const { receive, status, heard } = await start()
    const history = createTestHistory(key)
    world.cutSeconds = 250
    const [first, second] = [receive(await history.add([rule])), receive(await history.add([{ ...rule, gid: 8 }]))]
    await settle(20)
    expect([status(revoked, null), status(revokedToo, null)]).toEqual(['revoked', 'revoked'])
    await clock.advance(249)
    expect(heard()).toEqual([])
    await clock.advance(1)
    expect(await first).toMatchObject({ kind: 'applied', seq: 1 })
    expect(heard()).toMatchObject([{ seq: 1 }])
    await clock.advance(249)
    expect(heard()).toHaveLength(1)
    await clock.advance(1)
    expect(await second).toMatchObject({ kind: 'applied', seq: 2 })
    expect(heard()).toMatchObject([{ seq: 1 }, { seq: 2 }])
  })

  it('cuts once for all notices that wait for one pass, which began when all of them were denied, and acknowledges each', async () => {
    const { clock, world, events, start } = gateway()
    const { receive, heard } = await start()
    const history = createTestHistory(key)
    const notices = []
    for (let gid = 7; gid < 13; gid++) notices.push(await history.add([{ ...rule, gid }]))
    world.cutSeconds = 25
    const receipts = Promise.all(notices.map(receive))
    await settle(20)
    await clock.advance(25)
    expect([heard().map(word => word?.seq), world.passes]).toEqual([[1], 2])
    world.sessions = 3
    await clock.advance(25)
    expect(heard().map(word => word?.sessionsClosed)).toEqual([2, 3, 0, 0, 0, 0])
    expect(await receipts).toMatchObject([{ cut: 2 }, { cut: 3 }, { cut: 0 }, { cut: 0 }, { cut: 0 }, { cut: 0 }])
    await clock.advance(100)
    expect(world.passes).toBe(2)
    expect(events.filter(({ type }) => type === 'applied')).toHaveLength(6)
  })

  it('cuts again for every notice that a pass which failed should have covered', async () => {
    const { clock, world, start } = gateway()
    const { receive, heard } = await start()
    const history = createTestHistory(key)
    world.cutSeconds = 25
    const [first, second] = [receive(await history.add([rule])), receive(await history.add([{ ...rule, gid: 8 }]))]
    const results = Promise.allSettled([first, second])
    await settle(20)
    await clock.advance(25)
    world.unreachable = true
    await clock.advance(25)
    expect((await results).map(({ status }) => status)).toEqual(['fulfilled', 'rejected'])
    Object.assign(world, { unreachable: false, sessions: 3 })
    await clock.advance(30)
    expect([world.passes, world.sessions]).toEqual([3, 0])
    expect(heard().map(word => [word?.seq, word?.sessionsClosed])).toEqual([
      [1, 2],
      [2, 3],
    ])
  })

  it('[F44] has saved a second later what a notice denied in the middle of a long pass, once, or once there is room', async () => {
    const { clock, world, start } = gateway()
    const { receive } = await start()
    const history = createTestHistory(key)
    const denied = async (gid: number) => {
      const { status, close } = await start()
      close()
      return status({ fleet: 'acme', idx: 4, gids: [gid] }, null) === 'revoked'
    }
    world.cutSeconds = 250
    void receive(await history.add([rule]))
    await settle(20)
    await clock.advance(10)
    expect([await denied(7), world.saves]).toEqual([true, 1])
    void receive(await history.add([{ ...rule, gid: 8 }]))
    await settle(20)
    await clock.advance(1)
    expect([await denied(8), world.saves]).toEqual([true, 2])
    world.full = true
    void receive(await history.add([{ ...rule, gid: 9 }]))
    await settle(20)
    await clock.advance(10)
    expect(await denied(9)).toBe(false)
    world.full = false
    await clock.advance(1)
    expect(await denied(9)).toBe(true)
    const { saves } = world
    await clock.advance(100)
    expect(world.saves).toBe(saves)
  })

  it('[F44] that died before it cut for a notice that it denied already, cuts after the restart', async () => {
    const { clock, world, events, start } = gateway()
    const first = await start()
    const history = createTestHistory(key)
    const [one, two] = [await history.add([rule]), await history.add([{ ...rule, gid: 8 }])]
    world.cutSeconds = 8
    void first.receive(one)
    await settle(20)
    await clock.advance(4)
    void first.receive(two)
    await settle(20)
    await clock.advance(4.5)
    // The first is cut, saved and said, and with it what the second denies; a session of that is open still.
    expect(first.heard()).toMatchObject([{ seq: 1 }])
    first.close()
    Object.assign(world, { cutSeconds: 0, sessions: 1 })
    const { status, heard } = await start()
    expect(status(revokedToo, null)).toBe('revoked')
    await clock.advance(6)
    expect(world.sessions).toBe(0)
    expect(events.at(-1)).toMatchObject({ type: 'applied', cut: 1 })
    expect(heard()).toEqual([])
  })
})
