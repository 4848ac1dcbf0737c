import { expect, it } from 'vitest'
import { acknowledgementTopic, encodeAcknowledgement } from './acknowledgement.ts'
import { createConfirmations } from './confirmations.ts'
import { createManualClock, settle } from './testing/manual-clock.ts'
import { createMemoryBus, quietLog } from './testing/memory-bus.ts'

const fleet = 'acme'

function heardOn(bus = createMemoryBus()) {
  const clock = createManualClock(0)
  const confirmations = createConfirmations({ fleet, bus, clock, log: quietLog })
  const say = (relyingParty: string, seq: number, as = relyingParty) =>
    bus.publish(
      acknowledgementTopic(fleet, as),
      encodeAcknowledgement({ relyingParty, seq, appliedAt: 0, sessionsClosed: 4 }),
      retained,
    )
  return { bus, clock, confirmations, say }
}
const retained = { qos: 1, retain: true } as const

it('who has a notice in force is counted among those that are expected and those that ever said so', async () => {
  const { confirmations, say } = heardOn()
  await say('gateway', 2)
  await say('api', 2)
  await say('api', 1)
  expect(confirmations.of(2, ['api', 'orders'])).toEqual({ confirmed: ['api', 'gateway'], missing: ['orders'] })
  expect(confirmations.of(3, [])).toEqual({ confirmed: [], missing: ['api', 'gateway'] })
  expect(confirmations.heard().map(({ relyingParty, seq, sessionsClosed }) => [relyingParty, seq, sessionsClosed])).toEqual([
    ['gateway', 2, 4],
    ['api', 2, 4],
  ])
})

it('[F50] a word counts for nobody where the topic names another than the word does', async () => {
  const { confirmations, say } = heardOn()
  await say('api', 2, 'gateway')
  expect(confirmations.heard()).toEqual([])
})

it('an empty word takes a name off, until it says something again', async () => {
  const { bus, confirmations, say } = heardOn()
  await say('gateway', 2)
  await bus.publish(acknowledgementTopic(fleet, 'gateway'), new Uint8Array(0), retained)
  expect(confirmations.of(3, [])).toEqual({ confirmed: [], missing: [] })
  await say('gateway', 1)
  expect(confirmations.of(3, [])).toEqual({ confirmed: [], missing: ['gateway'] })
})

it('a retired relying party is forgotten at the broker too, so that a later start does not wait for it either', async () => {
  const { bus, confirmations, say } = heardOn()
  await say('gateway', 2)
  await say('api', 2)
  expect(await confirmations.forget('gateway')).toBe(true)
  expect([...bus.retained.keys()]).toEqual([acknowledgementTopic(fleet, 'api')])
  expect(confirmations.of(2, [])).toEqual({ confirmed: ['api'], missing: [] })
  expect(heardOn(bus).confirmations.of(2, [])).toEqual({ confirmed: ['api'], missing: [] })
})

it('nothing is published for a name that has said nothing, such as one with a wildcard', async () => {
  const { bus, confirmations, say } = heardOn()
  await say('gateway', 2)
  for (const name of ['orders', '+', '#', 'gateway/x', '']) expect(await confirmations.forget(name)).toBe(false)
  expect(bus.published).toHaveLength(1)
})

it('a broker that acknowledges and does not do it is told apart, as one whose access rules do not let the publisher', async () => {
  const { bus, clock, confirmations, say } = heardOn()
  await say('gateway', 2)
  bus.publish = async () => {}
  const refused = expect(confirmations.forget('gateway')).rejects.toMatchObject({ code: 'bus_failed' })
  await settle()
  await clock.advance(10)
  await refused
  expect(confirmations.of(2, []).confirmed).toEqual(['gateway'])
})

it('a broker that is away keeps the name', async () => {
  const { bus, confirmations, say } = heardOn()
  await say('gateway', 2)
  bus.weather = 'down'
  await expect(confirmations.forget('gateway')).rejects.toMatchObject({ code: 'bus_failed' })
  expect(confirmations.of(2, []).confirmed).toEqual(['gateway'])
})
