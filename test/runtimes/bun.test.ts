// The same server and the same SDK on Bun: another TLS library, another HTTP parser, another crypto. The server on Bun is asked from Node
// and by curl; the device on Bun asks servers on Node. Where Bun differs: docs/decisions/bun.md.

import { createPrivateKey } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, connect as connectTcp, createServer as createTcpServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, type TLSSocket } from 'node:tls'
import {
  bytesOfHex,
  encodeBase64,
  encodeElement,
  encodeName,
  encodePem,
  encodeSequence,
  OBJECT_IDENTIFIER,
  parseCertificate,
  parseCertsOnly,
  SERIAL_NUMBER,
  SET,
  utf8Bytes,
} from '@birthmark/device-sdk/core'
import { birthChain, createIdentity, fileKeys, fileStore } from '@birthmark/device-sdk/node'
import { type Fault, startTestEst, type TestEst } from '@birthmark/device-sdk/testing'
import { generateSigningKey } from '@birthmark/factory-line'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { available, run } from '../interop/debian.ts'
import { bear, csrOf, manufacturer, request, type TestDevice, type TestManufacturer } from '../support/devices.ts'
import { startEstServer, type TestServer } from '../support/est-server.ts'
import { post, type RawAnswer, type RawConnection, type RawOptions, rawConnect } from '../support/raw-http.ts'
import type { Attempt, Attempted } from './bun-device.ts'
import { findBun, type Program, startUnderBun } from './bun-process.ts'
import type { Orders, Start, Started } from './bun-server.ts'

const bun = findBun()
const versions = ['TLSv1.2', 'TLSv1.3'] as const
const est = (operation: string) => `/.well-known/est/${operation}`
const health = 'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n'
const codeOf = (answer: RawAnswer | null) => [answer?.status, answer?.body.split(':')[0]]
const showing = ({ cert, key }: { cert: string; key: string }) => ({ cert, key })
const fresh = async (serial: string) => encodeBase64((await request(serial)).csr, 64)
const certificatesOf = (answer: RawAnswer | null) => parseCertsOnly(Buffer.from(answer?.body ?? '', 'base64'))

/** Puts a device's birth key and certificate where `fileKeys` and `fileStore` look for them. */
function furnish(folder: string, device: TestDevice): void {
  mkdirSync(join(folder, 'keys'))
  const key = createPrivateKey(device.key).export({ type: 'pkcs8', format: 'pem' })
  writeFileSync(join(folder, 'keys', 'birth.key'), key, { mode: 0o600 })
  fileStore(join(folder, 'identity')).put('birth.chain', birthChain(device.cert))
}

