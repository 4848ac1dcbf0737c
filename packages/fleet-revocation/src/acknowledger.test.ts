import { describe, expect, it } from 'vitest'
import { decodeAcknowledgement } from './acknowledgement.ts'
import { createAcknowledger } from './acknowledger.ts'
import { createRelyingParty } from './relying-party.ts'
import { createTestHistory, historyStart } from './testing/history.ts'
import { createManualClock, settle } from './testing/manual-clock.ts'
import { createMemoryBus, quietLog } from './testing/memory-bus.ts'
import { createTestNoticeKey } from './testing/notice-key.ts'

const fleet = 'acme'
const topic = 'fr/1/acme/ack/gateway'
const key = createTestNoticeKey()
const group = (gid: number, bound: number) => ({ kind: 'group' as const, gid, bound })
const word = (seq: number) => ({ seq, appliedAt: historyStart, sessionsClosed: 2 })

function acknowledger(before: ReturnType<typeof word> | null = null) {
  const [clock, bus] = [createManualClock(historyStart), createMemoryBus()]
  const heard = () => bus.published.filter(one => one.topic === topic).map(({ payload }) => decodeAcknowledgement(payload)?.seq)
  return { clock, bus, heard, ...createAcknowledger({ fleet, name: 'gateway', bus, before, clock, log: quietLog }) }
}

describe('an acknowledgement', () => {
  it('[F54] that the broker did not take is said again at growing distances until it has, and then no more', async () => {
    const { say, clock, bus, heard } = acknowledger()
    bus.weather = 'down'
    say(word(1))
    await clock.advance(3600)
    bus.weather = 'fair'
    // Never further apart than ten minutes.
    await clock.advance(600)
    expect(heard()).toEqual([1])
    await clock.advance(3600)
    expect(heard()).toEqual([1])
  })

  it('[F53] that arrived without an answer is said again, which changes nothing for whoever counts', async () => {
    const { say, clock, bus, heard } = acknowledger()
    bus.weather = 'lost'
    say(word(1))
    await settle()
    bus.weather = 'fair'
    await clock.advance(60)
    expect(heard()).toEqual([1, 1])
  })

  it('gives way to a newer one, which contains it', async () => {
    const { say, clock, bus, heard } = acknowledger()
    bus.weather = 'down'
    say(word(1))
    await settle()
    bus.weather = 'fair'
    say(word(2))
    await clock.advance(3600)
    expect(heard()).toEqual([2])
  })

  it('[F54] is said once more within seconds when a connection stands again, since the broker may have forgotten it', async () => {
    const { say, again, clock, bus, heard } = acknowledger()
    bus.restart()
    await clock.advance(10)
    expect(heard()).toEqual([])
    say(word(3))
    bus.restart()
    again()
    await clock.advance(3)
    expect(heard()).toEqual([3, 3])
  })

  it('of what was in force before a restart is said when a connection stands', async () => {
    const { clock, bus, heard } = acknowledger(word(7))
    expect(heard()).toEqual([])
    bus.restart()
    await clock.advance(3)
    expect(heard()).toEqual([7])
  })

  it('is not said any more by whoever is closed', async () => {
    const { say, close, clock, bus, heard } = acknowledger()
    bus.weather = 'down'
    say(word(1))
    await settle()
    close()
    bus.weather = 'fair'
    bus.restart()
    await clock.advance(3600)
    expect(heard()).toEqual([])
  })
})

describe('a relying party', () => {
  async function party() {
    const [clock, bus] = [createManualClock(historyStart), createMemoryBus()]
    let cut = 0
    const options = { name: 'gateway', fleet, signers: [key.signer], bus, clock, log: quietLog }
    const state = { load: async () => null, save: async () => {} }
    const receiver = await createRelyingParty({ ...options, state, enforce: async () => ({ cut: ++cut }) })
    const heard = () => bus.published.filter(one => one.topic === topic).map(({ payload }) => decodeAcknowledgement(payload))
    return { ...receiver, clock, bus, heard }
  }

  it('acknowledges no notice that lies beyond a gap, and both once it is closed', async () => {
    const { receive, heard } = await party()
    const history = createTestHistory(key)
    const [first, second] = [await history.add([group(7, 5)]), await history.add([group(8, 5)])]
    await receive(second)
    await settle()
    expect(heard()).toEqual([])
    await receive(first)
    await settle()
    expect(heard()).toMatchObject([{ seq: 2, sessionsClosed: 3 }])
  })

  it('[F54] acknowledges the head again when it is shown again', async () => {
    const { clock, bus, heard } = await party()
    const notice = await createTestHistory(key).add([group(7, 5)])
    const show = () => bus.publish('fr/1/acme/head', notice, { qos: 1, retain: true })
    await show()
    await settle(20)
    await show()
    await settle(20)
    await clock.advance(3)
    expect(heard().map(ack => ack?.seq)).toEqual([1, 1])
  })
})
