// What the embedded broker must survive (the MQTT part of the fault catalogue), over real mutual TLS.

import { connect as connectTls } from 'node:tls'
import { type Status, systemClock } from '@birthmark/fleet-revocation'
import type { MqttClient } from 'mqtt'
import { afterEach, describe, expect, it } from 'vitest'
import { createTestAuthority } from '../../packages/fleet-revocation/src/testing/authority.ts'
import { createManualClock } from '../../packages/fleet-revocation/src/testing/manual-clock.ts'
import { ended, fleet, rawPacket, startTestBroker, type TestBroker, type TestBrokerOptions, until } from '../support/broker.ts'

let running: TestBroker[] = []

async function start(options?: TestBrokerOptions): Promise<TestBroker> {
  const test = await startTestBroker(options)
  running.push(test)
  return test
}

afterEach(async () => {
  await Promise.all(running.map(test => test.close()))
  running = []
})

const head = `fr/1/${fleet}/head`

function heard(client: MqttClient): string[] {
  const messages: string[] = []
  client.on('message', (topic, payload) => messages.push(`${topic} ${payload}`))
  return messages
}

/** Granted QoS per filter, 128 for a refusal. */
async function grants(client: MqttClient, filters: string[]): Promise<(number | undefined)[]> {
  return new Promise(resolve =>
    client.subscribe(filters, { qos: 1 }, (_error, _granted, packet) => resolve((packet?.granted as number[]) ?? [])),
  )
}

describe('who may connect', () => {
  it('[F51] a device connects under its own name only', async () => {
    const { connect, device, broker } = await start()
    const credential = device('dev-1')
    await expect(connect('dev-2', credential)).rejects.toThrow('Identifier rejected')
    await expect(connect('', credential)).rejects.toThrow('Identifier rejected')
    await expect(connect('publisher', credential)).rejects.toThrow('Identifier rejected')
    await connect('dev-1', credential)
    expect(broker.sessions().filter(({ connected }) => connected)).toMatchObject([{ id: 'dev-1', kind: 'device' }])
  })

  it('a service may hold several connections under its name', async () => {
    const { connect, services } = await start()
    const credential = services.service('watcher')
    await connect('watcher', credential)
    await connect('watcher/2', credential)
    for (const id of ['watcher2', 'watcher/', 'watcher/a/b', 'desk'])
      await expect(connect(id, credential)).rejects.toThrow('Identifier rejected')
  })

  it('a device shows its chain: the root alone is configured', async () => {
    const { connect, devices } = await start()
    const issuing = devices.intermediate('issuing').intermediate('issuing of a batch')
    expect((await connect('dev-1', issuing.device('dev-1', { fleet, idx: 900, gids: [7] }))).connected).toBe(true)
    const stranger = (await start()).devices.intermediate('issuing')
    await expect(connect('dev-2', stranger.device('dev-2', { fleet, idx: 901, gids: [7] }))).rejects.toThrow('closed')
  })

  it('[F9] strangers end before CONNECT', async () => {
    const { connect, device, devices, servers, broker } = await start()
    const stranger = (await start()).device('dev-1')
    await expect(connect('dev-1', stranger)).rejects.toThrow()
    await expect(connect('dev-1', devices.device('dev-1', null))).rejects.toThrow('closed')
    await expect(connect('dev-1', device('dev-1', { fleet: 'other' }))).rejects.toThrow('Not authorized')
    await expect(
      new Promise((resolve, reject) => {
        const socket = connectTls({ host: '127.0.0.1', port: broker.port, ca: [servers.certPem] }, () => socket.write('x'))
        socket.on('error', reject)
        socket.on('close', () => reject(new Error('closed')))
        socket.on('data', resolve)
      }),
    ).rejects.toThrow()
    expect(broker.sessions()).toEqual([])
  })

  it('unknown status refuses CONNECT and leaves what is connected', async () => {
    let status: 'good' | 'unknown' = 'good'
    const { connect, device, broker } = await start({ status: () => status })
    const first = await connect('dev-1', device('dev-1'))
    status = 'unknown'
    await expect(connect('dev-2', device('dev-2'))).rejects.toThrow('Not authorized')
    expect(await broker.enforce()).toMatchObject({ cut: 0 })
    await first.publishAsync('devices/dev-1/telemetry', 'still here', { qos: 1 })
    expect(first.connected).toBe(true)
  })

  it('[F12] no TLS session is ever resumed', async () => {
    const { socket, device, broker, servers } = await start()
    const credential = device('dev-1')
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      const options = {
        host: '127.0.0.1',
        port: broker.port,
        ca: [servers.certPem],
        key: credential.keyPem,
        cert: credential.certPem,
        maxVersion,
      }
      const sessions: Buffer[] = []
      const first = connectTls(options)
      first.on('session', session => sessions.push(session))
      await new Promise(resolve => first.once('secureConnect', resolve))
      await new Promise(resolve => setTimeout(resolve, 100))
      const session = sessions.at(-1) ?? first.getSession()
      first.destroy()
      const second = connectTls({ ...options, ...(session ? { session } : {}) })
      await new Promise(resolve => second.once('secureConnect', resolve))
      expect(second.isSessionReused(), maxVersion).toBe(false)
      second.destroy()
    }
    expect((await socket(credential)).isSessionReused()).toBe(false)
  })
})