describe.skipIf(!bun)('the server on Bun', () => {
  let folder: string
  let maker: TestManufacturer
  let server: BunServer
  const devices: TestDevice[] = []
  const open: { close(): void }[] = []

  interface BunServer extends Started {
    order<N extends keyof Orders>(name: N): ReturnType<Orders[N]>
    stop(): Promise<number | null>
  }

  async function start(limits: Start['limits'] = {}): Promise<BunServer> {
    const { ask, stop } = startUnderBun(bun as string, 'bun-server.ts')
    const makerRoot = Buffer.from(maker.root.certificate).toString('base64')
    const first: Start = { makerRoot, manifest: devices.map(device => device.manifest), limits }
    const started = (await ask(JSON.stringify(first))) as Started
    return { ...started, stop, order: name => ask(name) as never }
  }

  async function visit(options: Partial<RawOptions> = {}, at: Started = server): Promise<RawConnection> {
    const connection = await rawConnect({ port: at.port, ca: at.serverRoot, ...options })
    connection.socket.removeAllListeners('error')
    connection.socket.on('error', () => {})
    open.push(connection)
    return connection
  }

  async function healthy(): Promise<void> {
    expect((await (await visit()).ask(health))?.status).toBe(200)
  }

  async function empty(at: BunServer): Promise<void> {
    // A hang bound, not a measurement.
    for (let i = 0; i < 1000 && (await at.order('connections')) > 0; i++) await new Promise(resolve => setTimeout(resolve, 10))
    expect(await at.order('connections')).toBe(0)
  }

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'birthmark-bun-'))
    maker = await manufacturer()
    for (let i = 0; i < 10; i++) devices.push(await bear(maker, `unit-${i}`))
    server = await start()
  })
  afterEach(() => {
    for (const connection of open.splice(0)) connection.close()
  })
  afterAll(async () => {
    expect(await server.stop()).toBe(0)
    rmSync(folder, { recursive: true, force: true })
  })

  test('[RFC 7030 4.1] cacerts gives the issuer and its root to anybody', async () => {
    expect(server.runtime).toMatch(/^Bun 1\./)
    const answer = await (await visit()).ask(`GET ${est('cacerts')} HTTP/1.1\r\nHost: x\r\n\r\n`)
    expect([answer?.status, answer?.headers['content-type']]).toEqual([200, 'application/pkcs7-mime; smime-type=certs-only'])
    const certificates = certificatesOf(answer)
    expect(certificates.length).toBe(2)
    expect(encodePem('CERTIFICATE', certificates[1])).toBe(server.operationalRoot)
  })

  test('[RFC 7030 4.2] the SDK on Node enrolls with its birth certificate, and renews', async () => {
    const own = mkdtempSync(join(folder, 'device-'))
    furnish(own, devices[0])
    const identity = createIdentity({
      keys: fileKeys(join(own, 'keys')),
      store: fileStore(join(own, 'identity')),
      server: { url: `https://localhost:${server.port}` },
      trust: { server: server.serverRoot, operational: server.operationalRoot },
    })
    await identity.enroll()
    const first = parseCertificate(identity.chain()[0])
    await identity.renew()
    const second = parseCertificate(identity.chain()[0])
    expect([second.subject, second.issuer]).toEqual([first.subject, first.issuer])
    expect(second.spki).not.toEqual(first.spki)
    identity.close()
  })

  test.each(versions)('[RFC 7030 4.2] simpleenroll and simplereenroll over mutual %s', async version => {
    const device = devices[version === 'TLSv1.2' ? 1 : 2]
    const first = await request(device.serial)
    const born = await visit({ ...showing(device), version })
    const enrolled = await born.ask(post(est('simpleenroll'), encodeBase64(first.csr, 64)))
    expect(enrolled?.status, enrolled?.body).toBe(200)
    const chain = certificatesOf(enrolled)
    const operational = parseCertificate(chain[0])
    expect(operational.spki).toEqual(first.spki)
    const cert = chain.map(der => encodePem('CERTIFICATE', der)).join('')
    const next = await request(device.serial, operational.subject)
    const known = await visit({ cert, key: first.key, version })
    const renewed = await known.ask(post(est('simplereenroll'), encodeBase64(next.csr, 64)))
    expect(renewed?.status, renewed?.body).toBe(200)
    expect(parseCertificate(certificatesOf(renewed)[0]).spki).toEqual(next.spki)
  })

  describe.skipIf(!available({ curl: 'curl', openssl: 'openssl' }))('asked by curl', () => {
    test.each(['1.2', '1.3'])(
      '[RFC 7030 4.2] enrolls and renews over mutual TLS %s, and openssl verifies what it got',
      async version => {
        const device = devices[version === '1.2' ? 3 : 4]
        const own = mkdtempSync(join(folder, 'curl-'))
        const openssl = (...args: string[]) => run('openssl', args, { cwd: own })
        const files = { 'server-root': server.serverRoot, root: server.operationalRoot, birth: device.cert }
        for (const [name, pem] of Object.entries(files)) writeFileSync(join(own, `${name}.pem`), pem)
        writeFileSync(join(own, 'birth.key'), device.key)

        /** Enrolls `name.csr` with the certificate and key of `by`, and leaves the answer in `name.pem`. */
        async function obtain(operation: string, by: string, name: string): Promise<void> {
          const tls = [
            `--tlsv${version}`,
            '--tls-max',
            version,
            '--cacert',
            'server-root.pem',
            '--cert',
            `${by}.pem`,
            '--key',
            `${by}.key`,
          ]
          const body = ['-H', 'Content-Type: application/pkcs10', '-H', 'Expect: 100-continue', '--data-binary', `@${name}.csr`]
          const url = `https://localhost:${server.port}${est(operation)}`
          await run('curl', ['-sS', '-m', '30', '--fail-with-body', ...tls, ...body, '-o', `${name}.b64`, url], { cwd: own })
          await openssl('base64', '-d', '-in', `${name}.b64`, '-out', `${name}.p7`)
          await openssl('pkcs7', '-inform', 'DER', '-in', `${name}.p7`, '-print_certs', '-out', `${name}.pem`)
          await openssl('verify', '-purpose', 'sslclient', '-CAfile', 'root.pem', '-untrusted', `${name}.pem`, `${name}.pem`)
        }

        for (const name of ['first', 'next'])
          await openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', `${name}.key`)
        await openssl('req', '-new', '-key', 'first.key', '-subj', `/serialNumber=${device.serial}`, '-out', 'first.csr')
        await obtain('simpleenroll', 'birth', 'first')
        await openssl('x509', '-x509toreq', '-in', 'first.pem', '-signkey', 'next.key', '-out', 'next.csr')
        const csr = readFileSync(join(own, 'next.csr'), 'utf8')
        writeFileSync(join(own, 'next.csr'), csr.slice(csr.indexOf('-----BEGIN')))
        await obtain('simplereenroll', 'first', 'next')
      },
    )
  })

  test('[RFC 7030 3.2.3] without a client certificate: 401 and a challenge', async () => {
    const answer = await (await visit()).ask(post(est('simpleenroll'), await fresh('unit-9')))
    expect([answer?.status, answer?.headers['www-authenticate']?.split(' ')[0]]).toEqual([401, 'Basic'])
  })

  test.each(versions)(
    '[F9] over %s, a stranger’s certificate is answered 401, another device’s 403, and nothing is signed',
    async version => {
      const before = await server.order('signatures')
      const double = await bear(await manufacturer(), 'unit-9')
      const withoutChain = { cert: encodePem('CERTIFICATE', devices[9].birth), key: devices[9].key }
      for (const client of [double, withoutChain]) {
        const answer = await (await visit({ ...showing(client), version })).ask(post(est('simpleenroll'), await fresh('unit-9')))
        expect(codeOf(answer)).toEqual([401, 'certificate_untrusted'])
      }
      const other = await (await visit({ ...showing(devices[8]), version })).ask(post(est('simpleenroll'), await fresh('unit-9')))
      expect(other?.status, other?.body).toBe(403)
      expect(await server.order('signatures')).toBe(before)
    },
  )

  async function resumes(version: 'TLSv1.2' | 'TLSv1.3', ca: string): Promise<boolean[]> {
    const sessions: Buffer[] = []
    async function once(session?: Buffer): Promise<boolean> {
      const connection = await visit({ ...showing(devices[9]), ca, version, ...(session && { session }) })
      connection.socket.on('session', given => sessions.push(given))
      // An answer is read, so that whatever ticket TLS 1.3 sends has arrived. A client certificate was seen: this one may not enroll another.
      expect((await connection.ask(post(est('simpleenroll'), await fresh('unit-8'))))?.status).toBe(403)
      sessions.push(connection.socket.getSession() as Buffer)
      return connection.socket.isSessionReused()
    }
    await once()
    const results = []
    for (const session of sessions.splice(0)) results.push(await once(session))
    return results
  }

  test.each(versions)('[F12] [F22] no %s session can be resumed', async version => {
    expect(new Set(await resumes(version, server.serverRoot))).toEqual(new Set([false]))
  })

  test('[F22] [F72] renegotiation is refused', async () => {
    const { socket } = await visit({ version: 'TLSv1.2' })
    const failure = new Promise<NodeJS.ErrnoException>(resolve => socket.once('error', resolve))
    socket.renegotiate({}, () => {})
    expect((await failure).code).toMatch(/NO_RENEGOTIATION$/)
    await healthy()
  })

  test('a handshake that fails costs its own connection alone', async () => {
    const refused = (options: object) =>
      new Promise<string | undefined>(resolve => {
        const socket = connect({ port: server.port, host: '127.0.0.1', ca: server.serverRoot, ...options })
        socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code))
      })
    expect(await refused({ ALPNProtocols: ['h2'] })).toMatch(/NO_APPLICATION_PROTOCOL/)
    expect(await refused({ minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' })).toMatch(/PROTOCOL_VERSION/)
    expect(await refused({ servername: 'boom.example' })).toBe('ECONNRESET')
    for (const bytes of ['GET / HTTP/1.1\r\n\r\n', Buffer.alloc(300, 0xff), Buffer.from('160301ffff', 'hex')]) {
      const tcp = connectTcp(server.port, '127.0.0.1')
      tcp.on('error', () => {}).resume()
      tcp.end(bytes)
      await new Promise(resolve => tcp.once('close', resolve))
    }
    await healthy()
  })

  test.each([
    ['TLSv1.2', (socket: TLSSocket) => socket.getFinished() as Buffer],
    ['TLSv1.3', (socket: TLSSocket) => socket.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0))],
  ] as const)('[F21] [RFC 7030 3.5] a CSR made for one %s connection is good there and nowhere else', async (version, binding) => {
    const device = devices[version === 'TLSv1.2' ? 5 : 6]
    const one = await visit({ ...showing(device), version })
    const two = await visit({ ...showing(device), version })
    // 1.2.840.113549.1.9.7 challengePassword
    const attribute = encodeSequence([
      encodeElement(OBJECT_IDENTIFIER, [bytesOfHex('2a864886f70d010907')]),
      encodeElement(SET, [encodeElement(0x13, [utf8Bytes(encodeBase64(binding(one.socket), 0))])]),
    ])
    const subject = encodeName([{ oid: SERIAL_NUMBER, value: device.serial }])
    const wire = post(est('simpleenroll'), encodeBase64(await csrOf(subject, generateSigningKey().key, [attribute]), 64))
    expect(codeOf(await two.ask(wire))).toEqual([403, 'channel_binding_mismatch'])
    const answer = await one.ask(wire)
    expect(answer?.status, answer?.body).toBe(200)
  })

  test('[F71] a body or a header beyond the limit is refused, and the connection ends', async () => {
    const head = `POST ${est('simpleenroll')} HTTP/1.1\r\nHost: x\r\nContent-Type: application/pkcs10\r\n`
    const chunks = `10000\r\n${'A'.repeat(0x10000)}\r\n1\r\nA\r\n`
    const requests: [string | Buffer, unknown[]][] = [
      [post(est('simpleenroll'), 'A'.repeat(65_537)), [413, 'body_too_large']],
      [`${head}Transfer-Encoding: chunked\r\n\r\n${chunks}`, [413, 'body_too_large']],
      [`GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ${'a'.repeat(20_000)}\r\n\r\n`, [431, 'header_too_large']],
    ]
    for (const [wire, refusal] of requests) {
      const connection = await visit(showing(devices[9]))
      const answer = await connection.ask(wire)
      expect([...codeOf(answer), answer?.headers.connection]).toEqual([...refusal, 'close'])
      connection.socket.end()
      await connection.closed
    }
    await healthy()
  })

  test.each([
    ['two lengths', 'Host: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nAAA'],
    ['a length and chunks', 'Host: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['a folded header', 'Host: x\r\nX-A: b\r\n c\r\n\r\n'],
    ['a space before the colon', 'Host: x\r\nX-A : b\r\n\r\n'],
    ['a bare CR', 'Host: x\r\nX-A: b\rc\r\n\r\n'],
    ['a chunk size that is none', 'Host: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n'],
    ['no Host', 'Content-Length: 0\r\n\r\n'],
  ])('[RFC 9112] %s is answered 400', async (_name, rest) => {
    const connection = await visit(showing(devices[9]))
    const answer = await connection.ask(`POST ${est('simpleenroll')} HTTP/1.1\r\nContent-Type: application/pkcs10\r\n${rest}`)
    expect(codeOf(answer)).toEqual([400, 'request_malformed'])
  })

  test('requests sent ahead of an answer are refused', async () => {
    const connection = await visit()
    expect((await connection.ask(health + health))?.status).toBe(200)
    expect(codeOf(await connection.answer())).toEqual([503, 'pipelining_refused'])
  })

  test('[F71] silence, half a handshake, idling, a dripped header and a dripped body end at their deadlines', async () => {
    const strict = await start({ handshakeSeconds: 0.5, headSeconds: 0.5, bodySeconds: 0.5 })
    const tcp = (bytes: Buffer) => {
      const socket = connectTcp(strict.port, '127.0.0.1')
      socket.on('error', () => {}).resume()
      socket.write(bytes)
      return new Promise(resolve => socket.once('close', resolve))
    }
    const ends = [tcp(Buffer.alloc(0)), tcp(Buffer.from('160301020001', 'hex'))]
    const idle = await visit({}, strict)
    expect((await idle.ask(health))?.status).toBe(200)
    const dripping = await visit({}, strict)
    dripping.socket.write('GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ')
    const body = await visit(showing(devices[9]), strict)
    const wire = post(est('simpleenroll'), 'A'.repeat(100))
    expect(codeOf(await body.ask(wire.subarray(0, -50)))).toEqual([408, 'body_timeout'])
    await Promise.all([...ends, idle.closed, dripping.closed, body.closed])
    await empty(strict)
    expect(await strict.stop()).toBe(0)
  })

  test('[F72] a flood of one address is refused before TLS, and a long chain counts as several connections', async () => {
    const admitted = async (client: { cert?: string; key?: string }) => {
      const strict = await start({ connectionBurstPerAddress: 12, connectionsPerSecondPerAddress: 0.01 })
      let count = 0
      for (let i = 0; i < 16; i++) {
        const connection = await visit(client, strict).catch(() => null)
        // An answer says that the server is through with the handshake too.
        if (connection && (await connection.ask(health))?.status === 200) count++
      }
      expect(await strict.stop()).toBe(0)
      return count
    }
    const [leaf] = devices[9].cert.split(/(?<=-----END CERTIFICATE-----\n)/)
    const long = { cert: leaf + encodePem('CERTIFICATE', maker.issuing.certificate).repeat(30), key: devices[9].key }
    expect(await admitted({})).toBe(12)
    expect(await admitted(long)).toBeLessThanOrEqual(6)
  })

  test('closeConnections cuts whom it is told to, and nobody else', async () => {
    const known = await visit(showing(devices[9]))
    const anonymous = await visit()
    for (const connection of [known, anonymous]) expect((await connection.ask(health))?.status).toBe(200)
    expect(await server.order('cut')).toBe(1)
    await known.closed
    expect((await anonymous.ask(health))?.status).toBe(200)
  })

  test('[F12] a renewed server certificate is shown from then on, client certificates are still asked for, and tickets stay off', async () => {
    const before = await visit()
    const root = await server.order('renew')
    for (const version of versions) expect(new Set(await resumes(version, root))).toEqual(new Set([false]))
    expect((await before.ask(health))?.status).toBe(200)
    server.serverRoot = root
  })
})

