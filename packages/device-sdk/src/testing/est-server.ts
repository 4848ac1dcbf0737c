// An EST server (RFC 7030) inside the test's own process: real certificates, real TLS on loopback, and faults on demand. For a firmware
// team's CI: what does the device do when the server answers like this? It keeps everything in memory and admits every device born here.

import { createHash, createPublicKey, generateKeyPairSync, sign, verify, X509Certificate } from 'node:crypto'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import { gzipSync } from 'node:zlib'
import type { Http, HttpRequest, HttpResponse, KeyStore, Store } from '../agent/ports.ts'
import { decodeBase64, encodeBase64 } from '../core/base64.ts'
import { type Bytes, bytesOfHex, concatBytes, equalBytes, hexOf, utf8Bytes } from '../core/bytes.ts'
import { parseCertificate } from '../core/certificate.ts'
import { encodeCertsOnly } from '../core/cms.ts'
import { encodeSign1, sign1Header } from '../core/cose.ts'
import { parseCsr } from '../core/csr.ts'
import { COMMON_NAME, encodeName, SERIAL_NUMBER } from '../core/distinguished-name.ts'
import { type DeviceErrorCode, deviceError } from '../core/errors.ts'
import { encodeFleetExtension, type Membership } from '../core/fleet-extension.ts'
import { encodeTime, timeToBeSigned } from '../core/signed-time.ts'
import { loopbackNames, neverExpires, type TestAuthority, testAuthority } from './authority.ts'

/** What goes wrong with one answer. Those marked (socket) need the real connection; over `direct()` they are a cut connection. */
export type Fault =
  /** Any answer at all. */
  | { fault: 'answer'; status: number; headers?: Record<string, string>; body?: string | Bytes }
  /** 202 with Retry-After. */
  | { fault: 'pending'; retryAfter: string }
  /** A good certificate for another key. */
  | { fault: 'wrong-key' }
  /** A certificate for the right key by a CA that nobody trusts. */
  | { fault: 'wrong-ca' }
  /** For the right key, but another device. */
  | { fault: 'wrong-name' }
  /** Certs-only without a certificate. */
  | { fault: 'empty' }
  /** The right answer, gzipped, with Content-Encoding. */
  | { fault: 'gzip' }
  /** The right answer and `bytes` of white space, without a Content-Length (socket). */
  | { fault: 'huge'; bytes: number }
  /** A byte at a time, for ever (socket). */
  | { fault: 'drip' }
  /** The connection is closed before the request is looked at. */
  | { fault: 'cut' }
  /** The certificate is issued and recorded, and then the connection is closed. */
  | { fault: 'lost-reply' }
  /** For `time`: the first answer it ever gave, to another nonce. */
  | { fault: 'replayed' }
  /** For `time`: another time, by a key that nobody trusts, or by the right one. */
  | { fault: 'lying'; at: number; signed?: boolean }

/** EST's, and the signed time. */
export type EstOperation = 'cacerts' | 'simpleenroll' | 'simplereenroll' | 'time'

export interface SeenRequest {
  operation: EstOperation
  label: string | null
  /** DER, null for cacerts and time. */
  csr: Bytes | null
  /** Subject of the client certificate as OpenSSL prints it, null without one. */
  client: string | null
  authorization: string | null
  /** Status answered, 0 when the connection was cut. */
  status: number
}

export interface TestEstOptions {
  /** Seconds since 1970; the lifetimes of what is issued count from here. Default: the system's clock. */
  now?: () => number
  /** Of operational certificates. Default: 30 days. */
  lifetimeSeconds?: number
  /** What the fleet extension of operational certificates says, by which notices revoke. Default: they have none. */
  membership?: Membership
  /** Admits by HTTP Basic after a 401: password by user (the device id). */
  secrets?: Record<string, string>
}

