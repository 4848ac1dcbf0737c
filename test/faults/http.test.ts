// FAULTS 1-8, 11-13, 15, 18-20 where HTTP meets the network: raw bytes over TLS against the real server. What is inside a certificate or a
// CSR has its tests beside the parsers; here it matters what the wire answers, and that nothing is signed.

import { METHODS } from 'node:http'
import {
  type Bytes,
  csrAssemble,
  encodeBase64,
  encodePem,
  parseCertificate,
  parseCertsOnly,
  parseCsr,
} from '@birthmark/device-sdk/core'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { bear, manufacturer, request, type TestDevice, type TestManufacturer } from '../support/devices.ts'
import { startEstServer, type TestServer } from '../support/est-server.ts'
import { post, type RawAnswer, type RawConnection, rawConnect } from '../support/raw-http.ts'

let maker: TestManufacturer
let server: TestServer
const devices: TestDevice[] = []
const open: RawConnection[] = []
const simpleenroll = '/.well-known/est/simpleenroll'
const simplereenroll = '/.well-known/est/simplereenroll'

beforeAll(async () => {
  maker = await manufacturer()
  for (let i = 0; i < 10; i++) devices.push(await bear(maker, `unit-${i}`))
  server = await startEstServer(maker, { devices })
})
afterAll(async () => {
  for (const connection of open) connection.close()
  await server.stop()
})

async function connect(client?: { cert: string; key: string }): Promise<RawConnection> {
  const connection = await rawConnect({ port: server.port, ca: server.identity.rootPem, ...client })
  open.push(connection)
  return connection
}

/** What the server answers to bytes on a connection of their own. */
async function answerTo(bytes: string | Buffer, client?: { cert: string; key: string }): Promise<RawAnswer | null> {
  const connection = await connect(client)
  try {
    return await connection.ask(bytes)
  } finally {
    connection.close()
  }
}

function issuedIn(answer: RawAnswer | null): Bytes[] {
  expect(answer?.body.split('\n')[0]).toMatch(/^MI/)
  return parseCertsOnly(Buffer.from(answer!.body, 'base64'))
}

test('a device enrolls and renews, whatever spelling of base64 it has', async () => {
  const device = devices[0]
  const { csr, key, spki } = await request(device.serial)
  const connection = await connect(device)
  const first = issuedIn(await connection.ask(post(simpleenroll, encodeBase64(csr, 0))))
  const certificate = parseCertificate(first[0])
  expect(Buffer.from(certificate.spki).equals(spki)).toBe(true)
  // [F4] wrapped, with CRLF, in armour, without a Content-Transfer-Encoding: the same request, so the same certificate.
  for (const body of [encodeBase64(csr, 64), encodeBase64(csr, 76).replace(/\n/g, '\r\n'), encodePem('CERTIFICATE REQUEST', csr)])
    expect(Buffer.from(issuedIn(await connection.ask(post(simpleenroll, body)))[0]).equals(first[0])).toBe(true)
  // And chunked.
  const wire = encodeBase64(csr, 64)
  const chunks = `${wire.slice(0, 100).length.toString(16)}\r\n${wire.slice(0, 100)}\r\n${wire.slice(100).length.toString(16)}\r\n${wire.slice(100)}\r\n0\r\n\r\n`
  const chunked = await connection.ask(
    `POST ${simpleenroll} HTTP/1.1\r\nHost: x\r\nContent-Type: application/pkcs10\r\nTransfer-Encoding: chunked\r\n\r\n${chunks}`,
  )
  expect(Buffer.from(issuedIn(chunked)[0]).equals(first[0])).toBe(true)
  const operational = { cert: encodePem('CERTIFICATE', first[0]), key }
  const renewal = await request(device.serial, certificate.subject)
  const renewed = issuedIn(await answerTo(post(simplereenroll, encodeBase64(renewal.csr, 64)), operational))[0]
  expect(parseCertificate(renewed).subject).toEqual(certificate.subject)
  // [F26] Once the new identity has been shown, as a device does to prove it, the old one renews nothing.
  const current = { cert: encodePem('CERTIFICATE', renewed), key: renewal.key }
  expect((await answerTo('GET /.well-known/est/cacerts HTTP/1.1\r\nHost: x\r\n\r\n', current))?.status).toBe(200)
  const late = await request(device.serial, certificate.subject)
  const refused = await answerTo(post(simplereenroll, encodeBase64(late.csr, 64)), operational)
  expect([refused?.status, refused?.body.split(':')[0]]).toEqual([403, 'certificate_superseded'])
})

