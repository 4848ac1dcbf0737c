import { expect, it } from 'vitest'
import { utf8Bytes } from '../../core/bytes.ts'
import { type ModdableMqttHandlers, type ModdableMqttLimits, moddableMqtt } from './mqtt.ts'

function opened(limits?: ModdableMqttLimits) {
  const told: unknown[] = []
  let incoming = new Uint8Array(0)
  let room = 0
  let handlers = {} as ModdableMqttHandlers
  const client = {
    read(count: number) {
      const part = incoming.slice(0, count)
      incoming = incoming.subarray(count)
      return part.buffer
    },
    write(data: ArrayBuffer | Uint8Array | null, options: object) {
      told.push(['write', data?.byteLength ?? 0, options])
      return room
    },
    close: () => void told.push('close'),
  }
  const session = moddableMqtt(
    given => {
      handlers = given
      return client
    },
    {
      online: () => told.push('online'),
      message: (topic, payload) => told.push(['message', topic, payload.length]),
      closed: () => told.push('closed'),
    },
    limits,
  )
  const connect = (space: number) => {
    room = space
    handlers.onWritable(space)
    handlers.onControl({ operation: 2 })
  }
  const receive = (topic: string, length: number, step: number) => {
    incoming = new Uint8Array(length)
    for (let at = 0; at < length; at += step) {
      const count = Math.min(step, length - at)
      handlers.onReadable(count, { ...(at === 0 ? { topic, byteLength: length } : {}), more: at + count < length })
    }
  }
  return { session, told, handlers, connect, receive, left: () => incoming.length }
}

it('what is published before the session is open waits, and goes out in order as there is room', () => {
  const { session, told, handlers, connect } = opened()
  session.subscribe(['fr/1/acme/head'])
  expect(session.publish('devices/a/telemetry', utf8Bytes('21'))).toBe(true)
  expect(told).toEqual([])
  connect(30)
  handlers.onControl({ operation: 9 })
  expect(told).toEqual(['online', ['write', 0, { operation: 8, items: [{ topic: 'fr/1/acme/head', QoS: 1 }] }]])
  handlers.onWritable(40)
  expect(told.at(-1)).toEqual(['write', 2, { topic: 'devices/a/telemetry', QoS: 1 }])
})

it('no more waits than the limit, and nothing after the end', () => {
  const { session, told, handlers, connect } = opened({ payloadBytesMax: 10, waitingMax: 1, packetBytesMax: 100 })
  connect(0)
  expect([session.publish('a', new Uint8Array(1)), session.publish('a', new Uint8Array(1))]).toEqual([true, false])
  handlers.onError()
  handlers.onError()
  handlers.onWritable(100)
  expect(session.publish('a', new Uint8Array(1))).toBe(false)
  session.close()
  expect(told).toEqual(['online', 'close', 'closed'])
})

it('a message that no socket could take is refused, before the session is open too, and those behind it go out', () => {
  const { session, told, connect } = opened({ payloadBytesMax: 10, waitingMax: 2, packetBytesMax: 100 })
  expect(session.publish('a', new Uint8Array(90))).toBe(false)
  expect(session.publish('a', new Uint8Array(89))).toBe(true)
  connect(100)
  expect([session.publish('a', new Uint8Array(6000)), session.publish('a', new Uint8Array(1))]).toEqual([false, true])
  expect(told).toEqual(['online', ...[89, 1].map(length => ['write', length, { topic: 'a', QoS: 1 }])])
})

it('a subscription takes as many packets as its topics need', () => {
  const { session, told, connect } = opened({ payloadBytesMax: 10, waitingMax: 4, packetBytesMax: 60 })
  connect(60)
  expect(session.subscribe(['fr/1/acme/head', 'fr/1/acme/n/1', 'fr/1/acme/n/2', 'fr/1/acme/n/3'])).toBe(true)
  const asked = (...topics: string[]) => ['write', 0, { operation: 8, items: topics.map(topic => ({ topic, QoS: 1 })) }]
  expect(told).toEqual(['online', asked('fr/1/acme/head', 'fr/1/acme/n/1', 'fr/1/acme/n/2'), asked('fr/1/acme/n/3')])
})

it('a subscription that is not taken whole is not taken at all, and that is said', () => {
  const { session, told, handlers, connect } = opened({ payloadBytesMax: 10, waitingMax: 2, packetBytesMax: 60 })
  const ring = ['fr/1/acme/n/1', 'fr/1/acme/n/2', 'fr/1/acme/n/3', 'fr/1/acme/n/4']
  expect(session.publish('a', new Uint8Array(1))).toBe(true)
  expect(session.subscribe(ring)).toBe(false)
  connect(60)
  expect(session.subscribe(['a', 'x'.repeat(60)])).toBe(false)
  expect(session.subscribe([])).toBe(true)
  expect(told).toEqual(['online', ['write', 1, { topic: 'a', QoS: 1 }]])
  expect(session.subscribe(ring)).toBe(true)
  handlers.onError()
  expect(session.subscribe(['a'])).toBe(false)
})

it('a message arrives whole however it came; one beyond the limit is read over', () => {
  const { told, connect, receive, left } = opened({ payloadBytesMax: 10, waitingMax: 1, packetBytesMax: 100 })
  connect(100)
  receive('head', 10, 3)
  receive('head', 11, 4)
  expect(left()).toBe(0)
  receive('ring', 1, 1)
  expect(told).toEqual(['online', ['message', 'head', 10], ['message', 'ring', 1]])
})

it('closed by the firmware, it tells nothing any more', () => {
  const { session, told, handlers, connect, receive } = opened()
  connect(100)
  session.close()
  handlers.onError()
  receive('head', 4, 4)
  expect(told).toEqual(['online', 'close'])
})
