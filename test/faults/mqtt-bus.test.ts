// The bus by URL: what a publisher, a gateway or an API uses to reach a broker that is not in its process, here our own.

import { type AddressInfo, createServer, type Socket } from 'node:net'
import type { Bytes } from '@birthmark/device-sdk/core'
import {
  createHeartbeats,
  createPublisher,
  createRelyingParty,
  createRuleSet,
  createSnapshots,
  noticeSha256,
  type Rule,
  systemClock,
} from '@birthmark/fleet-revocation'
import { connectMqttBus, type MqttBus } from '@birthmark/fleet-revocation/broker'
import { afterEach, describe, expect, it } from 'vitest'
import { createTestHistory, heartbeatSecret } from '../../packages/fleet-revocation/src/testing/history.ts'
import { quietLog } from '../../packages/fleet-revocation/src/testing/memory-bus.ts'
import { createMemoryOutbox } from '../../packages/fleet-revocation/src/testing/memory-outbox.ts'
import { createTestNoticeKey } from '../../packages/fleet-revocation/src/testing/notice-key.ts'
import { fleet, startTestBroker, type TestBroker, until } from '../support/broker.ts'
import { freePort } from '../support/ports.ts'
import { forgetsRetiredParty } from '../support/retired-party.ts'

const cleanups: (() => unknown)[] = []

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

async function start(): Promise<TestBroker & { busAs(name: string): MqttBus }> {
  const test = await startTestBroker()
  cleanups.push(test.close)
  return {
    ...test,
    busAs: name => {
      const { keyPem, certPem } = test.services.service(name)
      const url = `mqtts://localhost:${test.broker.port}`
      const bus = connectMqttBus({
        url,
        clientId: name,
        tls: { ca: [test.servers.certPem], key: keyPem, cert: certPem },
        log: quietLog,
        publishSeconds: 2,
      })
      cleanups.push(() => bus.close())
      return bus
    },
  }
}