test('[F5] a body over 64 KB is refused before it is read', async () => {
  const before = server.signatures()
  const declared = await answerTo(
    `POST ${simpleenroll} HTTP/1.1\r\nHost: x\r\nContent-Type: application/pkcs10\r\nContent-Length: 65537\r\n\r\n`,
    devices[1],
  )
  expect([declared?.status, declared?.headers.connection]).toEqual([413, 'close'])
  const head = `POST ${simpleenroll} HTTP/1.1\r\nHost: x\r\nContent-Type: application/pkcs10\r\nTransfer-Encoding: chunked\r\n\r\n`
  const chunk = `4000\r\n${'A'.repeat(0x4000)}\r\n`
  const streamed = await answerTo(head + chunk.repeat(4) + '1\r\nA\r\n', devices[1])
  expect(streamed?.status).toBe(413)
  expect(server.signatures()).toBe(before)
})

test('[F5] framing that two readers could read differently is no request', async () => {
  const head = `POST ${simpleenroll} HTTP/1.1\r\nHost: x\r\nContent-Type: application/pkcs10\r\n`
  const framings = [
    'Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n',
    'Content-Length: abc\r\n\r\n',
    'Content-Length: -1\r\n\r\n',
    'Content-Length: 0x10\r\n\r\n',
    'Content-Length: 4, 4\r\n\r\nAAAA',
    'Content-Length: 4\r\nContent-Length: 5\r\n\r\nAAAA',
    'Content-Length: 99999999999999999999\r\n\r\n',
    'Transfer-Encoding: gzip\r\n\r\n',
    'Transfer-Encoding: chunked, gzip\r\n\r\n',
    'Transfer-Encoding: chunked\r\n\r\nZZ\r\nAA\r\n0\r\n\r\n',
    'Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n',
    'X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'Content-Length: 4\r\n : folded\r\n\r\nAAAA',
  ]
  for (const framing of framings) {
    const answer = await answerTo(head + framing, devices[1])
    expect([answer?.status, answer?.headers.connection?.toLowerCase()], framing).toEqual([400, 'close'])
    expect(answer?.body, framing).toMatch(/^request_malformed: /)
  }
  for (const line of [
    'GET /healthz HTTP/1.1\r\n\r\n',
    'get /healthz HTTP/1.1\r\nHost: x\r\n\r\n',
    'GET /healthz HTTP/9\r\nHost: x\r\n\r\n',
    '\x16\x03\x01\x00\x05hello\r\n\r\n',
  ])
    expect((await answerTo(line))?.status, line).toBe(400)
})

test('[F6] a gzip body is not unpacked', async () => {
  const gzip = Buffer.from('1f8b08000000000002ff', 'hex')
  expect((await answerTo(post(simpleenroll, gzip, { 'Content-Encoding': 'gzip' }), devices[1]))?.status).toBe(415)
})

test('[F8] names that mean something to JavaScript mean nothing in a header, a path or a name', async () => {
  const connection = await connect(devices[1])
  const odd = { __proto__x: '1', ['__proto__']: 'polluted', constructor: 'x', 'X-A': '__proto__' }
  expect((await connection.ask(post('/.well-known/est/__proto__/simpleenroll', 'AAAA', odd)))?.status).toBe(404)
  expect((await connection.ask(post('/.well-known/est/constructor', 'AAAA', odd)))?.status).toBe(404)
  expect(({} as Record<string, unknown>).polluted).toBeUndefined()
  expect((await connection.ask(`GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n`))?.status).toBe(400)
})

