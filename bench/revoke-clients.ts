// The other side of the revocation benchmark, in a process of its own: MQTT sessions over mutual TLS, written by hand so that a thousand
// of them cost little. Speaks with its parent over IPC; times are CLOCK_MONOTONIC milliseconds, which both processes share.

import { connect, type TLSSocket } from 'node:tls'
import { monotonicMs } from './monotonic.ts'

export interface ClientCredential {
  id: string
  key: string
  cert: string
}

export type ToClients =
  | { kind: 'connect'; port: number; ca: string; fleet: string; credentials: ClientCredential[] }
  /** Ask every open session for a sign of life. */
  | { kind: 'ping' }
  /** Try to connect again with these identities. */
  | { kind: 'again'; ids: string[] }
  /** Publish under `devices/{id}/` at QoS 1, the next message when one is acknowledged. */
  | { kind: 'talk'; id: string }
  | { kind: 'end' }

export type FromClients =
  | { kind: 'connected'; count: number }
  | { kind: 'closed'; sessions: { id: string; at: number }[] }
  | { kind: 'alive'; count: number; notices: number }
  /** `refused`: told that they are not authorized; whoever found the door closed for another reason is not among them. */
  | { kind: 'refused'; refused: number; attempts: number }
  /** Its first messages were acknowledged. */
  | { kind: 'talking' }
  /** The session of the one that talks ended while message `number`, and it alone, was unacknowledged. */
  | { kind: 'silenced'; number: number; at: number }

// Handshakes at once: enough to keep two cores busy, few enough that none times out.
const atOnce = 24

const known = new Map<string, ClientCredential>()
const open = new Map<string, TLSSocket>()
const answered = new Set<string>()
const noticed = new Set<string>()
let port = 0
let ca = ''
let fleet = ''

let closed: { id: string; at: number }[] = []

/** Told in batches: a message each would be most of what this process does while sessions are cut. */
function sessionEnded(id: string): void {
  if (talker?.id === id) {
    say({ kind: 'silenced', number: talker.number, at: monotonicMs() })
    talker = null
  }
  if (closed.length === 0)
    setTimeout(() => {
      say({ kind: 'closed', sessions: closed })
      closed = []
    }, 100)
  closed.push({ id, at: monotonicMs() })
}

let talker: { id: string; number: number } | null = null
// Acknowledged before it counts as talking.
const warmUp = 5

/** Messages are numbered from 1, as their packet identifiers are. */
function talkOn(): void {
  if (!talker) return
  const number = ++talker.number
  const numbered = Buffer.from([number >> 8, number & 255])
  open.get(talker.id)?.write(packet(0x32, text(`devices/${talker.id}/t`), numbered, numbered))
}

/** Every PUBACK in the chunk, which the brokers here send whole. */
function acknowledged(id: string, data: Buffer): void {
  if (talker?.id !== id) return
  for (let at = 0; at + 4 <= data.length; at += 2 + data[at + 1]) {
    if (data[at] !== 0x40 || data.readUInt16BE(at + 2) !== talker.number) continue
    if (talker.number === warmUp) say({ kind: 'talking' })
    talkOn()
  }
}

const say = (message: FromClients) => process.connected && process.send?.(message, undefined, undefined, () => {})

function text(value: string): Buffer {
  const bytes = Buffer.from(value)
  return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 255]), bytes])
}

/** One MQTT 3.1.1 packet of less than 128 bytes. */
function packet(header: number, ...parts: Buffer[]): Buffer {
  const body = Buffer.concat(parts)
  return Buffer.concat([Buffer.from([header, body.length]), body])
}

/** MQTT 3.1.1 3.2.2.3. */
const NOT_AUTHORIZED = 5

/** What became of a CONNECT; `failed`: no CONNACK came, or another one. */
type Answer = 'accepted' | 'denied' | 'failed'

function session({ id, key, cert }: ClientCredential): Promise<Answer> {
  return new Promise(resolve => {
    // What node's types leave out: tls passes it on.
    const half = { allowHalfOpen: true }
    const socket = connect({ host: '127.0.0.1', port, ca, key, cert, servername: 'localhost', ...half })
    let accepted = false
    let denied = false
    socket.setNoDelay(true)
    socket.on('secureConnect', () => socket.write(packet(0x10, text('MQTT'), Buffer.from([4, 2, 2, 88]), text(id))))
    socket.on('data', (data: Buffer) => {
      if (!accepted) {
        accepted = data[0] === 0x20 && data[3] === 0
        denied = data[0] === 0x20 && data[3] === NOT_AUTHORIZED
        if (!accepted) return socket.destroy()
        open.set(id, socket)
        socket.write(packet(0x82, Buffer.from([0, 1]), text(`fr/1/${fleet}/head`), Buffer.from([1])))
        resolve('accepted')
      }
      acknowledged(id, data)
      if (data[0] === 0xd0) answered.add(id)
      if ((data[0] & 0xf0) === 0x30) noticed.add(id)
    })
    // The first sign of the end: the connection's last byte was read, or it broke.
    const over = (): void => {
      if (open.delete(id)) sessionEnded(id)
    }
    socket.on('end', () => {
      over()
      // The rest of its end when the others' are told: on this side it costs more than on the broker's.
      setTimeout(() => socket.destroy(), accepted ? 2000 : 0)
    })
    socket.on('error', over)
    socket.on('close', () => {
      over()
      if (!accepted) resolve(denied ? 'denied' : 'failed')
    })
  })
}

async function each<T>(items: T[], work: (item: T) => Promise<void>): Promise<void> {
  let next = 0
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      while (next < items.length) await work(items[next++])
    }),
  )
}

async function handle(message: ToClients): Promise<void> {
  if (message.kind === 'connect') {
    port = message.port
    ca = message.ca
    fleet = message.fleet
    let count = 0
    await each(message.credentials, async credential => {
      known.set(credential.id, credential)
      if ((await session(credential)) === 'accepted') count++
    })
    say({ kind: 'connected', count })
  } else if (message.kind === 'ping') {
    answered.clear()
    for (const socket of open.values()) socket.write(packet(0xc0))
    for (let wait = 0; wait < 100 && answered.size < open.size; wait++) await new Promise(resolve => setTimeout(resolve, 20))
    say({ kind: 'alive', count: answered.size, notices: [...open.keys()].filter(id => noticed.has(id)).length })
  } else if (message.kind === 'again') {
    let refused = 0
    await each(message.ids, async id => {
      const credential = known.get(id)
      if (credential && (await session(credential)) === 'denied') refused++
    })
    say({ kind: 'refused', refused, attempts: message.ids.length })
  } else if (message.kind === 'talk') {
    talker = { id: message.id, number: 0 }
    talkOn()
  } else {
    for (const socket of open.values()) socket.destroy()
    process.disconnect()
  }
}

if (process.send) {
  process.on('message', (message: ToClients) => {
    handle(message).catch((error: unknown) => {
      process.stderr.write(`${error}\n`)
      process.exit(1)
    })
  })
}
