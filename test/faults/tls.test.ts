// FAULTS 9, 10, 14, 21, 22, 72 at the handshake: one connection is one handshake with one peer, and what that peer showed is judged by the
// registrar alone.

import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { connect as connectTcp } from 'node:net'
import { connect, type TLSSocket } from 'node:tls'
import {
  type Bytes,
  bytesOfHex,
  DIGITAL_SIGNATURE,
  encodeBase64,
  encodeElement,
  encodeName,
  encodePem,
  encodeSequence,
  OBJECT_IDENTIFIER,
  parseCertificate,
  SERIAL_NUMBER,
  SET,
  utf8Bytes,
} from '@birthmark/device-sdk/core'
import {
  type Authority,
  certificateSerial,
  encodeBirthForm,
  encodeToBeSigned,
  generateSigningKey,
  keyUsage,
  makeAuthority,
  neverExpires,
  signCertificate,
} from '@birthmark/factory-line'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { bear, csrOf, manufacturer, moment, request, type TestDevice, type TestManufacturer } from '../support/devices.ts'
import { startEstServer, type TestServer } from '../support/est-server.ts'
import { post, type RawAnswer, rawConnect } from '../support/raw-http.ts'

let maker: TestManufacturer
let server: TestServer
const devices: TestDevice[] = []
const simpleenroll = '/.well-known/est/simpleenroll'

beforeAll(async () => {
  maker = await manufacturer()
  for (let i = 0; i < 6; i++) devices.push(await bear(maker, `unit-${i}`))
  server = await startEstServer(maker, {
    devices,
    tls: {
      contextOf: name => {
        if (name === 'boom.example') throw new Error('no such certificate')
        return undefined
      },
    },
  })
})
afterAll(() => server.stop())

async function enroll(serial: string, client: { cert: string; key: string }): Promise<RawAnswer | null> {
  const connection = await rawConnect({ port: server.port, ca: server.identity.rootPem, ...client })
  try {
    return await connection.ask(post(simpleenroll, encodeBase64((await request(serial)).csr, 64)))
  } finally {
    connection.close()
  }
}

async function healthy(): Promise<void> {
  const connection = await rawConnect({ port: server.port, ca: server.identity.rootPem })
  expect((await connection.ask('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n'))?.status).toBe(200)
  connection.close()
}

test.each(['TLSv1.2', 'TLSv1.3'] as const)('[F12] [F22] no %s session can be resumed', async version => {
  const sessions: Buffer[] = []
  async function visit(session?: Buffer): Promise<boolean> {
    const connection = await rawConnect({
      ...{ port: server.port, ca: server.identity.rootPem, cert: devices[0].cert, key: devices[0].key, version },
      ...(session && { session }),
    })
    connection.socket.on('session', given => sessions.push(given))
    // An answer is read, so that whatever ticket TLS 1.3 sends has arrived.
    expect((await connection.ask('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n'))?.status).toBe(200)
    sessions.push(connection.socket.getSession()!)
    const resumed = connection.socket.isSessionReused()
    connection.close()
    return resumed
  }
  await visit()
  expect(sessions.length).toBeGreaterThan(0)
  for (const session of sessions.splice(0)) expect(await visit(session)).toBe(false)
})

test('[F22] [F72] renegotiation is refused', async () => {
  const connection = await rawConnect({ port: server.port, ca: server.identity.rootPem, version: 'TLSv1.2' })
  const failure = new Promise<NodeJS.ErrnoException>(resolve => {
    connection.socket.removeAllListeners('error')
    connection.socket.once('error', resolve)
  })
  connection.socket.renegotiate({}, () => {})
  expect((await failure).code).toBe('ERR_SSL_NO_RENEGOTIATION')
  await healthy()
})

test('[F14] a throwing SNI callback costs its own connection alone', async () => {
  const others = await rawConnect({ port: server.port, ca: server.identity.rootPem, servername: 'localhost' })
  await expect(rawConnect({ port: server.port, ca: server.identity.rootPem, servername: 'boom.example' })).rejects.toThrow()
  expect((await others.ask('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n'))?.status).toBe(200)
  others.close()
})

test('an address as SNI is answered like a name; a client that speaks no HTTP/1.1 is not', async () => {
  const socket: TLSSocket = connect({ port: server.port, host: '127.0.0.1', servername: '127.0.0.1', ca: server.identity.rootPem })
  await new Promise(resolve => socket.once('secureConnect', resolve))
  socket.destroy()
  const h2 = connect({ port: server.port, host: '127.0.0.1', ca: server.identity.rootPem, ALPNProtocols: ['h2'] })
  const error = await new Promise<NodeJS.ErrnoException>(resolve => h2.once('error', resolve))
  expect(error.code).toMatch(/NO_APPLICATION_PROTOCOL/)
  await healthy()
})