/** A broker of MQTT 3.1.1 that accepts everybody and answers the rest as it is told, a packet at a time. */
async function scripted(answer: (socket: Socket, packet: Buffer) => void): Promise<{ port: number; sockets: Socket[] }> {
  const sockets: Socket[] = []
  const server = createServer(socket => {
    sockets.push(socket)
    socket.on('error', () => {})
    socket.on('data', packet => {
      if (packet[0] === 0x10) socket.write(Buffer.from([0x20, 2, 0, 0]))
      answer(socket, packet)
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  cleanups.push(() => server.close())
  return { port: (server.address() as AddressInfo).port, sockets }
}

describe('the bus by URL', () => {
  it('is encrypted, or on this machine', () => {
    for (const url of ['mqtt://broker.example', 'ws://broker.example', 'http://localhost'])
      expect(() => connectMqttBus({ url, clientId: 'x', log: quietLog })).toThrow('configuration_invalid')
  })

  it('goes to the next node of a cluster when one is gone', async () => {
    const { broker, services, servers } = await start()
    const { keyPem, certPem } = services.service('gateway')
    const bus = connectMqttBus({
      url: [`mqtts://localhost:${await freePort()}`, `mqtts://localhost:${broker.port}`],
      clientId: 'gateway',
      tls: { ca: [servers.certPem], key: keyPem, cert: certPem },
      log: quietLog,
      reconnectSeconds: 0.1,
    })
    cleanups.push(() => bus.close())
    await until(() => bus.connected(), 'connected to the second')
    expect(() => connectMqttBus({ url: ['mqtts://a', 'mqtt://localhost'], clientId: 'x', log: quietLog })).toThrow('for none')
  })

  it('[F53] asks again for a subscription that the broker could not grant', async () => {
    // SUBACK with 0x80, a failure, the first two times.
    let asked = 0
    const { port } = await scripted((socket, packet) => {
      if (packet[0] === 0x82) socket.write(Buffer.from([0x90, 3, packet[2], packet[3], ++asked > 2 ? 1 : 0x80]))
      if (asked === 3) socket.write(Buffer.from([0x30, 4, 0, 1, 0x74, 7]))
    })
    const bus = connectMqttBus({ url: `mqtt://127.0.0.1:${port}`, clientId: 'x', log: quietLog })
    cleanups.push(() => bus.close())
    const heard: number[] = []
    let granted = 0
    await bus.subscribe(
      't',
      (_topic, payload) => heard.push(payload[0]),
      () => granted++,
    )
    await until(() => heard.length === 1, 'granted at last')
    expect(granted).toBe(1)
    expect(asked).toBe(3)
  })

  it('[F53] asks once more for a subscription that was granted and delivers nothing, and hears then what is retained, once', async () => {
    // SUBACK with QoS 1 each time, and what is retained from the third time on.
    let asked = 0
    const { port, sockets } = await scripted((socket, packet) => {
      if (packet[0] !== 0x82) return
      socket.write(Buffer.from([0x90, 3, packet[2], packet[3], 1]))
      if (++asked === 3) socket.write(Buffer.from([0x31, 4, 0, 1, 0x74, 7]))
    })
    const bus = connectMqttBus({ url: `mqtt://127.0.0.1:${port}`, clientId: 'x', log: quietLog })
    cleanups.push(() => bus.close())
    const heard: number[] = []
    // Nothing to ask: of an unknown subscription, and without a connection.
    await bus.subscribeAgain('t')
    await bus.subscribe('t', (_topic, payload) => heard.push(payload[0]))
    await bus.subscribeAgain('t')
    await until(() => asked === 1, 'granted')
    await bus.subscribeAgain('other')
    await bus.subscribeAgain('t')
    expect([asked, heard]).toEqual([2, []])
    await bus.subscribeAgain('t')
    await until(() => heard.length > 0, 'heard at last')
    for (const socket of sockets) socket.write(Buffer.from([0x30, 4, 0, 1, 0x74, 8]))
    await until(() => heard.includes(8), 'the next')
    expect([asked, heard]).toEqual([3, [7, 8]])
  })

  it('[F54] fails a publication that the broker refused or never saw, so that the outbox keeps it', async () => {
    const { busAs } = await start()
    const observer = busAs('watcher')
    await expect(observer.publish(`fr/1/${fleet}/head`, new Uint8Array(1), { qos: 1, retain: true })).rejects.toMatchObject({
      code: 'bus_failed',
    })
    await until(() => observer.connected(), 'connected')
    await expect(observer.publish(`fr/1/${fleet}/head`, new Uint8Array(1), { qos: 1, retain: true })).rejects.toMatchObject({
      code: 'bus_failed',
    })
    await observer.close()
    await expect(observer.publish('x', new Uint8Array(1), { qos: 1, retain: false })).rejects.toMatchObject({ code: 'bus_closed' })
  })

  it('brings notices, heartbeats and acknowledgements between a publisher and a gateway', async () => {
    const { busAs } = await start()
    const key = createTestNoticeKey()
    const history = createTestHistory(key, { fleet, heartbeats: true })
    const issuedAt = Math.floor(systemClock.now())
    const { notices, outbox } = createMemoryOutbox()
    const publisher = createPublisher({
      outbox,
      bus: busAs('publisher'),
      fleet,
      clock: systemClock,
      log: quietLog,
      heartbeats: createHeartbeats(heartbeatSecret, 'acme'),
      relyingParties: ['gateway'],
    })
    cleanups.push(() => publisher.close())
    const tell = async (gid: number) => {
      notices.push({ seq: notices.length + 1, notice: await history.add([{ kind: 'group', gid, bound: 5 }], { issuedAt }) })
      publisher.wake()
    }
    await tell(7)

    let saved: Bytes | null = null
    // Sessions that each pass finds. The second notice comes when the first is confirmed, so that a word is about one pass.
    const open = [3, 2]
    const gateway = await createRelyingParty({
      name: 'gateway',
      fleet,
      signers: [key.signer],
      state: {
        load: async () => saved,
        save: async state => {
          saved = state
        },
      },
      bus: busAs('gateway'),
      enforce: async () => ({ cut: open.shift() ?? 0 }),
      clock: systemClock,
      log: quietLog,
    })
    cleanups.push(() => gateway.close())
    const heard = () => publisher.confirmations.heard()
    await until(() => heard()[0]?.seq === 1, 'the publisher knows of the first')
    expect(heard()).toMatchObject([{ relyingParty: 'gateway', sessionsClosed: 3 }])
    await tell(9)
    await until(() => gateway.progress().through === 2 && gateway.fresh(), 'the gateway has everything')
    expect(gateway.status({ fleet, idx: 1, gids: [7] }, null)).toBe('revoked')
    expect(gateway.status({ fleet, idx: 1, gids: [8] }, null)).toBe('good')
    await until(() => heard()[0].seq === 2, 'the publisher knows of both')
    expect(heard()).toMatchObject([{ relyingParty: 'gateway', sessionsClosed: 2 }])
    expect(createRuleSet(gateway.rules.rules()).isRevoked({ idx: 4, gids: [9] }, null)).toBe(true)
  })

  it('[F49] [F50] a retired relying party is forgotten by the publisher’s word, and by no device’s or observer’s', async () => {
    const { busAs, connect, device, services } = await start()
    await forgetsRetiredParty({
      ...{ publisherBus: busAs('publisher'), name: 'gateway', party: busAs('gateway') },
      forgers: [
        () => connect('dev-1', device('dev-1')),
        () => connect('watcher', services.service('watcher')),
        () => connect('desk', services.service('desk')),
      ],
    })
  })

  it('[F48] closes a gap wider than the ring by retained snapshots, without a pull', async () => {
    const { busAs } = await start()
    const key = createTestNoticeKey()
    const history = createTestHistory(key, { fleet })
    const issuedAt = Math.floor(systemClock.now())
    const { notices, outbox } = createMemoryOutbox()
    const rules: Rule[] = [{ kind: 'range', start: 200_000, length: 2 }]
    const newest = async () => ({ seq: notices.length, sha256: noticeSha256(notices[notices.length - 1].notice) })
    const snapshots = createSnapshots({
      ...{ fleet, newest, rules: async () => createRuleSet(rules), keys: [key], now: () => issuedAt },
    })
    const heartbeats = createHeartbeats(heartbeatSecret, fleet)
    const publisher = createPublisher({
      outbox,
      bus: busAs('publisher'),
      fleet,
      clock: systemClock,
      log: quietLog,
      heartbeats,
      snapshots,
    })
    cleanups.push(() => publisher.close())
    const tell = async (through: number) => {
      while (notices.length < through) {
        const seq = notices.length + 1
        rules.push({ kind: 'group', gid: seq, bound: 5 })
        const told = seq === 1 ? rules : rules.slice(-1)
        notices.push({ seq, notice: await history.add(told, { issuedAt, heartbeats: seq === through }) })
      }
      publisher.wake()
      await publisher.drained()
    }
    let saved: Bytes | null = null
    const join = async () => {
      const bus = busAs('gateway')
      const party = await createRelyingParty({
        ...{ name: 'gateway', fleet, signers: [key.signer], bus, clock: systemClock, log: quietLog },
        state: {
          load: async () => saved,
          save: async state => {
            saved = state
          },
        },
      })
      const leave = async () => {
        party.close()
        await bus.close()
      }
      cleanups.push(leave)
      return { party, leave }
    }
    await tell(1)
    const { party: before, leave } = await join()
    await until(() => before.fresh(), 'the gateway has everything')
    await leave()
    // The second snapshot is of notice 70; the ring holds 17 to 80.
    await tell(70)
    await tell(80)
    const { party: after } = await join()
    await until(() => after.progress().through === 80 && after.fresh(), 'the gateway has everything again')
    expect(after.rules.rules()).toEqual(createRuleSet(rules).rules())
  })
})
