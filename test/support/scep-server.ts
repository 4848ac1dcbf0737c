// A real SCEP server on a free port of the loopback: SQLite in a folder of its own, the real enrollment, the real RA in its thread, the real
// listener. Tests hold the switches: the clock, who is revoked, what the profile says.

import { generateKeyPairSync, type KeyObject, randomBytes, randomUUID } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Bytes, decodePem, parseCertificate } from '@birthmark/device-sdk/core'
import { type TestAuthority, testAuthority } from '@birthmark/device-sdk/testing'
import {
  type Approvals,
  type Challenges,
  createApprovals,
  createChallenges,
  createEnrollment,
  createLoopTurns,
  createRegistry,
  createScep,
  createScepListener,
  type Enrollment,
  enrollmentProfile,
  type Limits,
  type Log,
  type LoopTurns,
  openSqliteStore,
  type ProfileOptions,
  type RaKey,
  type Registry,
  type ScepOptions,
  type ScepService,
  type Store,
  softwareIssuer,
  softwareRa,
} from '@birthmark/est-server'
import { makeRa, type RaPair } from '../../packages/birthmark/src/ra-certificate.ts'
import {
  type CertRep,
  readCertRep,
  type ScepKey,
  type ScepMessageForm,
  scepCsr,
  scepMessage,
  selfSigned,
  signerOf,
} from './scep-client.ts'

export interface ScepServerOptions {
  profile?: Partial<ProfileOptions>
  more?: Partial<ProfileOptions>[]
  limits?: Partial<Limits>
  /** As in ScepOptions. */
  scep?: Partial<Pick<ScepOptions, 'crl' | 'nextCertificates' | 'nextRa' | 'previousRas' | 'webhook'>>
  /** Where another server left off: its folder, CA and RA. */
  of?: ScepState
  /** Of the issuing CA's key. */
  issuer?: 'P-256' | 'RSA-2048'
  /** As SoftwareRaOptions.nice; 0 unless told. */
  nice?: number
  /** Of both doors. */
  loopTurns?: LoopTurns
  ra?: (ra: RaKey, pair: RaPair) => RaKey | Promise<RaKey>
  enrollment?: (enrollment: Enrollment) => Pick<Enrollment, 'enroll' | 'caCertificates'>
  host?: string
}

/** What outlives a server; it can be sent to another process. */
export interface ScepState {
  folder: string
  root: Pick<TestAuthority, 'certificate' | 'pem'>
  issuing: Pick<TestAuthority, 'certificate' | 'pem' | 'privateKeyPem' | 'spki'>
  raPair: RaPair
}

export interface ScepServer extends ScepState {
  port: number
  /** Without a path. */
  url: string
  issuing: TestAuthority
  ra: ScepMessageForm['ra'] & { der: Bytes }
  store: Store
  registry: Registry
  challenges: Challenges
  approvals: Approvals
  enrollment: Enrollment
  service: ScepService
  clock: { now(): number; ahead: number }
  /** Signatures of the issuing key. */
  signatures(): number
  revoke(deviceIdx: (idx: number) => boolean): void
  logged: { fields: Record<string, unknown>; message: string }[]
  /** A challenge for a device, under the profile without a label unless told. */
  challenge(device: string, label?: string | null, lifetimeSeconds?: number): Promise<string>
  /** By POST; the answer's body. */
  post(message: Bytes, path?: string): Promise<{ status: number; type: string; body: Bytes }>
  /** Sends a message and reads the answer. */
  ask(message: Bytes, privateKey: KeyObject | null, path?: string): Promise<CertRep>
  /** A PKCSReq of `device` with whatever differs. */
  request(device: string, challenge: string | null, key?: ScepKey, form?: Partial<ScepMessageForm>): ReturnType<typeof scepMessage>
  /** Whether a file of the store or a line of the log has the text in it. */
  holds(text: string): boolean
  audit(): Promise<{ kind: string; code: string; device: string; detail: string }[]>
  /** `keep`: leave the folder for a next server. */
  stop(keep?: boolean): Promise<void>
}

export const scepFleet = 'routers'

export function rsaKey(bits = 2048): ScepKey {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: bits })
  return { spki: publicKey.export({ type: 'spki', format: 'der' }), privateKey }
}