export interface TestEst {
  /** `https://127.0.0.1:<port>` */
  url: string
  /** PEM: what a device's `trust` would hold. The server's root is none of the devices'. */
  trust: { server: string; birth: string; operational: string }
  /** For an identity's `time`: the fleet, and the public key (PEM) that signs the time. */
  time: { fleet: string; signers: string[] }
  /** Everything asked so far. */
  requests: SeenRequest[]
  /** How many certificates were signed for devices; the same CSR again adds none. */
  issued(): number
  /** One fault for each of the next requests for an operation; after them the server is well again. */
  fail(operation: EstOperation, ...faults: Fault[]): void
  /** Sends `Renew-After` with every certificate from now on; null: none. */
  renewAfter(seconds: string | null): void
  /** Answers 403 `device_revoked` to this device from now on. */
  revoke(deviceId: string): void
  /** Answers 403 `device_quarantined` to this device from now on. */
  quarantine(deviceId: string): void
  /** Neither from now on: the quarantine is lifted, and a revoked device is readmitted by its birth certificate. */
  release(deviceId: string): void
  /** A device is born: a key made in slot `birth`, its certificate and chain stored as `birth.chain`. */
  bear(deviceId: string, device: { keys: KeyStore; store: Store }): Promise<void>
  /** The same server without sockets, for tests by the thousand. The client's key possession is taken on trust. */
  direct(): Http
  authorities: { server: TestAuthority; birth: TestAuthority; operational: TestAuthority; stranger: TestAuthority }
  close(): Promise<void>
}

interface Answer {
  status: number
  headers: Record<string, string>
  body: Bytes
}

const text = (status: number, body: string, headers: Record<string, string> = {}): Answer => ({
  status,
  headers: { 'content-type': 'text/plain', ...headers },
  body: utf8Bytes(body),
})

const certsOnly = (certificates: Bytes[]): Answer => ({
  status: 200,
  headers: { 'content-type': 'application/pkcs7-mime; smime-type=certs-only' },
  body: utf8Bytes(encodeBase64(encodeCertsOnly(certificates), 64)),
})

const deviceName = (id: string): Bytes =>
  encodeName([
    { oid: COMMON_NAME, value: id },
    { oid: SERIAL_NUMBER, value: id },
  ])

const csrOf = (body: Bytes): Bytes | null => {
  try {
    return decodeBase64(body, 16384)
  } catch {
    return null
  }
}

const freshSpki = (): Bytes => {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }))
}

const issuedBy = (certificate: X509Certificate, authority: TestAuthority): boolean =>
  certificate.checkIssued(new X509Certificate(authority.certificate)) &&
  certificate.verify(createPublicKey({ key: Buffer.from(authority.spki), format: 'der', type: 'spki' }))