test('TLS 1.1, and bytes that are no TLS, end at the handshake', async () => {
  const old = connect({
    port: server.port,
    host: '127.0.0.1',
    maxVersion: 'TLSv1.1',
    minVersion: 'TLSv1',
    ciphers: 'DEFAULT@SECLEVEL=0',
  })
  await new Promise(resolve => old.once('error', resolve))
  for (const bytes of ['GET / HTTP/1.1\r\n\r\n', Buffer.alloc(300, 0xff), Buffer.from('160301ffff', 'hex')]) {
    const tcp = connectTcp(server.port, '127.0.0.1')
    tcp.on('error', () => {}).resume()
    tcp.end(bytes)
    await new Promise(resolve => tcp.once('close', resolve))
  }
  await healthy()
})

test.each([
  ['TLSv1.2', (socket: TLSSocket) => socket.getFinished()!],
  ['TLSv1.3', (socket: TLSSocket) => socket.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0))],
] as const)('[F21] [RFC 7030 3.5] a CSR made for one %s connection is good there and nowhere else', async (version, binding) => {
  const device = devices[version === 'TLSv1.2' ? 1 : 2]
  const options = { port: server.port, ca: server.identity.rootPem, cert: device.cert, key: device.key, version }
  const one = await rawConnect(options)
  const two = await rawConnect(options)
  // 1.2.840.113549.1.9.7 challengePassword
  const attribute = encodeSequence([
    encodeElement(OBJECT_IDENTIFIER, [bytesOfHex('2a864886f70d010907')]),
    encodeElement(SET, [encodeElement(0x13, [utf8Bytes(encodeBase64(binding(one.socket), 0))])]),
  ])
  const subject = encodeName([{ oid: SERIAL_NUMBER, value: device.serial }])
  const wire = post(simpleenroll, encodeBase64(await csrOf(subject, generateSigningKey().key, [attribute]), 64))
  const elsewhere = await two.ask(wire)
  expect([elsewhere?.status, elsewhere?.body.split(':')[0]]).toEqual([403, 'channel_binding_mismatch'])
  expect((await one.ask(wire))?.status).toBe(200)
  one.close()
  two.close()
})

/** A birth certificate as the manufacturer would not make it. */
async function odd(
  issuing: Authority,
  serial: string,
  change: { notAfter?: number; extensions?: Bytes[] },
): Promise<{ cert: string; key: string }> {
  const own = generateSigningKey()
  const tbs = encodeToBeSigned(
    {
      serial: certificateSerial(moment.now(), randomBytes),
      issuer: parseCertificate(issuing.certificate).subject,
      subject: encodeName([{ oid: SERIAL_NUMBER, value: serial }]),
      notBefore: moment.now() - 3600,
      notAfter: change.notAfter ?? neverExpires,
      spki: own.key.spki,
      extensions: [keyUsage(DIGITAL_SIGNATURE), ...(change.extensions ?? [])],
    },
    issuing.key.algorithm,
  )
  const chain = [issuing.certificate, ...issuing.chain.slice(0, -1)]
  const certificates = [await signCertificate(tbs, issuing.key), ...chain]
  return { cert: certificates.map(der => encodePem('CERTIFICATE', der)).join(''), key: own.pem }
}

test('[F9] a birth certificate that does not hold is answered 401, and nothing is signed', async () => {
  const before = server.signatures()
  const stranger = await manufacturer('Strangers')
  // The manufacturer's own name and another key.
  const double = await manufacturer()
  // An unknown critical extension, 1.2.3.4.
  const critical = encodeSequence([
    encodeElement(OBJECT_IDENTIFIER, [bytesOfHex('2a0304')]),
    encodeElement(1, [Uint8Array.of(255)]),
    encodeElement(4, [Uint8Array.of(5, 0)]),
  ])
  const withoutChain = await bear(maker, 'not-a-ca')
  const leafKey = generateSigningKey()
  const leafForm = encodeBirthForm(
    { serial: 'not-a-ca-2', spki: leafKey.key.spki },
    { organization: null, commonName: true, hardwareType: null },
    maker.issuing,
    moment.now(),
    randomBytes,
  )
  const falseCa: Authority = {
    certificate: await signCertificate(leafForm, maker.issuing.key),
    chain: [maker.issuing.certificate, maker.root.certificate],
    key: leafKey.key,
  }
  // The issuing CA's path length is 0: it may sign devices, not CAs.
  const deeper = await makeAuthority(
    { name: { commonName: 'One CA too many' }, pathLength: 0, notAfter: neverExpires },
    generateSigningKey().key,
    maker.issuing,
    moment,
  )
  const bad: [string, { cert: string; key: string }][] = [
    ['another root', await bear(stranger, 'unit-5')],
    ['another root of the same name', await bear(double, 'unit-5')],
    ['expired', await odd(maker.issuing, 'unit-5', { notAfter: moment.now() - 60 })],
    ['unknown critical extension', await odd(maker.issuing, 'unit-5', { extensions: [critical] })],
    ['CA:false intermediate', await odd(falseCa, 'unit-5', {})],
    ['path length', await odd(deeper, 'unit-5', {})],
    ['the intermediate left out', { cert: encodePem('CERTIFICATE', withoutChain.birth), key: withoutChain.key }],
  ]
  for (const [name, client] of bad) {
    const answer = await enroll('unit-5', client)
    expect([answer?.status, answer?.headers['www-authenticate'] !== undefined], `${name}: ${answer?.body}`).toEqual([401, true])
    expect(answer?.body, name).toMatch(/^certificate_/)
  }
  expect(server.signatures()).toBe(before)
  expect((await enroll('unit-5', devices[5]))?.status).toBe(200)
})