test('headers over 16 KB get 431', async () => {
  expect((await answerTo(`GET /healthz HTTP/1.1\r\nHost: x\r\nX: ${'a'.repeat(17_000)}\r\n\r\n`))?.status).toBe(431)
})

test('[F1] [F2] [F3] a CSR that is damaged anywhere is refused, and the connection lives on', async () => {
  const { csr } = await request(devices[2].serial)
  const before = server.signatures()
  const connection = await connect(devices[2])
  const damage = fc.oneof(
    fc.record({ at: fc.nat(csr.length - 1), to: fc.nat(255) }).map(({ at, to }) => {
      const out = Uint8Array.from(csr)
      out[at] = out[at] === to ? to ^ 1 : to
      return out
    }),
    fc.nat(csr.length - 1).map(length => csr.slice(0, length)),
    fc.uint8Array({ minLength: 1, maxLength: 40 }).map(tail => Uint8Array.of(...csr, ...tail)),
    // Depth, and lengths that promise 4 GB.
    fc.integer({ min: 1, max: 20_000 }).map(depth => new Uint8Array(2 * depth).fill(0x30)),
    fc.constant(Uint8Array.of(0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0)),
    fc.constant(Uint8Array.of(0x30, 0x80, 0, 0)),
  )
  await fc.assert(
    fc.asyncProperty(damage, async bytes => {
      const answer = await connection.ask(post(simpleenroll, encodeBase64(bytes, 64)))
      expect([400, 403]).toContain(answer?.status)
      expect(answer?.body).toMatch(/^[a-z_]+: .*\nNext: .*\n$/)
    }),
    { numRuns: 250 },
  )
  expect(server.signatures()).toBe(before)
  // One record each, until the source has used up its budget.
  const records = (await server.store.audit(0, 1000)).filter(
    record => record.kind === 'enrollment_refused' && record.device === devices[2].serial,
  )
  expect(records.length).toBeGreaterThanOrEqual(60)
})

test('[F11] the other form of a birth certificate signature is the same device', async () => {
  const device = devices[3]
  const { csr } = await request(device.serial)
  const first = issuedIn(await answerTo(post(simpleenroll, encodeBase64(csr, 0)), device))
  const twin = malleated(device.birth)
  expect(Buffer.from(twin).equals(device.birth)).toBe(false)
  const cert = encodePem('CERTIFICATE', twin) + encodePem('CERTIFICATE', maker.issuing.certificate)
  const again = issuedIn(await answerTo(post(simpleenroll, encodeBase64(csr, 0)), { cert, key: device.key }))
  expect(Buffer.from(again[0]).equals(first[0])).toBe(true)
})

test('[F12] a device revoked on an open connection is refused at its next request, on a new one too, and is cut when told', async () => {
  const device = devices[4]
  const connection = await connect(device)
  const { csr } = await request(device.serial)
  const wire = post(simpleenroll, encodeBase64(csr, 64))
  expect((await connection.ask(wire))?.status).toBe(200)
  server.setStatus(() => 'revoked')
  try {
    expect((await connection.ask(wire))?.body).toMatch(/^device_revoked: /)
    expect((await answerTo(wire, device))?.status).toBe(403)
    server.setStatus(() => 'unknown')
    expect((await connection.ask(wire))?.body).toMatch(/^status_unknown: /)
    const cut = server.listener.closeConnections(peer => peer.chain !== null && Buffer.from(peer.chain[0]).equals(device.birth))
    expect(cut).toBe(1)
    await connection.closed
  } finally {
    server.setStatus(() => 'good')
  }
})