describe('revocation', () => {
  it('denies, cuts and refuses the group, and its neighbours carry on', async () => {
    const { connect, device, broker, rules, services } = await start()
    const watcher = await connect('watcher', services.service('watcher'))
    const seen = heard(watcher)
    await watcher.subscribeAsync('devices/#', { qos: 1 })
    const sevens = await Promise.all(
      Array.from({ length: 10 }, async (_, i) => {
        const credential = device(`seven-${i}`, { gids: [7] })
        return {
          id: `seven-${i}`,
          credential,
          client: await connect(`seven-${i}`, credential, {
            will: { topic: `devices/seven-${i}/gone`, payload: Buffer.from('will'), qos: 1, retain: false },
          }),
        }
      }),
    )
    const eight = await connect('eight-1', device('eight-1', { gids: [8] }))
    const over = sevens.map(({ client }) => ended(client))
    rules.merge([{ kind: 'group', gid: 7, bound: 1000 }])
    expect((await broker.enforce()).cut).toBe(10)
    await Promise.all(over)
    for (const { id, credential } of sevens) await expect(connect(id, credential)).rejects.toThrow('Not authorized')
    await eight.publishAsync('devices/eight-1/telemetry', 'alive', { qos: 1 })
    await until(() => seen.includes('devices/eight-1/telemetry alive'), 'the neighbour is heard')
    expect(seen.filter(message => message.includes('will'))).toEqual([])
  })

  it('is cut by the broker itself within a minute, also after a look that failed', async () => {
    const clock = createManualClock(systemClock.now())
    let verdict = (): Status => 'good'
    const { connect, device, log } = await start({ clock, status: () => verdict() })
    const over = ended(await connect('dev-1', device('dev-1')))
    verdict = () => {
      throw new Error('the rules are away')
    }
    await clock.advance(60)
    expect(log.filter(({ message }) => message === 'sweep failed')).toHaveLength(1)
    verdict = () => 'revoked'
    await clock.advance(60)
    await over
  })

  it('is in force before anything is cut: nothing more is heard, said or delivered', async () => {
    const { connect, device, rules, broker, services } = await start()
    const seven = await connect('seven', device('seven', { gids: [7] }))
    const heardBySeven = heard(seven)
    await seven.subscribeAsync(['devices/seven/cmd', head], { qos: 1 })
    const watcher = await connect('watcher', services.service('watcher'))
    const seen = heard(watcher)
    await watcher.subscribeAsync('devices/#', { qos: 1 })
    rules.merge([{ kind: 'group', gid: 7, bound: 1000 }])
    await broker.publish('devices/seven/cmd', Buffer.from('secret'), { qos: 1, retain: false })
    await broker.publish(head, Buffer.from('notice'), { qos: 1, retain: true })
    expect(await grants(seven, ['devices/seven/other'])).toEqual([128])
    seven.publish('devices/seven/telemetry', 'late', { qos: 0 })
    await ended(seven)
    await broker.publish('devices/eight/x', Buffer.from('after'), { qos: 1, retain: false })
    await until(() => seen.includes('devices/eight/x after'), 'the watcher hears others')
    expect(heardBySeven).toEqual([])
    expect(seen.filter(message => message.includes('seven/telemetry'))).toEqual([])
  })

  it('[F53] forgets the stored session and the queue of a revoked device', async () => {
    const { connect, device, rules, broker } = await start()
    const credential = device('seven', { gids: [7] })
    const stays = device('eight', { gids: [8] })
    for (const [id, own] of [
      ['seven', credential],
      ['eight', stays],
    ] as const) {
      const client = await connect(id, own, { clean: false })
      await client.subscribeAsync(`devices/${id}/cmd`, { qos: 1 })
      await client.endAsync()
    }
    await broker.publish('devices/seven/cmd', Buffer.from('queued'), { qos: 1, retain: false })
    await broker.publish('devices/eight/cmd', Buffer.from('queued'), { qos: 1, retain: false })
    rules.merge([{ kind: 'group', gid: 7, bound: 1000 }])
    await broker.enforce()
    // The same name with a new certificate and a higher idx: a new device, which gets nothing of the old one.
    const again = await connect('seven', device('seven', { gids: [7], idx: 5000 }), { clean: false })
    const got = heard(again)
    await again.publishAsync('devices/seven/x', 'x', { qos: 1 })
    expect(got).toEqual([])
    const eight = await new Promise<string[]>(resolve => {
      void connect('eight', stays, { clean: false }).then(client => {
        const messages = heard(client)
        resolve(messages)
      })
    })
    await until(() => eight.length > 0, 'the neighbour gets what was queued')
    expect(eight).toEqual(['devices/eight/cmd queued'])
  })
})

