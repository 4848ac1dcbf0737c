// The subscribers of the fan-out benchmark: plain sockets that speak as much MQTT as it takes, so that ten thousand cost little. The first
// may be told to stop reading. Times are CLOCK_MONOTONIC milliseconds, which all processes of a machine share.

import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { monotonicMs } from './monotonic.ts'
import { answering } from './worker.ts'

export type ToSubscribers =
  | { kind: 'connect'; port: number; topics: string[]; count: number }
  /** The first subscriber reads no more. */
  | { kind: 'stall' }
  /** Answered once `count` subscribers have the notice that ends in `mark`. */
  | { kind: 'expect'; mark: number; count: number }

export type FromSubscribers =
  | { kind: 'connect'; first: string }
  | { kind: 'stall' }
  | { kind: 'expect'; lastAt: number; firstAt: number }

const sockets: Socket[] = []
// More at once and the listen queues overflow, which costs a second for each that is tried again.
const atOnce = 64
let expected = { mark: -1, left: 0, firstAt: 0, done: (_at: number) => {} }
let first = ''

function text(value: string): Buffer {
  const bytes = Buffer.from(value)
  return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 255]), bytes])
}

/** Of less than 128 bytes. */
function packet(header: number, ...parts: Buffer[]): Buffer {
  const body = Buffer.concat(parts)
  return Buffer.concat([Buffer.from([header, body.length]), body])
}

/** Every PUBLISH in `data` is one packet of less than 16 KB that came whole: a notice on an idle connection. */
function hear(socket: Socket, data: Buffer): void {
  for (let at = 0; at + 2 < data.length; ) {
    const long = data[at + 1] >= 0x80
    const length = long ? (data[at + 1] & 0x7f) + data[at + 2] * 128 : data[at + 1]
    const body = at + (long ? 3 : 2)
    if (data[at] >> 4 === 3) {
      const name = data.readUInt16BE(body)
      if ((data[at] & 6) !== 0) {
        const ack = Buffer.from([0x40, 2, data[body + 2 + name], data[body + 3 + name]])
        socket.write(ack)
      }
      if (data.readUInt32BE(body + length - 4) === expected.mark) {
        const now = monotonicMs()
        if (expected.firstAt === 0) expected.firstAt = now
        if (--expected.left === 0) expected.done(now)
      }
    }
    at = body + length
  }
}

async function subscriber(port: number, topics: string[]): Promise<void> {
  const socket = connect({ host: '127.0.0.1', port, noDelay: true })
  await once(socket, 'connect')
  // The bench's broker knows a peer by its port, for want of a certificate.
  const id = `p${socket.localPort}`
  if (sockets.length === 0) first = id
  sockets.push(socket)
  socket.on('error', () => {})
  socket.write(packet(0x10, text('MQTT'), Buffer.from([4, 2, 0x0e, 0x10]), text(id)))
  const [connack] = (await once(socket, 'data')) as [Buffer]
  if (connack[0] !== 0x20 || connack[3] !== 0) throw new Error('refused')
  const answered = once(socket, 'data')
  socket.write(packet(0x82, Buffer.from([0, 1]), ...topics.flatMap(topic => [text(topic), Buffer.from([1])])))
  await answered
  socket.on('data', (data: Buffer) => hear(socket, data))
}

answering<ToSubscribers, FromSubscribers>(async message => {
  if (message.kind === 'connect') {
    const { port, topics } = message
    let left = message.count
    const work = async (): Promise<void> => {
      while (left-- > 0) await subscriber(port, topics)
    }
    await Promise.all(Array.from({ length: Math.min(atOnce, message.count) }, work))
    return { kind: 'connect', first }
  }
  if (message.kind === 'stall') {
    sockets[0].pause()
    return { kind: 'stall' }
  }
  const { mark, count } = message
  const lastAt = await new Promise<number>(done => {
    expected = { mark, left: count, firstAt: 0, done }
  })
  return { kind: 'expect', lastAt, firstAt: expected.firstAt }
})