test('[F13] each operation takes its own kind of credential and no other', async () => {
  const device = devices[5]
  const { csr, key } = await request(device.serial)
  const certificate = issuedIn(await answerTo(post(simpleenroll, encodeBase64(csr, 0)), device))[0]
  const operational = { cert: encodePem('CERTIFICATE', certificate), key }
  const basic = { Authorization: `Basic ${Buffer.from(`${device.serial}:guess`).toString('base64')}` }
  const body = encodeBase64((await request(device.serial)).csr, 64)
  const matrix: [string, { cert: string; key: string } | undefined, Record<string, string>, number, string][] = [
    [simplereenroll, device, {}, 403, 'birth_certificate_on_reenroll'],
    // A renewal, by whichever path it comes: a name that a first enrollment may have is not enough.
    [simpleenroll, operational, {}, 403, 'subject_changed'],
    [simpleenroll, undefined, {}, 401, 'credentials_required'],
    [simplereenroll, undefined, {}, 401, 'credentials_required'],
    [simpleenroll, undefined, basic, 401, 'secret_'],
    [simplereenroll, undefined, basic, 401, 'secret_'],
    // [F15] What a proxy might claim changes nothing.
    [
      simpleenroll,
      undefined,
      { 'X-SSL-Client-Cert': encodeBase64(device.birth, 0), 'X-Forwarded-For': '127.0.0.1' },
      401,
      'credentials_required',
    ],
  ]
  const before = server.signatures()
  for (const [path, client, headers, status, code] of matrix) {
    const answer = await answerTo(post(path, body, headers), client)
    // A secret that is not admitted here is a 403, one that is wrong a 401.
    expect(code === 'secret_' ? [401, 403] : [status], `${path} ${code}`).toContain(answer?.status)
    const said = answer?.headers['x-problem'] ?? answer?.body
    expect(said?.startsWith(code), `${path}: ${said}`).toBe(true)
  }
  expect(server.signatures()).toBe(before)
})

test('[F18] every operation that is not offered and every method is denied, with 0 signatures', async () => {
  const before = server.signatures()
  const body = encodeBase64((await request(devices[6].serial)).csr, 64)
  let connection = await connect(devices[6])
  async function ask(wire: string | Buffer): Promise<RawAnswer | null> {
    if (connection.socket.destroyed) connection = await connect(devices[6])
    const answer = await connection.ask(wire)
    if (answer?.headers.connection === 'close') await connection.closed
    return answer
  }
  const names = ['serverkeygen', 'fullcmc', 'cacert', 'simpleenroll2', 'revoke', 'PKIOperation']
  for (let i = 0; i < 256; i++) names.push(`${i}`, `x${String.fromCharCode(97 + (i % 26))}${i}`)
  // A profile that makes no keys for devices says so to the device; the rest is nobody's.
  for (const name of names)
    expect(name === 'serverkeygen' ? [403] : [404, 405, 501], name).toContain(
      (await ask(post(`/.well-known/est/${name}`, body)))?.status,
    )
  // An answer to HEAD has no body to wait for; app.test.ts asks it.
  for (const method of METHODS.filter(method => method !== 'POST' && method !== 'HEAD')) {
    const answer = await ask(`${method} ${simpleenroll} HTTP/1.1\r\nHost: x\r\nContent-Type: application/pkcs10\r\n\r\n`)
    expect([400, 405], method).toContain(answer?.status)
  }
  expect(server.signatures()).toBe(before)
})

test('[F19] a path spelled otherwise is another path', async () => {
  const before = server.signatures()
  const body = encodeBase64((await request(devices[6].serial)).csr, 64)
  const connection = await connect(devices[6])
  for (const path of [
    '/.well-known/est%2Fsimpleenroll',
    '/.well-known/est/%73impleenroll',
    '/.well-known//est/simpleenroll',
    '//.well-known/est/simpleenroll',
    '/.well-known/est/./simpleenroll',
    '/.well-known/est/x/../simpleenroll',
    '/.well-known/EST/simpleenroll',
    '/.well-known/est/simpleenroll/',
    '/.well-known/est/simpleenroll%00',
    '/.well-known/est/simpleenroll;a=b',
    '/.well-known/est\\simpleenroll',
    '/healthz/../.well-known/est/simpleenroll',
  ]) {
    const answer = await connection.ask(post(path, body))
    expect([400, 404], path).toContain(answer?.status)
    expect(answer?.body, path).toMatch(/^(not_found|operation_unknown|request_malformed): /)
  }
  expect(server.signatures()).toBe(before)
})

