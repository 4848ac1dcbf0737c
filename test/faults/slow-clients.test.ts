// FAULTS 71 and 72 and the end of a server's life: sockets that want to be held, and requests that were accepted. The enrollment behind the
// listener is a stand-in that answers when the test says.

import { connect as connectTcp, type Socket } from 'node:net'
import { connect } from 'node:tls'
import type { EnrollmentOutcome } from '@birthmark/est-server'
import { createListener, type Limits, type Listener } from '@birthmark/est-server'
import { afterEach, beforeAll, expect, test } from 'vitest'
import { bear, manufacturer, type ServerIdentity, serverIdentity, type TestDevice } from '../support/devices.ts'
import { post, type RawConnection, rawConnect } from '../support/raw-http.ts'

let identity: ServerIdentity
let device: TestDevice
let listener: Listener | null = null
let port = 0
/** Ends the enrollments that wait. */
let release: () => void = () => {}
let waiting = 0
const sockets: Socket[] = []

beforeAll(async () => {
  identity = await serverIdentity()
  device = await bear(await manufacturer(), 'unit-1')
})
afterEach(async () => {
  release()
  for (const socket of sockets.splice(0)) socket.destroy()
  await listener?.close(0)
  listener = null
})

async function start(limits: Partial<Limits>): Promise<Listener> {
  waiting = 0
  const hold = new Promise<void>(resolve => {
    release = resolve
  })
  listener = createListener({
    tls: { key: identity.key, cert: identity.cert },
    enrollment: {
      async enroll(): Promise<EnrollmentOutcome> {
        waiting++
        await hold
        return { kind: 'pending', retryAfterSeconds: 9 }
      },
      caCertificates: () => [],
    },
    limits: { connectionBurstPerAddress: 1000, connectionsPerAddressMax: 1000, ...limits },
    log: { info: () => {}, warn: () => {}, error: () => {} },
    requestId: () => 'r',
  })
  port = (await listener.listen('127.0.0.1', 0)).port
  return listener
}

async function https(options: Partial<TestDevice> = {}): Promise<RawConnection> {
  const { cert, key } = options
  const connection = await rawConnect({ port, ca: identity.rootPem, ...(cert && key && { cert, key }) })
  connection.socket.removeAllListeners('error')
  connection.socket.on('error', () => {})
  sockets.push(connection.socket)
  return connection
}

async function until(condition: () => boolean): Promise<void> {
  // A hang bound, not a measurement.
  for (let i = 0; i < 3000 && !condition(); i++) await new Promise(resolve => setTimeout(resolve, 10))
  expect(condition()).toBe(true)
}

const health = 'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n'
const body = 'AAAA'

function tcp(): Socket {
  const socket = connectTcp(port, '127.0.0.1')
  socket.on('error', () => {}).resume()
  sockets.push(socket)
  return socket
}

/** Five ways to hold a socket: say nothing, begin a handshake, finish one and say nothing more, drip a header, drip a body. */
const kinds: (() => Promise<void>)[] = [
  async () => {
    tcp()
  },
  async () => {
    // A record header that promises 512 bytes of ClientHello.
    tcp().write(Buffer.from('160301020001', 'hex'))
  },
  async () => {
    await https()
  },
  async () => {
    ;(await https()).socket.write('GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ')
  },
  async () => {
    ;(await https(device)).socket.write(post('/.well-known/est/simpleenroll', 'A'.repeat(100)).subarray(0, -50))
  },
]

test('[F71] a thousand sockets of five kinds hold no more than the server allows, and everybody else is answered', async () => {
  const limits = { connectionsMax: 60, handshakeSeconds: 2, headSeconds: 2, bodySeconds: 2 }
  const server = await start(limits)
  let most = 0
  for (let i = 0; i < 1000; i++) {
    // Those that are pushed out while they still shake hands fail, which is the point.
    await Promise.race([kinds[i % kinds.length]().catch(() => {}), new Promise(resolve => setTimeout(resolve, 20))])
    most = Math.max(most, server.connections)
    if (i % 50 !== 49) continue
    const legitimate = await https()
    expect((await legitimate.ask(health))?.status).toBe(200)
    legitimate.close()
  }
  expect(most).toBeLessThanOrEqual(60)
  // Nobody is left once the deadlines have passed.
  await until(() => server.connections === 0)
})

