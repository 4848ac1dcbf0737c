import { acknowledgementTopic, createPublisher, encodeAcknowledgement } from '@birthmark/fleet-revocation'
import { expect, test } from 'vitest'
import { createManualClock } from '../../fleet-revocation/src/testing/manual-clock.ts'
import { createMemoryBus, quietLog } from '../../fleet-revocation/src/testing/memory-bus.ts'
import { createMemoryOutbox } from '../../fleet-revocation/src/testing/memory-outbox.ts'
import { type RelyingPartyParts, relyingPartyOperations } from './relying-parties.ts'

const fleet = 'acme'

async function started(configured: string[] = []) {
  const [clock, bus] = [createManualClock(1000), createMemoryBus()]
  const publisher = createPublisher({ outbox: createMemoryOutbox().outbox, bus, fleet, clock, log: quietLog })
  const recorded: string[] = []
  const store: RelyingPartyParts['store'] = {
    appendAudit: async ({ kind, by, detail }) => {
      recorded.push(`${kind} ${by} ${detail}`)
    },
    newestNotice: async () => ({ seq: 5, notice: new Uint8Array(0), sha256: new Uint8Array(32), at: 900 }),
  }
  for (const [relyingParty, seq] of [
    ['billing', 3],
    ['orders', 5],
  ] as const)
    await bus.publish(
      acknowledgementTopic(fleet, relyingParty),
      encodeAcknowledgement({ relyingParty, seq, appliedAt: 900, sessionsClosed: 0 }),
      { qos: 1, retain: true },
    )
  return { bus, clock, recorded, publisher, ...relyingPartyOperations({ publisher, configured, store, fleet, by: 'alice', clock }) }
}

test('who confirms notices: those of the configuration, and those that ever said so, each with the newest it has in force', async () => {
  const { relyingParties } = await started(['gateway', 'orders'])
  expect(await relyingParties()).toEqual({
    newest: 5,
    relyingParties: [
      { name: 'billing', configured: false, seq: 3, appliedAt: 900 },
      { name: 'gateway', configured: true, seq: null, appliedAt: null },
      { name: 'orders', configured: true, seq: 5, appliedAt: 900 },
    ],
  })
})

test('one that is retired is forgotten, on record, and nobody waits for it', async () => {
  const { bus, publisher, recorded, forgetRelyingParty } = await started()
  expect(publisher.confirmations.of(5, []).missing).toEqual(['billing'])
  expect(await forgetRelyingParty({ name: 'billing' })).toEqual({ name: 'billing' })
  expect(publisher.confirmations.of(5, [])).toEqual({ confirmed: ['orders'], missing: [] })
  expect([...bus.retained.keys()]).toEqual([acknowledgementTopic(fleet, 'orders')])
  expect(recorded).toEqual(['relying_party_forgotten alice billing'])
})

test('one that the configuration names is not forgotten, and neither is one that nobody knows; nothing is on record', async () => {
  const { recorded, forgetRelyingParty } = await started(['orders'])
  await expect(forgetRelyingParty({ name: 'orders' })).rejects.toMatchObject({
    ...{ code: 'relying_party_configured', exit: 'refused', next: expect.stringContaining('mqtt.services') },
  })
  for (const name of ['ordres', '+', '#'])
    await expect(forgetRelyingParty({ name })).rejects.toMatchObject({
      ...{ code: 'relying_party_unknown', exit: 'refused', next: expect.stringContaining('birthmark revoke parties') },
    })
  expect(recorded).toEqual([])
})

test('a broker that is away, or does not let this server write there, keeps the name, and that is said', async () => {
  const { bus, publisher, forgetRelyingParty } = await started()
  bus.weather = 'down'
  await expect(forgetRelyingParty({ name: 'billing' })).rejects.toMatchObject({
    ...{ code: 'relying_party_kept', exit: 'unreachable', next: expect.stringContaining('access rules') },
  })
  expect(publisher.confirmations.of(5, []).missing).toEqual(['billing'])
})