test('[F20] a CSR that its key did not sign gets 400, and the issuing key is not asked', async () => {
  const before = server.signatures()
  const { csr } = await request(devices[7].serial)
  const other = await request(devices[7].serial)
  const forged = csrAssemble(parseCsr(csr).info, 'ecdsa-sha256', parseCsr(other.csr).signature)
  const answer = await answerTo(post(simpleenroll, encodeBase64(forged, 64)), devices[7])
  expect([answer?.status, answer?.body.split(':')[0]]).toEqual([400, 'csr_signature'])
  expect(server.signatures()).toBe(before)
})

test('every answer has its length, its request id, and a head within 1,024 bytes', async () => {
  const connection = await connect(devices[6])
  const wires = [
    'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n',
    'GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n',
    'GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n',
    'GET /.well-known/est/cacerts HTTP/1.1\r\nHost: x\r\n\r\n',
    `GET ${simpleenroll} HTTP/1.1\r\nHost: x\r\n\r\n`,
    post(simpleenroll, 'AAAA'),
    post(simpleenroll, encodeBase64((await request(devices[6].serial)).csr, 64)),
    post(simpleenroll, 'A', { 'Content-Type': 'text/plain' }),
    'GET /healthz HTTP/1.1\r\n\r\n',
  ]
  const ids = new Set<string>()
  for (const wire of wires) {
    const answer = await connection.ask(wire)
    expect(answer?.headers['content-length'], String(wire)).toMatch(/^[0-9]+$/)
    expect(answer?.headers['x-request-id'], String(wire)).toMatch(/^[0-9a-f-]{36}$/)
    expect(answer!.headBytes).toBeLessThanOrEqual(1024)
    ids.add(answer!.headers['x-request-id'])
  }
  expect(ids.size).toBe(wires.length)
})

test('a second request is not begun while the first is answered', async () => {
  const connection = await connect(devices[8])
  const { csr } = await request(devices[8].serial)
  const wire = post(simpleenroll, encodeBase64(csr, 64))
  connection.socket.write(Buffer.concat([wire, wire, wire]))
  expect((await connection.answer())?.status).toBe(200)
  const second = await connection.answer()
  expect([second?.status, second?.headers.connection]).toEqual([503, 'close'])
  await connection.closed
})

test('[RFC 9110 10.1.1] Expect: 100-continue is told to go on, or gets its answer at once', async () => {
  const connection = await connect(devices[9])
  const { csr } = await request(devices[9].serial)
  const body = encodeBase64(csr, 64)
  const wire = post(simpleenroll, body, { Expect: '100-continue' })
  expect((await connection.ask(wire))?.status).toBe(200)
  const stranger = await answerTo(wire.subarray(0, wire.length - body.length))
  expect([stranger?.status, stranger?.headers.connection]).toEqual([401, 'close'])
})

/** The (r, n−s) twin of a P-256 signature, re-encoded. */
function malleated(certificate: Bytes): Bytes {
  const n = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n
  const der = Buffer.from(certificate)
  const at = der.lastIndexOf(Buffer.from('06082a8648ce3d040302', 'hex')) + 10
  const bits = der.subarray(at)
  // BIT STRING: tag, length, unused, SEQUENCE { INTEGER r, INTEGER s }
  const rLength = bits[6]
  const r = bits.subarray(5, 7 + rLength)
  const s = BigInt(`0x${bits.subarray(9 + rLength).toString('hex')}`)
  let twin = Buffer.from((n - s).toString(16).padStart(64, '0'), 'hex')
  if (twin[0] & 0x80) twin = Buffer.concat([Buffer.from([0]), twin])
  while (twin[0] === 0 && !(twin[1] & 0x80)) twin = twin.subarray(1)
  const sequence = Buffer.concat([r, Buffer.from([2, twin.length]), twin])
  const signature = Buffer.concat([Buffer.from([3, sequence.length + 3, 0, 0x30, sequence.length]), sequence])
  const body = Buffer.concat([der.subarray(4, at), signature])
  return Buffer.concat([Buffer.from([0x30, 0x82, body.length >> 8, body.length & 255]), body])
}
