// Those who want to be served slowly, in a process of their own: a thousand sockets of five kinds from several addresses, each opened anew when the
// server has had enough of it.

import { connect as connectTcp, type Socket } from 'node:net'
import { type ConnectionOptions, connect } from 'node:tls'
import { answering } from './worker.ts'

export type ToAttackers =
  | { kind: 'attack'; port: number; rootPem: string; sockets: number; tls: { key: string; cert: string } }
  /** Sockets that the server holds at this moment, and those it has let go of so far. */
  | { kind: 'held' }
  | { kind: 'rest' }
export type FromAttackers = { kind: 'attack' } | { kind: 'held'; open: number; ended: number } | { kind: 'rest' }

/** Loopback addresses: each stays below what the server allows one. */
const addresses = 5
/** A socket that was refused comes back after this. */
const againMs = 500
const dripMs = 1000

let attacking = false
let ended = 0
const open = new Set<Socket>()

type Attack = Extract<ToAttackers, { kind: 'attack' }>

function plain({ port }: Attack, localAddress: string): Socket {
  return connectTcp({ port, host: '127.0.0.1', localAddress })
}

function secured({ port, rootPem: ca, tls }: Attack, localAddress: string, then: (socket: Socket) => void): Socket {
  // net.connect takes it, and so tls.connect does, whatever its types say.
  const from: ConnectionOptions & { localAddress: string } = { port, host: '127.0.0.1', localAddress }
  const socket = connect({ ...from, ca, servername: 'localhost', ...tls }, () => then(socket))
  return socket
}

const drip = (head: string) => (socket: Socket) => {
  socket.write(head)
  const timer = setInterval(() => socket.write('a'), dripMs)
  socket.once('close', () => clearInterval(timer))
}

/** Says nothing; half a ClientHello; a handshake and nothing more; a header that never ends; a body that never ends. */
const kinds: ((attack: Attack, from: string) => Socket)[] = [
  plain,
  (attack, from) => {
    const socket = plain(attack, from)
    // A record that promises 512 bytes.
    socket.write(Buffer.from('160301020001', 'hex'))
    return socket
  },
  (attack, from) => secured(attack, from, () => {}),
  (attack, from) => secured(attack, from, drip('GET /.well-known/est/cacerts HTTP/1.1\r\nHost: localhost\r\nX-Slow: ')),
  (attack, from) =>
    secured(
      attack,
      from,
      drip(
        'POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/pkcs10\r\nContent-Length: 4000\r\n\r\n',
      ),
    ),
]

function hold(attack: Attack, number: number): void {
  if (!attacking) return
  const socket = kinds[number % kinds.length](attack, `127.0.0.${2 + (Math.floor(number / kinds.length) % addresses)}`)
  open.add(socket)
  socket.on('error', () => {})
  socket.resume()
  socket.once('close', () => {
    open.delete(socket)
    ended++
    setTimeout(hold, againMs, attack, number)
  })
}

answering<ToAttackers, FromAttackers>(async message => {
  if (message.kind === 'held') return { kind: 'held', open: open.size, ended }
  attacking = message.kind === 'attack'
  if (message.kind === 'rest') for (const socket of open) socket.destroy()
  // A few at a time, as they would come over a network.
  else
    for (let i = 0; i < message.sockets; i++) {
      hold(message, i)
      if (i % 20 === 19) await new Promise(done => setTimeout(done, 20))
    }
  return { kind: message.kind }
})