describe('topics', () => {
  it('[F50] a live subscription to anything wider is refused, one by one', async () => {
    const { connect, device } = await start()
    const client = await connect('dev-1', device('dev-1'))
    expect(
      await grants(client, [
        '#',
        '+/#',
        '$SYS/#',
        '$share/g/#',
        'devices/+/cmd',
        'devices/dev-2/cmd',
        `fr/1/${fleet}/#`,
        'a/'.repeat(20) + 'a',
      ]),
    ).toEqual([])
    const again = await connect('dev-1', device('dev-1'))
    expect(await grants(again, ['#', 'devices/dev-2/cmd', 'devices/dev-1/#', head])).toEqual([128, 128, 1, 1])
  })

  it('[F50] a forbidden filter that travels with an allowed one is not stored for later either', async () => {
    const { connect, device, broker } = await start()
    const credential = device('dev-1')
    const first = await connect('dev-1', credential, { clean: false })
    expect(await grants(first, ['devices/dev-1/cmd', 'devices/dev-2/cmd', '#'])).toEqual([1, 128, 128])
    await first.endAsync()
    await broker.publish('devices/dev-2/cmd', Buffer.from('for another'), { qos: 1, retain: false })
    await broker.publish('devices/dev-1/cmd', Buffer.from('for me'), { qos: 1, retain: false })
    const messages: string[] = []
    const again = await connect('dev-1', credential, { clean: false }).then(client => {
      client.on('message', (topic, payload) => messages.push(`${topic} ${payload}`))
      return client
    })
    await until(() => messages.length > 0, 'what was queued arrives')
    await broker.publish('devices/dev-2/cmd', Buffer.from('again'), { qos: 1, retain: false })
    await again.publishAsync('devices/dev-1/x', 'x', { qos: 1 })
    expect(messages).toEqual(['devices/dev-1/cmd for me'])
  })

  it('[F50] a forbidden publication ends the connection and reaches nobody', async () => {
    const { connect, device, services, log } = await start()
    const watcher = await connect('watcher', services.service('watcher'))
    const seen = heard(watcher)
    await watcher.subscribeAsync(['devices/#', head], { qos: 1 })
    for (const [topic, retain] of [
      ['devices/dev-2/x', false],
      [head, false],
      [head, true],
      ['$SYS/x', false],
      ['devices/dev-1/x', true],
    ] as const) {
      const client = await connect('dev-1', device('dev-1'))
      client.publish(topic, 'forged', { qos: 1, retain })
      await ended(client)
    }
    expect(seen).toEqual([])
    expect(log.filter(({ message }) => message === 'PUBLISH denied')).toHaveLength(5)
  })

  it('[F50] a forbidden Will is refused at CONNECT, an allowed one is published', async () => {
    const { connect, device, services } = await start()
    const watcher = await connect('watcher', services.service('watcher'))
    const seen = heard(watcher)
    await watcher.subscribeAsync(['devices/#', head], { qos: 1 })
    const will = (topic: string, retain = false) => ({ will: { topic, payload: Buffer.from('will'), qos: 1 as const, retain } })
    for (const topic of [head, 'devices/dev-2/gone', 'devices/+/gone', '#', '$SYS/x'])
      await expect(connect('dev-1', device('dev-1'), will(topic)), topic).rejects.toThrow('Not authorized')
    await expect(connect('dev-1', device('dev-1'), will('devices/dev-1/gone', true))).rejects.toThrow('Not authorized')
    const client = await connect('dev-1', device('dev-1'), will('devices/dev-1/gone'))
    // Its subscriptions are taken back first, which takes the broker a few turns.
    await client.subscribeAsync(['devices/dev-1/cmd', 'devices/dev-1/config', head], { qos: 1 })
    client.stream.destroy()
    await until(() => seen.length > 0, 'the Will is published')
    expect(seen).toEqual(['devices/dev-1/gone will'])
  })

  it('[F49] nobody but the publisher writes or clears what is retained as a notice', async () => {
    const { connect, device, services, broker } = await start()
    await broker.publish(head, Buffer.from('true'), { qos: 1, retain: true })
    for (const [id, credential] of [
      ['dev-1', device('dev-1')],
      ['watcher', services.service('watcher')],
      ['gateway', services.service('gateway')],
      ['desk', services.service('desk')],
    ] as const) {
      for (const payload of ['forged', '']) {
        const client = await connect(id, credential)
        client.publish(head, payload, { qos: 1, retain: true })
        await ended(client)
      }
    }
    const reader = await connect('dev-2', device('dev-2'))
    const messages = heard(reader)
    await reader.subscribeAsync(head, { qos: 1 })
    await until(() => messages.length > 0, 'the head is there')
    expect(messages).toEqual([`${head} true`])
    const publisher = await connect('publisher', services.service('publisher'))
    await publisher.publishAsync(head, 'next', { qos: 1, retain: true })
    await until(() => messages.length > 1, 'the next head arrives')
    expect(messages[1]).toBe(`${head} next`)
  })

  it('grants no more than 128 filters to one session', async () => {
    const { connect, device } = await start()
    const client = await connect('dev-1', device('dev-1'))
    const granted = await grants(
      client,
      Array.from({ length: 200 }, (_, i) => `devices/dev-1/${i}`),
    )
    expect(granted.filter(qos => qos === 1)).toHaveLength(128)
    expect(granted.filter(qos => qos === 128)).toHaveLength(72)
    await client.unsubscribeAsync('devices/dev-1/0')
    expect(await grants(client, ['devices/dev-1/x', 'devices/dev-1/y'])).toEqual([1, 128])
  })
})