test.each(['TLSv1.2', 'TLSv1.3'] as const)('[RFC 8422 5.1] a birth key on P-521 is let through the %s handshake', async version => {
  const own = generateKeyPairSync('ec', { namedCurve: 'P-521' })
  const spki = new Uint8Array(own.publicKey.export({ type: 'spki', format: 'der' }))
  const birth = await signCertificate(
    encodeBirthForm(
      { serial: `unit-${version}`, spki },
      { organization: null, commonName: true, hardwareType: null },
      maker.issuing,
      moment.now(),
      randomBytes,
    ),
    maker.issuing.key,
  )
  const cert = encodePem('CERTIFICATE', birth) + encodePem('CERTIFICATE', maker.issuing.certificate)
  const key = own.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
  const connection = await rawConnect({ port: server.port, ca: server.identity.rootPem, cert, key, version })
  const answer = await connection.ask(post(simpleenroll, encodeBase64((await request(`unit-${version}`)).csr, 64)))
  // Recognised by its path; it is in no manifest.
  expect([answer?.status, answer?.body.split(':')[0]]).toEqual([403, 'device_unknown'])
  connection.close()
})

test('[F9] [F72] a chain that leads nowhere is seen through once a connection, and counts against the next ones of its address', async () => {
  const small = await startEstServer(maker, { limits: { connectionBurstPerAddress: 10, connectionsPerSecondPerAddress: 0.001 } })
  const stranger = await bear(await manufacturer('Strangers'), 'unit-5')
  const visit = () => rawConnect({ port: small.port, ca: small.identity.rootPem, cert: stranger.cert, key: stranger.key })
  const connection = await visit()
  const knock = post(simpleenroll, encodeBase64((await request('unit-5')).csr, 64))
  const answer = await connection.ask(Buffer.concat([knock, knock]))
  expect([answer?.status, answer?.headers.connection]).toEqual([401, 'close'])
  await connection.closed
  // Of ten one was spent on accepting it and eight on its chain.
  const last = await visit()
  await expect(visit()).rejects.toThrow()
  last.close()
  await small.stop()
})

test('[F10] certificates that sign each other, and a hundred of them, are answered at once', async () => {
  const device = devices[4]
  const a = generateSigningKey()
  const b = generateSigningKey()
  const rootA = await makeAuthority({ name: { commonName: 'A' }, pathLength: -1, notAfter: neverExpires }, a.key, null, moment)
  const rootB = await makeAuthority({ name: { commonName: 'B' }, pathLength: -1, notAfter: neverExpires }, b.key, null, moment)
  const bByA = await makeAuthority({ name: { commonName: 'B' }, pathLength: -1, notAfter: neverExpires }, b.key, rootA, moment)
  const aByB = await makeAuthority({ name: { commonName: 'A' }, pathLength: -1, notAfter: neverExpires }, a.key, rootB, moment)
  const cyclic = await odd({ ...bByA, chain: [aByB.certificate, bByA.certificate] }, device.serial, {})
  const hundred: string[] = []
  let above = rootA
  for (let i = 0; i < 100; i++) {
    above = await makeAuthority(
      { name: { commonName: `C${i}` }, pathLength: -1, notAfter: neverExpires },
      generateSigningKey().key,
      above,
      moment,
    )
    hundred.unshift(encodePem('CERTIFICATE', above.certificate))
  }
  const long = await odd({ ...above, chain: [] }, device.serial, {})
  long.cert = long.cert.slice(0, long.cert.indexOf('-----END') + 26) + hundred.join('')
  for (const client of [cyclic, long]) {
    const started = performance.now()
    const answer = await enroll(device.serial, client)
    expect(answer?.body).toMatch(/^certificate_untrusted: /)
    // A hang bound; the client's own handshake is in it too.
    expect(performance.now() - started).toBeLessThan(2000)
  }
})
