// Stands between a socket and the MQTT parser, which would buffer whatever length a packet claims: reads only fixed headers (MQTT 3.1.1
// 2.2) and ends the connection at the first one that is too large, out of place, or no client's. What a packet says is the parser's.

import { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'

export interface PacketLimits {
  /** The CONNECT, all that a peer may send before it is admitted. */
  connectBytesMax: number
  /** SUBSCRIBE, UNSUBSCRIBE and what else isn't a PUBLISH. */
  controlBytesMax: number
  publishBytesMax: number
}

const CONNECT = 1
const PUBLISH = 3
// PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT. The others are a server's, or of MQTT 5.
const clientPackets = new Set([PUBLISH, 4, 5, 6, 7, 8, 10, 12, 14])

export interface PacketScanner {
  /** Reads fixed headers over chunks cut anywhere. Gives what is wrong, or null. */
  scan(chunk: Uint8Array): string | null
  /** Whether the next byte begins a packet after CONNECT. */
  between(): boolean
}

export function createPacketScanner(limits: PacketLimits): PacketScanner {
  let connected = false
  let type = 0
  let length = 0
  let lengthBytes = 0
  let phase: 'type' | 'length' | 'body' = 'type'
  let rest = 0

  function judge(): string | null {
    if (!connected && type !== CONNECT) return 'a packet before CONNECT'
    if (connected && !clientPackets.has(type)) return `packet type ${type}`
    const most = !connected ? limits.connectBytesMax : type === PUBLISH ? limits.publishBytesMax : limits.controlBytesMax
    return length > most ? `a packet of ${length} bytes` : null
  }

  function scan(chunk: Uint8Array): string | null {
    let at = 0
    while (at < chunk.length) {
      if (phase === 'body') {
        const skip = Math.min(rest, chunk.length - at)
        rest -= skip
        at += skip
        if (rest === 0) phase = 'type'
        continue
      }
      const byte = chunk[at++]
      if (phase === 'type') {
        type = byte >> 4
        length = 0
        lengthBytes = 0
        phase = 'length'
        continue
      }
      length += (byte & 0x7f) * 128 ** lengthBytes++
      if (byte >= 0x80 && lengthBytes === 4) return 'a length of more than four bytes'
      // Judged while the length is still growing: what has come so far can only get larger.
      const problem = judge()
      if (problem) return problem
      if (byte >= 0x80) continue
      connected = true
      rest = length
      phase = rest === 0 ? 'type' : 'body'
    }
    return null
  }
  return { scan, between: () => connected && phase === 'type' }
}

/** PUBACKs and nothing else: after a notice one comes from every subscriber, alone. */
function isAcknowledgements(chunk: Uint8Array): boolean {
  if (chunk.length % 4 !== 0) return false
  for (let at = 0; at < chunk.length; at += 4) if (chunk[at] !== 0x40 || chunk[at + 1] !== 2) return false
  return true
}

/**
 * The socket as the parser may see it. `onRefused` is told what was wrong, then the socket is destroyed. Destroying the stream destroys
 * the socket, and the other way round. `onAcknowledged` is told of PUBACKs that came by themselves; where it returns true they go no further. `onClosed` is told of the
 * socket's end, and lets the parser know of it by calling what it is given.
 */
export function guardPackets(
  socket: TLSSocket,
  limits: PacketLimits,
  onRefused: (problem: string) => void,
  onAcknowledged?: () => boolean,
  onClosed: (forget: () => void) => void = forget => forget(),
): Duplex {
  const scanner = createPacketScanner(limits)
  const stream = new Duplex({
    read: () => {
      socket.resume()
    },
    write: (chunk, _encoding, done) => {
      socket.write(chunk, done)
    },
    // The pieces of one packet leave as one TLS record.
    writev: (chunks, done) => {
      socket.write(Buffer.concat(chunks.map(({ chunk }) => chunk as Buffer)), done)
    },
    final: done => {
      socket.end(done)
    },
    destroy: (error, done) => {
      socket.destroy()
      done(error)
    },
  })
  socket.on('data', (chunk: Buffer) => {
    if (onAcknowledged && scanner.between() && isAcknowledgements(chunk) && onAcknowledged()) return
    const problem = scanner.scan(chunk)
    if (problem) {
      onRefused(problem)
      stream.destroy()
    } else if (!stream.push(chunk)) socket.pause()
  })
  socket.on('end', () => stream.push(null))
  socket.on('close', () => onClosed(() => stream.destroy()))
  socket.on('error', () => stream.destroy())
  return stream
}