describe('hostile peers', () => {
  it('[F52] 20 sockets that announce 256 MB end at the header, memory stays', async () => {
    const { socket, device, broker, log } = await start()
    const filler = Buffer.alloc(1 << 18)
    const before = process.memoryUsage().rss
    await Promise.all(
      Array.from({ length: 20 }, async (_, i) => {
        const client = await socket(device(`dev-${i}`))
        client.write(rawPacket(0x10, 268_435_455))
        const flood = setInterval(() => client.writableNeedDrain || client.write(filler), 5)
        await ended(client)
        clearInterval(flood)
      }),
    )
    await until(() => broker.sessions().length === 0, 'all sessions are gone')
    expect(log.filter(({ message }) => message === 'packet refused')).toHaveLength(20)
    // Both ends are in this process: 20 TLS clients and what they have not got rid of count too.
    expect(process.memoryUsage().rss - before).toBeLessThan(64 << 20)
  })

  it('[F52] a connected device that publishes more than 64 KB is cut, and one that publishes 64 KB is not', async () => {
    const { connect, device, services } = await start()
    const watcher = await connect('watcher', services.service('watcher'))
    const seen: number[] = []
    watcher.on('message', (_topic, payload) => seen.push(payload.length))
    await watcher.subscribeAsync('devices/#', { qos: 1 })
    const client = await connect('dev-1', device('dev-1'))
    const topic = 'devices/dev-1/big'
    await client.publishAsync(topic, Buffer.alloc(65_536 - topic.length - 4), { qos: 1 })
    client.publish(topic, Buffer.alloc(65_536), { qos: 1 })
    await ended(client)
    await until(() => seen.length > 0, 'the large one arrives')
    expect(seen).toEqual([65_536 - topic.length - 4])
  })

  it('[F52] ten thousand user properties of MQTT 5 don’t fit, and MQTT 5 itself is told so', async () => {
    const { connect, device, socket } = await start()
    const client = await socket(device('dev-1'))
    const properties = Buffer.concat(Array.from({ length: 10_000 }, () => Buffer.from([0x26, 0, 1, 97, 0, 1, 98])))
    client.write(rawPacket(0x10, 20 + properties.length, properties))
    await ended(client)
    await expect(connect('dev-1', device('dev-1'), { protocolVersion: 5 })).rejects.toThrow()
  })

  it('ends who says nothing after the handshake, garbage, or anything before CONNECT', async () => {
    const { socket, device } = await start({ limits: { connectSeconds: 0.3 } })
    await ended(await socket(device('dev-1')))
    for (const bytes of [
      Buffer.from('GET / HTTP/1.1\r\n\r\n'),
      rawPacket(0x30, 5, Buffer.alloc(5)),
      rawPacket(0xc0, 0),
      rawPacket(0x10, 2, Buffer.from([0, 9])),
    ]) {
      const client = await socket(device('dev-1'))
      client.write(bytes)
      await ended(client)
    }
  })

  it('ends who opens a socket and never finishes the handshake', async () => {
    const { broker } = await start({ limits: { handshakeSeconds: 0.3 } })
    const { connect: connectTcp } = await import('node:net')
    const socket = connectTcp(broker.port, '127.0.0.1')
    socket.on('error', () => {})
    await new Promise(resolve => socket.once('close', resolve))
  })

  it('admits no more sockets than its limits, in all and from one address', async () => {
    for (const limits of [{ connectionsMax: 3 }, { connectionsPerAddressMax: 3 }]) {
      const { connect, device, broker } = await start({ limits })
      for (let i = 0; i < 3; i++) await connect(`dev-${i}`, device(`dev-${i}`))
      await expect(connect('dev-3', device('dev-3'))).rejects.toThrow()
      expect(broker.sessions()).toHaveLength(3)
    }
  })

  it('[F72] lets one address begin no more handshakes than its share, and the share comes back', async () => {
    const { connect, device, broker } = await start({ limits: { handshakesAtOncePerAddress: 3, handshakesPerSecondPerAddress: 2 } })
    for (let i = 0; i < 3; i++) await connect(`dev-${i}`, device(`dev-${i}`))
    const refused = await Promise.allSettled(Array.from({ length: 5 }, (_, i) => connect(`late-${i}`, device(`late-${i}`))))
    expect(refused.filter(({ status }) => status === 'rejected').length).toBeGreaterThanOrEqual(4)
    await new Promise(resolve => setTimeout(resolve, 1100))
    expect((await connect('dev-9', device('dev-9'))).connected).toBe(true)
    expect(broker.sessions().length).toBeGreaterThanOrEqual(4)
  })

  it('[F72] counts a handshake that costs much as many: strangers, and chains of certificates that nobody asked for', async () => {
    const limits = { handshakesAtOncePerAddress: 40, handshakesPerSecondPerAddress: 1 }
    const stranger = createTestAuthority('elsewhere').device('dev-1', { fleet, idx: 1, gids: [] })
    const plain = await start({ limits })
    for (let i = 0; i < 2; i++) await ended(await plain.socket(stranger))
    expect((await plain.connect('dev-1', plain.device('dev-1'))).connected).toBe(true)
    const long = await start({ limits })
    const more = Array.from({ length: 80 }, (_, i) => createTestAuthority(`${i}`.padEnd(60, '.')).certPem).join('')
    await ended(await long.socket({ ...stranger, certPem: stranger.certPem + more }))
    await expect(long.connect('dev-1', long.device('dev-1'))).rejects.toThrow()
  })

  it('[F53] keeps at most its bound for an absent device', async () => {
    const { connect, device, broker } = await start({ limits: { queueMax: 10 } })
    const credential = device('dev-1')
    const first = await connect('dev-1', credential, { clean: false })
    await first.subscribeAsync('devices/dev-1/cmd', { qos: 1 })
    await first.endAsync()
    for (let i = 0; i < 50; i++) await broker.publish('devices/dev-1/cmd', Buffer.from(`${i}`), { qos: 1, retain: false })
    const messages: string[] = []
    const again = await connect('dev-1', credential, { clean: false }).then(client => {
      client.on('message', (_topic, payload) => messages.push(`${payload}`))
      return client
    })
    await until(() => messages.length === 10, 'ten are delivered')
    await again.publishAsync('devices/dev-1/x', 'x', { qos: 1 })
    expect(messages).toEqual(Array.from({ length: 10 }, (_, i) => `${i}`))
  })

  it('[F53] keeps at most its bytes for an absent device, and for all of them', async () => {
    const { connect, device, broker } = await start({ limits: { heldBytesMax: 500_000 } })
    const credentials = [0, 1, 2, 3].map(i => device(`dev-${i}`))
    for (const [i, credential] of credentials.entries()) {
      const client = await connect(`dev-${i}`, credential, { clean: false })
      await client.subscribeAsync(`devices/dev-${i}/cmd`, { qos: 1 })
      await client.endAsync()
      for (let n = 0; n < 10; n++) await broker.publish(`devices/dev-${i}/cmd`, Buffer.alloc(60_000), { qos: 1, retain: false })
      await broker.publish(`devices/dev-${i}/cmd`, Buffer.from('small'), { qos: 1, retain: false })
    }
    const got: number[][] = []
    for (const [i, credential] of credentials.entries()) {
      const sizes: number[] = []
      got.push(sizes)
      const client = await connect(`dev-${i}`, credential, { clean: false })
      client.on('message', (_topic, payload) => sizes.push(payload.length))
      await until(() => sizes.includes(5), 'the small one is delivered')
    }
    expect(got).toEqual([[60_000, 60_000, 60_000, 60_000, 5], [60_000, 60_000, 60_000, 60_000, 5], [5], [5]])
  })

  it('[F53] a subscriber that does not read is cut, and delays neither denial nor, for long, the others', async () => {
    const { connect, device, broker, rules, services } = await start({ limits: { drainSeconds: 0.5 } })
    const stalled = await connect('watcher', services.service('watcher'))
    await stalled.subscribeAsync(['devices/#', head], { qos: 1 })
    const stalledOver = ended(stalled)
    ;(stalled.stream as unknown as { pause(): void }).pause()
    const seven = await connect('seven', device('seven', { gids: [7] }))
    const eight = await connect('eight', device('eight', { gids: [8] }))
    const messages = heard(eight)
    await eight.subscribeAsync(head, { qos: 1 })
    const filler = Buffer.alloc(60_000)
    const flood = Promise.allSettled(
      Array.from({ length: 200 }, () => broker.publish('devices/eight/cmd', filler, { qos: 0, retain: false })),
    )
    rules.merge([{ kind: 'group', gid: 7, bound: 1000 }])
    const sevenOver = ended(seven)
    expect(await broker.enforce()).toMatchObject({ cut: 1 })
    await sevenOver
    await broker.publish(head, Buffer.from('notice'), { qos: 1, retain: true })
    await until(() => messages.length > 0, 'the notice arrives')
    ;(stalled.stream as unknown as { resume(): void }).resume()
    await stalledOver
    await flood
    expect(eight.connected).toBe(true)
  })
})
