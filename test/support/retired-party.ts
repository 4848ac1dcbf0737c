// What a broker with the fleet's access rules does about a relying party that is retired: the publisher takes its word back, and nobody else can.

import { createPublisher, encodeAcknowledgement, systemClock } from '@birthmark/fleet-revocation'
import type { MqttBus } from '@birthmark/fleet-revocation/broker'
import type { MqttClient } from 'mqtt'
import { expect } from 'vitest'
import { quietLog } from '../../packages/fleet-revocation/src/testing/memory-bus.ts'
import { createMemoryOutbox } from '../../packages/fleet-revocation/src/testing/memory-outbox.ts'
import { fleet, until } from './broker.ts'

/** `party`: the relying party's own connection, under `name`. `forgers`: who may not do it; a broker may end their connections. */
export async function forgetsRetiredParty(parts: {
  publisherBus: MqttBus
  name: string
  party: MqttBus
  forgers: (() => Promise<MqttClient>)[]
}): Promise<void> {
  const { publisherBus: bus, name, party, forgers } = parts
  const topic = `fr/1/${fleet}/ack/${name}`
  const publisher = () => createPublisher({ outbox: createMemoryOutbox().outbox, bus, fleet, clock: systemClock, log: quietLog })
  const names = ({ confirmations }: { confirmations: ReturnType<typeof publisher>['confirmations'] }) =>
    confirmations.heard().map(({ relyingParty }) => relyingParty)
  await until(() => bus.connected() && party.connected(), 'publisher and relying party are connected')
  const first = publisher()
  await party.publish(topic, encodeAcknowledgement({ relyingParty: name, seq: 1, appliedAt: 0, sessionsClosed: 0 }), {
    qos: 1,
    retain: true,
  })
  await until(() => names(first).includes(name), 'its word is heard')

  for (const connect of forgers) {
    const client = await connect()
    client.on('error', () => {})
    client.publish(topic, '', { qos: 1, retain: true })
    client.publish(topic, '', { qos: 0, retain: false })
    // A broker answers this one after the others, or has ended the connection for one of them.
    await Promise.race([
      client.subscribeAsync(`fr/1/${fleet}/head`, { qos: 1 }).catch(() => {}),
      new Promise<void>(resolve => client.once('close', () => resolve())),
    ])
  }
  // What the broker retains, and what came in the meantime.
  const second = publisher()
  await until(() => names(second).includes(name), 'its word is retained')
  expect(names(first)).toContain(name)

  expect(await first.confirmations.forget(name)).toBe(true)
  expect(names(first)).not.toContain(name)
  await until(() => !names(second).includes(name), 'another publisher hears of it')
  // As after a restart: a word of another is retained, so that what the broker retains has come once that has.
  await party.publish(topic, encodeAcknowledgement({ relyingParty: name, seq: 2, appliedAt: 0, sessionsClosed: 0 }), {
    qos: 1,
    retain: true,
  })
  await until(() => names(first).includes(name), 'it counts again once it says something')
  expect(await first.confirmations.forget(name)).toBe(true)
  const retained: string[] = []
  await bus.subscribe(`fr/1/${fleet}/ack/#`, (_topic, payload) => retained.push(`${payload.length}`))
  // Answered in order: with it the broker has shown what it retains.
  await bus.publish(`fr/1/${fleet}/rsp/nobody`, new Uint8Array(1), { qos: 1, retain: false })
  expect(retained).toEqual([])
  for (const one of [first, second]) one.close()
}
