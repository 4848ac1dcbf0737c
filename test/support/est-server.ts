// The real server on a free port of the loopback: a store of its own, the real enrollment, the real listener. Tests hold the
// switches: who is revoked, how the limits stand, what was signed.

import { randomBytes, randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Bytes, decodePem, encodePem, type Membership } from '@birthmark/device-sdk/core'
import {
  createEnrollment,
  createListener,
  createProxies,
  createRegistry,
  createServerKeys,
  type Enrollment,
  enrollmentProfile,
  keySigner,
  type Limits,
  type Listener,
  type ListenerTls,
  type Log,
  openSqliteStore,
  type ProfileOptions,
  type ProxyRule,
  type Registry,
  type Store,
  softwareIssuer,
} from '@birthmark/est-server'
import { generateSigningKey, makeAuthority, neverExpires } from '@birthmark/factory-line'
import { moment, type ServerIdentity, serverIdentity, type TestDevice } from './devices.ts'

export interface TestServer {
  port: number
  url: string
  identity: ServerIdentity
  /** PEM of the CA that issues, and of its root. */
  issuerPem: string
  issuerRootPem: string
  enrollment: Enrollment
  listener: Listener
  registry: Registry
  store: Store
  /** Signatures the issuing key made. */
  signatures(): number
  /** What the rule set says from now on. */
  setStatus(status: (membership: Membership) => 'good' | 'revoked' | 'unknown'): void
  /** Lines at level warn and error. */
  alarms: { fields: object; message: string }[]
  stop(): Promise<void>
}

export interface TestServerOptions {
  devices?: Pick<TestDevice, 'manifest'>[]
  limits?: Partial<Limits>
  tls?: Partial<ListenerTls>
  admitSecrets?: boolean
  supersedesMax?: number
  profile?: Partial<ProfileOptions>
  proxies?: ProxyRule[]
  /** Further routes. */
  routes?: (app: Listener['app']) => void
  /** Opens another store than SQLite in a temporary folder; it is closed with the server. */
  store?: (folder: string) => Promise<Store>
}

export const fleet = 'test'

export async function startEstServer(
  maker: { root: { certificate: Bytes } },
  options: TestServerOptions = {},
): Promise<TestServer> {
  const folder = mkdtempSync(join(tmpdir(), 'birthmark-est-'))
  const identity = await serverIdentity()
  const clock = { now: () => Date.now() / 1000 }
  const random = (length: number) => randomBytes(length)
  const alarms: TestServer['alarms'] = []
  const alarm = (fields: object, message: string) => alarms.push({ fields, message })
  const log: Log = { info: () => {}, warn: alarm, error: alarm }
  const root = await makeAuthority(
    { name: { commonName: 'Test operational root' }, pathLength: 1, notAfter: neverExpires },
    generateSigningKey().key,
    null,
    moment,
  )
  const issuing = generateSigningKey()
  const authority = await makeAuthority(
    { name: { commonName: 'Test operational CA' }, pathLength: 0, notAfter: neverExpires },
    issuing.key,
    root,
    moment,
  )
  const issuer = softwareIssuer({ certificate: authority.certificate, chain: [root.certificate], privateKeyPem: issuing.pem })
  let signatures = 0
  let status: (membership: Membership) => 'good' | 'revoked' | 'unknown' = () => 'good'
  const store = await (options.store?.(folder) ?? openSqliteStore({ path: join(folder, 'est.db') }))
  const registry = createRegistry({ store, fleet, clock, random })
  const enrollment = createEnrollment({
    store,
    issuer: {
      ...issuer,
      sign: tbs => {
        signatures++
        return issuer.sign(tbs)
      },
    },
    profiles: [
      enrollmentProfile({
        fleet,
        birthAnchors: [maker.root.certificate],
        lifetimeSeconds: 86_400,
        admitSecrets: options.admitSecrets ?? false,
        ...(options.supersedesMax !== undefined && { supersedesMax: options.supersedesMax }),
        ...options.profile,
      }),
    ],
    status: membership => status(membership),
    clock,
    random,
    log,
  })
  if (options.devices)
    await registry.importManifest(
      options.devices.map(device => device.manifest),
      'test',
    )
  const listener = createListener({
    tls: { key: identity.key, cert: identity.cert, ...options.tls },
    enrollment: {
      ...enrollment,
      generateKey: createServerKeys({
        enrollment,
        signer: keySigner(decodePem(String(identity.cert), 'CERTIFICATE', 4), String(identity.key)),
        ...{ random, log },
      }).generate,
    },
    // A test is one address that opens as many connections as it likes.
    limits: { connectionBurstPerAddress: 10_000, connectionsPerAddressMax: 1024, ...options.limits },
    log,
    ...(options.proxies && { proxies: createProxies(options.proxies, clock) }),
    requestId: () => randomUUID(),
  })
  options.routes?.(listener.app)
  const { port } = await listener.listen('127.0.0.1', 0)
  return {
    port,
    url: `https://localhost:${port}`,
    identity,
    issuerPem: encodePem('CERTIFICATE', authority.certificate),
    issuerRootPem: encodePem('CERTIFICATE', root.certificate),
    enrollment,
    listener,
    registry,
    store,
    signatures: () => signatures,
    setStatus: f => {
      status = f
    },
    alarms,
    async stop() {
      await listener.close(1000)
      await store.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