describe.skipIf(!bun)('the device SDK on Bun', () => {
  let folder: string
  let program: Program
  let estServer: TestServer
  let testEst: TestEst
  let device: TestDevice
  let born = 0

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'birthmark-bun-'))
    const maker = await manufacturer()
    device = await bear(maker, 'bun-unit')
    estServer = await startEstServer(maker, { devices: [device] })
    testEst = await startTestEst({ secrets: { 'bun-secret': 'hunter2' } })
    program = startUnderBun(bun as string, 'bun-device.ts')
  })
  afterAll(async () => {
    expect(await program.stop()).toBe(0)
    await testEst.close()
    await estServer.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  const attempt = async (what: Attempt) => (await program.ask(JSON.stringify(what))) as Attempted

  /** A newborn of the test server; its folder. */
  async function newborn(): Promise<string> {
    const own = mkdtempSync(join(folder, 'device-'))
    await testEst.bear(`bun-${++born}`, { keys: fileKeys(join(own, 'keys')), store: fileStore(join(own, 'identity')) })
    return own
  }

  test('[RFC 7030 4.2] enrolls at the server on Node, renews, and Node carries on from its folder', async () => {
    const own = mkdtempSync(join(folder, 'device-'))
    furnish(own, device)
    const trust = { server: estServer.identity.rootPem, operational: estServer.issuerRootPem }
    const first = await attempt({ folder: own, url: estServer.url, trust })
    expect([first.code, first.generation]).toEqual(['', 1])
    const second = await attempt({ folder: own, url: estServer.url, trust, renew: true })
    expect([second.code, second.generation]).toEqual(['', 2])
    expect(estServer.signatures()).toBe(2)
    const identity = createIdentity({
      keys: fileKeys(join(own, 'keys')),
      store: fileStore(join(own, 'identity')),
      server: { url: estServer.url },
      trust,
    })
    expect((await identity.renew()).generation).toBe(3)
    identity.close()
  })

  test('[RFC 7030 4.2.1] every request is a connection of its own: the new identity proves itself, not the one before it', async () => {
    const from = testEst.requests.length
    const own = await newborn()
    const { server, birth } = testEst.trust
    expect((await attempt({ folder: own, url: testEst.url, trust: { server, birth } })).code).toBe('')
    expect((await attempt({ folder: own, url: testEst.url, trust: { server, birth }, renew: true })).code).toBe('')
    const id = `bun-${born}`
    const operational = `CN=${id}\nserialNumber=${id}`
    expect(testEst.requests.slice(from, from + 3).map(({ operation, client }) => [operation, client])).toEqual([
      ['cacerts', `serialNumber=${id}`],
      ['simpleenroll', `serialNumber=${id}`],
      ['cacerts', operational],
    ])
    expect(testEst.requests.at(-1)).toMatchObject({ operation: 'cacerts', client: operational })
  })

  test('[RFC 7030 3.2.3] shows its secret to a challenge and never before', async () => {
    const from = testEst.requests.length
    const own = mkdtempSync(join(folder, 'device-'))
    const secret = { user: 'bun-secret', password: 'hunter2' }
    expect((await attempt({ folder: own, url: testEst.url, trust: testEst.trust, secret })).code).toBe('')
    expect(testEst.requests.slice(from, from + 2).map(({ status, authorization }) => [status, authorization !== null])).toEqual([
      [401, false],
      [200, true],
    ])
  })

  test('a server of another root, or of another name, hears no request', async () => {
    const from = testEst.requests.length
    const stranger = await attempt({ folder: await newborn(), url: testEst.url, trust: { server: testEst.trust.birth } })
    expect(stranger.code).toBe('server_untrusted')
    // The same server by an address that its certificate does not name.
    const relay = createTcpServer(socket => {
      const onward = connectTcp(Number(new URL(testEst.url).port), '127.0.0.1')
      for (const end of [socket, onward]) end.on('error', () => {})
      socket.pipe(onward).pipe(socket)
    })
    await new Promise<void>(resolve => relay.listen(0, '127.0.0.2', resolve))
    const url = `https://127.0.0.2:${(relay.address() as AddressInfo).port}`
    expect((await attempt({ folder: await newborn(), url, trust: testEst.trust })).code).toBe('server_untrusted')
    relay.close()
    expect(testEst.requests.length).toBe(from)
  })

  test.each<[Fault, string]>([
    [{ fault: 'huge', bytes: 2 ** 28 }, 'est_response_malformed'],
    [{ fault: 'gzip' }, 'est_response_malformed'],
    [{ fault: 'drip' }, 'timeout'],
    [{ fault: 'lost-reply' }, 'network'],
    [{ fault: 'wrong-key' }, 'est_certificate_mismatch'],
    [{ fault: 'answer', status: 200, headers: { 'x-long': 'a'.repeat(20_000) } }, 'network'],
    [{ fault: 'answer', status: 302, headers: { location: '/.well-known/est/cacerts' } }, 'est_refused'],
  ])('an answer that is not what it should be is refused as on Node: $fault', async (fault, code) => {
    const from = testEst.requests.length
    testEst.fail('simpleenroll', fault)
    const timeoutSeconds = fault.fault === 'drip' ? 0.5 : 20
    expect((await attempt({ folder: await newborn(), url: testEst.url, trust: testEst.trust, timeoutSeconds })).code).toBe(code)
    expect(testEst.requests.length).toBe(from + 1)
  })
})