/** Starts the server on a free port of 127.0.0.1. Close it at the end of the test. */
export async function startTestEst(options: TestEstOptions = {}): Promise<TestEst> {
  const now = options.now ?? (() => Math.floor(Date.now() / 1000))
  const lifetime = options.lifetimeSeconds ?? 30 * 86400
  const serverRoot = testAuthority('Test Server Root')
  const birth = testAuthority('Test Manufacturer')
  const root = testAuthority('Test Operational Root')
  const operational = root.subordinate('Test Operational Issuer')
  const stranger = testAuthority('Stranger')

  const requests: SeenRequest[] = []
  const faults: Record<EstOperation, Fault[]> = { cacerts: [], simpleenroll: [], simplereenroll: [], time: [] }
  const revoked = new Set<string>()
  const quarantined = new Set<string>()
  const byRequest = new Map<string, Bytes>()
  let renewAfter: string | null = null

  const clockKey = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const clockSpki = clockKey.publicKey.export({ type: 'spki', format: 'der' })
  let firstTime: Bytes | null = null

  const timeAnswer = (path: string, fault: Fault | undefined): Answer => {
    const nonce = /\?nonce=((?:[0-9a-f]{2}){16,32})$/.exec(path)?.[1]
    if (nonce === undefined) return text(400, 'request_malformed: no nonce')
    const lying = fault?.fault === 'lying' ? fault : null
    const key = lying && !lying.signed ? generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey : clockKey.privateKey
    const header = sign1Header(-7)
    const payload = encodeTime('test', bytesOfHex(nonce), lying ? lying.at : Math.floor(now()))
    const signature = sign('sha256', timeToBeSigned(header, payload), { key, dsaEncoding: 'ieee-p1363' })
    const keyId = new Uint8Array(createHash('sha256').update(clockSpki).digest().subarray(0, 8))
    const body = encodeSign1(header, keyId, payload, new Uint8Array(signature))
    firstTime ??= body
    return {
      status: 200,
      headers: { 'content-type': 'application/cose; cose-type="cose-sign1"' },
      body: fault?.fault === 'replayed' ? firstTime : body,
    }
  }

  const issue = (authority: TestAuthority, id: string, spki: Bytes) =>
    authority.issue({
      profile: 'client',
      subject: deviceName(id),
      spki,
      notBefore: now() - 60,
      notAfter: now() + lifetime,
      extensions: options.membership ? [encodeFleetExtension(options.membership)] : [],
    })

  /** Who asks, by the certificate that TLS proved or the secret, or the refusal. */
  const authenticate = (
    operation: EstOperation,
    client: X509Certificate | null,
    authorization: string | null,
  ): { id: string } | Answer => {
    const id = client && /^(?:serialNumber|CN)=(.+)$/m.exec(client.subject)?.[1]
    if (client && id && issuedBy(client, operation === 'simpleenroll' ? birth : operational))
      return Date.parse(client.validTo) / 1000 >= now() ? { id } : text(401, 'certificate_expired: enroll again')
    if (operation === 'simpleenroll' && authorization) {
      const [user, password] = Buffer.from(authorization.replace(/^Basic /, ''), 'base64')
        .toString()
        .split(':')
      if (options.secrets && Object.hasOwn(options.secrets, user) && options.secrets[user] === password) return { id: user }
    }
    return text(
      401,
      'credentials_required: a certificate or a secret',
      options.secrets ? { 'www-authenticate': 'Basic realm="est"' } : {},
    )
  }

  const enroll = (operation: EstOperation, seen: SeenRequest, client: X509Certificate | null, fault: Fault | undefined): Answer => {
    if (!seen.csr) return text(400, 'csr_malformed: not base64')
    const csr = parseCsr(seen.csr)
    const key = createPublicKey({ key: Buffer.from(csr.spki), format: 'der', type: 'spki' })
    if (!verify('sha256', csr.info, key, csr.signature)) return text(400, 'csr_signature: possession is not proven')
    const peer = authenticate(operation, client, seen.authorization)
    if (!('id' in peer)) return peer
    if (revoked.has(peer.id)) return text(403, 'device_revoked: ask the operator')
    if (quarantined.has(peer.id)) return text(403, 'device_quarantined: an operator may still lift it')
    const shown = client ? parseCertificate(new Uint8Array(client.raw)).subject : deviceName(peer.id)
    if (!equalBytes(csr.subject, deviceName(peer.id)) && !equalBytes(csr.subject, shown))
      return text(403, 'subject_not_own: ask for your own name')
    if (fault?.fault === 'wrong-key') return certsOnly([issue(operational, peer.id, freshSpki()), operational.certificate])
    if (fault?.fault === 'wrong-ca') return certsOnly([issue(stranger, peer.id, csr.spki), stranger.certificate])
    if (fault?.fault === 'wrong-name') return certsOnly([issue(operational, 'another', csr.spki), operational.certificate])
    const name = hexOf(csr.der)
    const certificate = byRequest.get(name) ?? issue(operational, peer.id, csr.spki)
    byRequest.set(name, certificate)
    const out = certsOnly([certificate, operational.certificate])
    if (renewAfter !== null) out.headers['renew-after'] = renewAfter
    return out
  }

  /** Null: cut the connection. */
  const answer = (request: HttpRequest, client: X509Certificate | null): { answer: Answer | null; fault: Fault | undefined } => {
    const [, label, est] = /^\/\.well-known\/est\/(?:([^/]+)\/)?(cacerts|simpleenroll|simplereenroll)$/.exec(request.path) ?? []
    const operation = request.path.startsWith('/.well-known/birthmark/time') ? 'time' : est
    if (!operation) return { answer: text(404, 'no such operation'), fault: undefined }
    const fault = faults[operation as EstOperation].shift()
    const seen: SeenRequest = {
      operation: operation as EstOperation,
      label: label ?? null,
      csr: null,
      client: client && client.subject,
      authorization: request.headers.authorization ?? null,
      status: 0,
    }
    requests.push(seen)
    if (fault?.fault === 'cut') return { answer: null, fault }
    if (request.body) seen.csr = csrOf(request.body)
    let out: Answer
    if (fault?.fault === 'answer')
      out = {
        status: fault.status,
        headers: fault.headers ?? {},
        body: typeof fault.body === 'string' ? utf8Bytes(fault.body) : (fault.body ?? new Uint8Array(0)),
      }
    else if (fault?.fault === 'pending') out = text(202, 'wait for a person', { 'retry-after': fault.retryAfter })
    else if (fault?.fault === 'empty') out = certsOnly([])
    else if (seen.operation === 'time') out = timeAnswer(request.path, fault)
    else if (seen.operation === 'cacerts') out = certsOnly([root.certificate, operational.certificate])
    else out = enroll(seen.operation, seen, client, fault)
    if (fault?.fault === 'lost-reply') return { answer: null, fault }
    if (fault?.fault === 'gzip')
      out = {
        status: out.status,
        headers: { ...out.headers, 'content-encoding': 'gzip' },
        body: new Uint8Array(gzipSync(out.body)),
      }
    seen.status = out.status
    return { answer: out, fault }
  }

  const leafKey = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const leaf = serverRoot.issue({
    profile: 'server',
    subject: encodeName([{ oid: COMMON_NAME, value: 'Test EST Server' }]),
    spki: new Uint8Array(leafKey.publicKey.export({ type: 'spki', format: 'der' })),
    notBefore: 1577836800,
    notAfter: neverExpires,
    extensions: [loopbackNames()],
  })
  const sockets = new Set<Duplex>()
  const server = createServer(
    {
      key: leafKey.privateKey.export({ type: 'pkcs8', format: 'pem' }),
      cert: new X509Certificate(leaf).toString(),
      requestCert: true,
      // Who the client is gets decided by the operation it asks for, as in a real registrar.
      rejectUnauthorized: false,
    },
    (incoming, outgoing) => {
      const parts: Bytes[] = []
      incoming.on('data', part => parts.push(part))
      incoming.on('end', () => {
        const headers: Record<string, string> = {}
        for (const [name, value] of Object.entries(incoming.headers)) headers[name] = String(value)
        const peer = (incoming.socket as TLSSocket).getPeerX509Certificate() ?? null
        const request = {
          method: incoming.method ?? '',
          path: incoming.url ?? '',
          headers,
          body: concatBytes(parts),
          bodyBytesMax: 0,
          timeoutSeconds: 0,
        }
        // As libest's server, which knows no chunked request: a client that leaves the length out works with some servers only.
        const measured = incoming.method !== 'POST' || headers['content-length'] === String(request.body.length)
        const { answer: out, fault } = measured ? answer(request, peer) : { answer: text(411, 'length_required'), fault: undefined }
        if (!out) return void incoming.socket.destroy()
        if (fault?.fault === 'huge') {
          outgoing.writeHead(out.status, out.headers)
          outgoing.write(out.body)
          const block = Buffer.alloc(65536, 0x20)
          let left = fault.bytes
          const pour = () => {
            while (left > 0 && !outgoing.destroyed) {
              left -= block.length
              if (!outgoing.write(block)) return void outgoing.once('drain', pour)
            }
            outgoing.end()
          }
          return pour()
        }
        if (fault?.fault === 'drip') {
          outgoing.writeHead(out.status, out.headers)
          const timer = setInterval(() => outgoing.write(' '), 20)
          return void outgoing.on('close', () => clearInterval(timer))
        }
        // A fault's own Content-Length wins.
        outgoing.writeHead(out.status, { 'content-length': out.body.length, ...out.headers })
        outgoing.end(out.body)
      })
    },
  )
  server.on('connection', socket => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => {})
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))

  return {
    url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    trust: { server: serverRoot.pem, birth: birth.pem, operational: root.pem },
    time: { fleet: 'test', signers: [clockKey.publicKey.export({ type: 'spki', format: 'pem' }).toString()] },
    requests,
    issued: () => byRequest.size,
    fail: (operation, ...more) => void faults[operation].push(...more),
    renewAfter: seconds => {
      renewAfter = seconds
    },
    revoke: id => void revoked.add(id),
    quarantine: id => void quarantined.add(id),
    release: id => {
      revoked.delete(id)
      quarantined.delete(id)
    },
    bear: (id, { keys, store }) =>
      new Promise((resolve, reject) => {
        keys.generate('birth', (error, spki) => {
          if (error || !spki) return reject(error)
          const subject = encodeName([{ oid: SERIAL_NUMBER, value: id }])
          store.put('birth.chain', birth.issue({ profile: 'birth', subject, spki, notBefore: 1577836800, notAfter: neverExpires }))
          resolve()
        })
      }),
    direct: () => ({
      request(request, tls, done) {
        let given = false
        const { answer: out, fault } = answer(request, tls.chain.length ? new X509Certificate(tls.chain[0]) : null)
        const failed = (code: DeviceErrorCode) => done(deviceError(code, 'direct'), null)
        setImmediate(() => {
          if (given) return
          if (!out || fault?.fault === 'huge' || fault?.fault === 'drip') return failed('network')
          done(null, out satisfies HttpResponse)
        })
        return () => {
          given = true
        }
      },
    }),
    authorities: { server: serverRoot, birth, operational, stranger },
    close: () =>
      new Promise(resolve => {
        for (const socket of sockets) socket.destroy()
        server.close(() => resolve())
      }),
  }
}