export async function startScepServer(options: ScepServerOptions = {}): Promise<ScepServer> {
  const folder = options.of?.folder ?? mkdtempSync(join(tmpdir(), 'birthmark-scep-'))
  const clock = { ahead: 0, now: () => Date.now() / 1000 + clock.ahead }
  const random = (length: number) => randomBytes(length)
  const logged: ScepServer['logged'] = []
  const note = (fields: object, message: string) => void logged.push({ fields: { ...fields }, message })
  const log: Log = { info: note, warn: note, error: note }
  const fresh = testAuthority('Router root')
  const root = options.of?.root ?? fresh
  const made = fresh.subordinate('Router CA', options.issuer ?? 'P-256')
  const issuing: TestAuthority = options.of ? { ...made, ...options.of.issuing } : made
  const loopTurns = options.loopTurns ?? createLoopTurns()
  const key = softwareIssuer({
    certificate: issuing.certificate,
    chain: [root.certificate],
    privateKeyPem: issuing.privateKeyPem,
    log,
    loopTurns,
  })
  let signatures = 0
  const issuer: typeof key = {
    ...key,
    sign: (tbs, patient) => {
      signatures++
      return key.sign(tbs, patient)
    },
  }
  const store = await openSqliteStore({ path: join(folder, 'scep.db') })
  const base = { fleet: scepFleet, birthAnchors: [], lifetimeSeconds: 30 * 86_400, scep: {} }
  const profiles = [options.profile ?? {}, ...(options.more ?? [])].map(more => enrollmentProfile({ ...base, ...more }))
  let revoked: (idx: number) => boolean = () => false
  const status = ({ idx }: { idx: number }) => (revoked(idx) ? 'revoked' : 'good') as 'revoked' | 'good'
  const enrollment = createEnrollment({ store, issuer, profiles, status, clock, random, log, loopTurns })
  const signer = {
    certificate: issuing.certificate,
    key: { spki: issuing.spki, algorithm: issuer.algorithm, sign: async (message: Bytes) => key.sign(message) },
  }
  const raPair = options.of?.raPair ?? (await makeRa(signer, { organization: 'Routers' }, Math.floor(Date.now() / 1000), random))
  const software = softwareRa({
    certificate: raPair.certificate,
    privateKeyPem: raPair.key,
    nice: options.nice ?? 0,
    log,
    loopTurns,
  })
  const service = createScep({
    ...{
      ra: options.ra ? await options.ra(software, raPair) : software,
      profiles,
      issuers: () => [{ subject: issuer.certificate.subject, keyId: issuer.keyId }],
      store,
      status,
      clock,
      random,
      log,
      loopTurns,
    },
    enrollment: options.enrollment ? options.enrollment(enrollment) : enrollment,
    ...options.scep,
  })
  const listener = createScepListener({
    service,
    limits: {
      connectionBurstPerAddress: 20_000,
      connectionsPerSecondPerAddress: 20_000,
      connectionsPerAddressMax: 1024,
      ...options.limits,
    },
    log,
    requestId: () => randomUUID(),
  })
  const host = options.host ?? '127.0.0.1'
  const { port } = await listener.listen(host, 0)
  const url = `http://127.0.0.1:${port}`
  const [der] = decodePem(raPair.certificate, 'CERTIFICATE', 1)
  const { issuer: raIssuer, serial, spki } = parseCertificate(der)
  const ra = { issuer: raIssuer, serial, spki, der }
  const challenges = createChallenges({ store, fleet: scepFleet, clock, random })
  const post: ScepServer['post'] = async (message, path = '/scep') => {
    const response = await fetch(`${url}${path}?operation=PKIOperation`, { method: 'POST', body: Buffer.from(message) })
    const body = new Uint8Array(await response.arrayBuffer())
    return { status: response.status, type: response.headers.get('content-type') ?? '', body }
  }
  return {
    ...{ port, url, root, issuing, raPair, ra, store, challenges, enrollment, service, folder, clock, logged, post },
    approvals: createApprovals({ store, fleet: scepFleet, clock }),
    registry: createRegistry({ store, fleet: scepFleet, clock, random }),
    signatures: () => signatures,
    revoke: f => {
      revoked = f
    },
    async challenge(device, label = null, lifetimeSeconds = 3600) {
      const { minted, refused } = await challenges.mint({ label, rows: [{ deviceId: device }], lifetimeSeconds, by: 'test' })
      if (minted.length !== 1) throw new Error(refused[0]?.reason)
      return minted[0].challenge
    },
    async ask(message, privateKey, path) {
      const { status: http, body } = await post(message, path)
      if (http !== 200) throw new Error(`HTTP ${http}: ${Buffer.from(body).toString()}`)
      return readCertRep(body, der, privateKey)
    },
    request(device, challenge, key = rsaKey(), form = {}) {
      const certificate = selfSigned(key, device)
      return scepMessage({
        ...{ messageType: '19', content: scepCsr(key, device, challenge), ra, signer: signerOf(certificate, key.privateKey) },
        ...form,
      })
    },
    holds: text =>
      JSON.stringify(logged).includes(text) || readdirSync(folder).some(name => readFileSync(join(folder, name)).includes(text)),
    audit: () => store.audit(0, 1000),
    async stop(keep = false) {
      await listener.close(1000)
      await service.close()
      await store.close()
      await key.close?.()
      if (!keep) rmSync(folder, { recursive: true, force: true })
    },
  }
}
