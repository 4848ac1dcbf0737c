import { expect, it } from 'vitest'
import type { Bytes } from '../../core/bytes.ts'
import type { ModdableTcp } from './tls-modules.ts'
import { moddableTlsSocket } from './tls-socket.ts'

interface Events {
  onReadable(count: number): void
  onWritable(count: number): void
  onError(): void
}

/** Moddable's session and TCP, played by hand: `steps` are what a handshake's steps come to, `records` what comes after it. */
function opened(steps: (true | false | 'alert' | 'throws' | 'data')[], records: (Bytes | null | 'throws')[] = []) {
  const told: unknown[] = []
  let events = {} as Events
  const tcp = { readable: 0, writable: 0, closed: 0, close: () => void tcp.closed++ }
  class Session {
    handshakeProcess = 0
    alert: unknown
    applicationData?: Bytes
    initiateHandshake() {}
    handshake(open: ModdableTcp): boolean {
      const step = steps.shift() ?? false
      open.readable = 0
      if (step === 'throws') throw new Error('not believed')
      if (step === 'alert') this.alert = {}
      if (step === 'data') this.applicationData = new Uint8Array(0)
      return step === true || step === 'alert'
    }
    read(open: ModdableTcp): Bytes | null | undefined {
      // What lies there goes out first, as Moddable has it.
      if (this.applicationData) return this.applicationData
      const record = records.shift()
      if (!records.length) open.readable = 0
      if (record === 'throws') throw new Error('bad tag')
      return record
    }
    write(_: ModdableTcp, data: ArrayBuffer | Bytes): number {
      told.push(['wrote', data.byteLength])
      return 1000
    }
  }
  const timers: (() => void)[] = []
  const timer = { set: (callback: () => void) => timers.push(callback), clear() {} }
  const TlsSocket = moddableTlsSocket(Session, timer)
  const socket = new TlsSocket({
    host: 'est',
    secure: {},
    TCP: {
      io: function (options: Events) {
        events = options
        return tcp
      } as never,
    },
    onReadable: count => told.push(['readable', count]),
    onWritable: count => told.push(['writable', count]),
    onError: () => told.push('error'),
  })
  return { socket, tcp, events, told, timers }
}

it('a handshake ends before anything of the application leaves', () => {
  const { socket, events, told } = opened([false, true])
  expect(() => socket.write(new Uint8Array(3))).toThrow('not open')
  events.onWritable(500)
  expect(() => socket.write(new Uint8Array(3))).toThrow('not open')
  events.onReadable(90)
  expect(told).toEqual([['writable', 404]])
  expect(socket.write(new Uint8Array(3))).toBe(1000)
})

it.each(['throws', 'alert'] as const)('a handshake that %s is an error, told once, and nothing is written', end => {
  const { socket, tcp, events, told } = opened([false, end])
  events.onWritable(500)
  events.onReadable(90)
  events.onReadable(90)
  events.onWritable(500)
  events.onError()
  expect(told).toEqual(['error'])
  expect(tcp.closed).toBe(1)
  expect(() => socket.write(new Uint8Array(3))).toThrow('not open')
})

it('[RFC 5246 7.4.9] application data within the handshake is an error, and never handed on', () => {
  const { socket, tcp, events, told } = opened([false, 'data', true], [Uint8Array.of(1)])
  events.onWritable(500)
  events.onReadable(90)
  events.onReadable(90)
  expect(told).toEqual(['error'])
  expect([tcp.closed, socket.read()]).toEqual([1, undefined])
})

it.each(['throws', null] as const)('a session that ends by %s is an error', record => {
  const { tcp, events, told } = opened([true], [record])
  events.onWritable(500)
  events.onReadable(90)
  expect(told).toEqual([['writable', 404], 'error'])
  expect(tcp.closed).toBe(1)
})

it('records are handed on one after the other, as octets or as buffers, and the next only when one was taken', () => {
  const { socket, events, told, timers } = opened([true], [Uint8Array.of(1, 2, 3), new Uint8Array(0), Uint8Array.of(4, 5)])
  events.onWritable(90)
  events.onReadable(200)
  expect(told).toEqual([['readable', 3]])
  events.onReadable(200)
  expect(told).toEqual([['readable', 3]])
  socket.format = 'number'
  expect([socket.format, socket.read()]).toEqual(['number', 1])
  socket.format = 'buffer'
  const into = new Uint8Array(8)
  expect([socket.read(1), socket.read(into), socket.read(4)]).toEqual([Uint8Array.of(2).buffer, 1, undefined])
  expect(into[0]).toBe(3)
  timers[0]()
  expect(told).toEqual([
    ['readable', 3],
    ['readable', 2],
  ])
  expect(socket.read()).toEqual(Uint8Array.of(4, 5).buffer)
})

it('closed means closed', () => {
  const { socket, tcp, events, told } = opened([true])
  socket.close()
  events.onReadable(10)
  events.onError()
  expect([told, tcp.closed]).toEqual([[], 1])
})