test('[F71] a body that drips is told so before it is cut', async () => {
  await start({ bodySeconds: 0.5 })
  const connection = await https(device)
  const answer = await connection.ask(post('/.well-known/est/simpleenroll', 'A'.repeat(100)).subarray(0, -50))
  expect([answer?.status, answer?.body.split(':')[0]]).toEqual([408, 'body_timeout'])
  await connection.closed
})

test('a silent client, a silent handshake and an idle connection end at their deadlines', async () => {
  const server = await start({ handshakeSeconds: 0.5, headSeconds: 0.5 })
  const idle = await https()
  expect((await idle.ask(health))?.status).toBe(200)
  tcp()
  await until(() => server.connections === 2)
  await until(() => server.connections === 0)
  await idle.closed
})

test('[F72] a flood of one address is refused before TLS begins', async () => {
  const server = await start({ connectionBurstPerAddress: 10, connectionsPerSecondPerAddress: 1 })
  const results = await Promise.all(
    Array.from(
      { length: 40 },
      () =>
        new Promise<string>(resolve => {
          const socket = connect({ port, host: '127.0.0.1', ca: identity.rootPem, servername: 'localhost' }, () => resolve('in'))
          socket.on('error', error => resolve((error as NodeJS.ErrnoException).code ?? ''))
          sockets.push(socket)
        }),
    ),
  )
  const admitted = results.filter(result => result === 'in').length
  expect(admitted).toBeGreaterThanOrEqual(10)
  expect(admitted).toBeLessThan(20)
  expect(server.connections).toBe(admitted)
})

test('a connection ends in an orderly way after its last request', async () => {
  await start({ requestsPerConnectionMax: 3 })
  const connection = await https()
  for (const expected of ['keep-alive', 'keep-alive', 'close'])
    expect((await connection.ask(health))?.headers.connection?.toLowerCase()).toBe(expected)
  await connection.closed
})

test('closing finishes what was accepted and takes nothing new', async () => {
  const server = await start({})
  const idle = await https()
  const asked = await https(device)
  const answer = asked.ask(post('/.well-known/est/simpleenroll', body))
  await until(() => waiting === 1)
  const closed = server.close(10_000)
  await idle.closed
  await expect(https()).rejects.toThrow()
  release()
  const given = await answer
  expect([given?.status, given?.headers['retry-after']]).toEqual([202, '9'])
  await closed
  expect(server.connections).toBe(0)
})

test('closing does not wait longer than it was told', async () => {
  const server = await start({})
  const asked = await https(device)
  const answer = asked.ask(post('/.well-known/est/simpleenroll', body))
  await until(() => waiting === 1)
  await server.close(50)
  expect(await answer).toBeNull()
})

test.each(['TLSv1.2', 'TLSv1.3'] as const)(
  'a renewed certificate serves the next %s connection, still without resumption',
  async version => {
    const server = await start({})
    const before = (await https()).socket.getPeerX509Certificate()?.fingerprint256
    const next = await serverIdentity()
    server.setCertificate({ key: next.key, cert: next.cert })
    const connection = await rawConnect({ port, ca: next.rootPem, version })
    const sessions: Buffer[] = []
    connection.socket.on('session', session => sessions.push(session))
    expect(connection.socket.getPeerX509Certificate()?.fingerprint256).not.toBe(before)
    expect(connection.socket.getCipher().standardName).toMatch(/AES_128_GCM_SHA256$/)
    expect((await connection.ask(health))?.status).toBe(200)
    sessions.push(connection.socket.getSession()!)
    connection.close()
    for (const session of sessions) {
      const again = await rawConnect({ port, ca: next.rootPem, version, session })
      expect(again.socket.isSessionReused()).toBe(false)
      again.close()
    }
  },
)
