// A whole issuing kernel for tests, without HTTP: a store on disk, an issuer that counts what it signs, a manufacturer, devices that write
// whatever CSR a test wants, and a clock turned by hand.

import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  type Bytes,
  bytesOfHex,
  CHALLENGE_PASSWORD,
  COMMON_NAME,
  csrAssemble,
  csrInfo,
  EXTENSION_REQUEST,
  encodeAttribute,
  encodeElement,
  encodeName,
  encodeSequence,
  hexOf,
  SERIAL_NUMBER,
  UTF8_STRING,
} from '@birthmark/device-sdk/core'
import { type KeyKind, neverExpires, type TestAuthority, testAuthority } from '@birthmark/device-sdk/testing'
import { type Issuer, softwareIssuer } from '../ca/issuer-key.ts'
import { createEnrollment, type Enrollment, type EnrollmentOptions } from '../enrollment.ts'
import type { EnrollmentOutcome, EnrollmentRequest, Peer } from '../enrollment-request.ts'
import { createRegistry, type Registry } from '../fleet/registry.ts'
import type { IssuerSet } from '../issuer-set.ts'
import { sha256 } from '../node-crypto.ts'
import type { Log } from '../ports.ts'
import { enrollmentProfile, type ProfileOptions } from '../registrar/profile.ts'
import { createRevocation, type Revocation } from '../revocation.ts'
import { openSqliteStore, type SqliteStoreOptions } from '../store/sqlite.ts'
import type { AuditRecord, GroupRule, Store } from '../store/store.ts'

export const fleet = 'meters'
export const start = 1_800_000_000

export interface TestKey {
  spki: Bytes
  algorithm: string
  privateKey: KeyObject
}

export function testKey(kind: 'P-256' | 'P-384' | 'Ed25519' | 'RSA' = 'P-256', rsaBits = 2048, publicExponent = 65537): TestKey {
  const { privateKey } =
    kind === 'Ed25519'
      ? generateKeyPairSync('ed25519')
      : kind === 'RSA'
        ? generateKeyPairSync('rsa', { modulusLength: rsaBits, publicExponent })
        : generateKeyPairSync('ec', { namedCurve: kind })
  const algorithm = { 'P-256': 'ecdsa-sha256', 'P-384': 'ecdsa-sha384', Ed25519: 'ed25519', RSA: 'rsa-pkcs1-sha256' }[kind]
  return keyOf(privateKey, algorithm)
}

export function keyOf(privateKey: KeyObject, algorithm: string): TestKey {
  return { spki: new Uint8Array(createPublicKey(privateKey).export({ type: 'spki', format: 'der' })), algorithm, privateKey }
}

export interface CsrContent {
  /** DER Name; by default CN = the device id. */
  subject?: Bytes
  /** DER Extensions to ask for. */
  extensions?: Bytes[]
  challengePassword?: string
  /** Who signs, when it is not the key itself. */
  signer?: TestKey
}

export function nameOf(commonName: string, serialNumber?: string): Bytes {
  const more = serialNumber === undefined ? [] : [{ oid: SERIAL_NUMBER, value: serialNumber }]
  return encodeName([{ oid: COMMON_NAME, value: commonName }, ...more])
}

export function csrFor(key: TestKey, subject: Bytes, content: CsrContent = {}): Bytes {
  const attributes: Bytes[] = []
  if (content.extensions) attributes.push(encodeAttribute(EXTENSION_REQUEST, [encodeSequence(content.extensions)]))
  if (content.challengePassword !== undefined)
    attributes.push(encodeAttribute(CHALLENGE_PASSWORD, [encodeElement(UTF8_STRING, [Buffer.from(content.challengePassword)])]))
  const info = csrInfo(content.subject ?? subject, key.spki, attributes)
  const signer = content.signer ?? key
  const digest = /sha\d+$/.exec(signer.algorithm)?.[0] ?? null
  return csrAssemble(info, signer.algorithm, new Uint8Array(sign(digest, info, signer.privateKey)))
}

export interface TestDevice {
  id: string
  birthKey: TestKey
  birth: Bytes
  /** A new connection with the birth certificate. */
  peer(): Peer
}

export const peerWith = (chain: Bytes[] | null, more: Partial<Peer> = {}): Peer => ({
  ...{ chain, basic: null, address: '192.0.2.1', tlsVersion: 'TLSv1.3', resumed: false },
  ...more,
})

export interface KernelOptions
  extends Partial<Pick<EnrollmentOptions, 'status' | 'random' | 'lints' | 'failpoint' | 'tokens' | 'webhook' | 'loopTurns'>> {
  folder?: string
  profile?: Partial<ProfileOptions>
  more?: ProfileOptions[]
  issuer?: (issuer: Issuer) => Issuer
  /** In place of one issuer: those of a roll-over. */
  issuers?: (store: Store, clock: Kernel['clock'], log: Log) => Promise<IssuerSet>
  /** The issuing CA's key, P-256 unless told. */
  issuerKind?: KeyKind
  storeOptions?: Partial<SqliteStoreOptions>
  /** Something between the story and the store. */
  between?: (store: Store) => Store
  /** Authorities of an earlier kernel, to go on with its folder. */
  of?: Kernel
  /** PEM and DER of authorities made in another process. */
  authorities?: { root: TestAuthority; maker: TestAuthority; issuer: TestAuthority }
}

export interface Kernel {
  clock: { at: number; now(): number }
  store: Store
  enrollment: Enrollment
  registry: Registry
  revocation: Revocation
  issuer: Issuer
  root: TestAuthority
  maker: TestAuthority
  ca: TestAuthority
  folder: string
  logged: { level: string; fields: Record<string, unknown>; message: string }[]
  signatures(): number
  /** A device in the manifest. */
  device(id: string, groups?: string[]): Promise<TestDevice>
  /** A device that is in no manifest. */
  bear(id: string, key?: TestKey): TestDevice
  enroll(peer: Peer, csr: Bytes, more?: Partial<EnrollmentRequest>): Promise<EnrollmentOutcome>
  audit(): Promise<AuditRecord[]>
  close(): Promise<void>
  remove(): Promise<void>
}

let requests = 0

export async function kernel(options: KernelOptions = {}): Promise<Kernel> {
  const folder = options.folder ?? options.of?.folder ?? mkdtempSync(join(tmpdir(), 'birthmark-kernel-'))
  const root = options.authorities?.root ?? options.of?.root ?? testAuthority('Maker root')
  const maker = options.authorities?.maker ?? options.of?.maker ?? root.subordinate('Maker devices')
  const ca = options.authorities?.issuer ?? options.of?.ca ?? testAuthority('Operational CA', options.issuerKind)
  const clock = { at: options.of?.clock.at ?? start, now: () => clock.at }
  const logged: Kernel['logged'] = []
  const level = (name: string) => (fields: object, message: string) =>
    void logged.push({ level: name, fields: { ...fields }, message })
  const log: Log = { info: level('info'), warn: level('warn'), error: level('error') }
  const opened = await openSqliteStore({ path: join(folder, 'store.db'), ...options.storeOptions })
  const store = options.between ? options.between(opened) : opened
  let signatures = 0
  const real = softwareIssuer({ certificate: ca.certificate, privateKeyPem: ca.privateKeyPem })
  const counted: Issuer = {
    ...real,
    sign(tbs) {
      signatures++
      return real.sign(tbs)
    },
  }
  const issuer = options.issuer ? options.issuer(counted) : counted
  const profile = { fleet, birthAnchors: [root.certificate], lifetimeSeconds: 86_400, ...options.profile }
  let rules: GroupRule[] = await store.rules(fleet)
  const issuers = (await options.issuers?.(store, clock, log)) ?? issuer
  const enrollment = createEnrollment({
    ...{ store, issuer: issuers, clock, log, random: options.random ?? (n => new Uint8Array(randomBytes(n))) },
    profiles: [enrollmentProfile(profile), ...(options.more ?? []).map(enrollmentProfile)],
    status: options.status ?? (m => (rules.some(rule => m.gids.includes(rule.gid) && m.idx < rule.bound) ? 'revoked' : 'good')),
    ...(options.lints ? { lints: options.lints } : {}),
    ...(options.failpoint ? { failpoint: options.failpoint } : {}),
    ...(options.tokens ? { tokens: options.tokens } : {}),
    ...(options.webhook ? { webhook: options.webhook } : {}),
    ...(options.loopTurns ? { loopTurns: options.loopTurns } : {}),
  })
  const plain = createRevocation({
    ...{ store, fleet, clock, log },
    signNotice: async input => {
      const text = JSON.stringify({ ...input, previousSha256: input.previousSha256 && hexOf(input.previousSha256) })
      return { notice: Buffer.from(text), sha256: sha256(Buffer.from(text)) }
    },
  })
  const revocation: Revocation = {
    ...plain,
    async revokeGroup(request) {
      const done = await plain.revokeGroup(request)
      rules = await plain.rules()
      return done
    },
  }
  const registry = createRegistry({ store, fleet, clock, random: n => new Uint8Array(randomBytes(n)) })
  const bear = (id: string, birthKey = testKey()): TestDevice => {
    const subject = nameOf('Meter model 7', id)
    const birth = maker.issue({
      profile: 'birth',
      subject,
      spki: birthKey.spki,
      notBefore: start - 86_400 * 1000,
      notAfter: neverExpires,
    })
    return { id, birthKey, birth, peer: () => peerWith([birth, maker.certificate]) }
  }
  return {
    ...{ clock, store, enrollment, registry, revocation, issuer, root, maker, ca, folder, logged, bear },
    signatures: () => signatures,
    async device(id, groups = ['batch=1']) {
      const device = bear(id)
      const entry = { serial: id, spkiSha256: hexOf(sha256(device.birthKey.spki)), groups, keyOrigin: 'device' as const }
      const report = await registry.importManifest([entry], 'test')
      if (report.refusedCount > 0) throw new Error(report.refused[0].reason)
      return device
    },
    enroll: (peer, csr, more = {}) =>
      enrollment.enroll({ operation: 'enroll', label: null, csr, peer, requestId: `request-${++requests}`, ...more }),
    audit: () => store.audit(0, 1000),
    close: () => store.close(),
    async remove() {
      await store.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** The certificate of an outcome that is expected to be one. */
export function issuedBy(outcome: EnrollmentOutcome): Bytes {
  if (outcome.kind !== 'issued') throw new Error(`not issued: ${JSON.stringify(outcome)}`)
  return outcome.certificate
}

/** The twin of an ECDSA-signed certificate: (r, n − s) in place of (r, s). It verifies, and its hash is another. */
export function malleatedTwin(der: Bytes): Bytes {
  const order = BigInt('0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551')
  const bitString = Buffer.from(der).lastIndexOf(Buffer.from('06082a8648ce3d040302', 'hex')) + 10
  const signature = bitString + 3
  const rEnd = signature + 4 + der[signature + 3]
  const s = BigInt(`0x${hexOf(der.subarray(rEnd + 2))}`)
  const twin = (order - s).toString(16)
  const octets = bytesOfHex(twin.length % 2 ? `0${twin}` : twin)
  const integer = encodeElement(2, octets[0] >= 0x80 ? [new Uint8Array(1), octets] : [octets])
  const sequence = encodeSequence([der.subarray(signature + 2, rEnd), integer])
  const whole = Buffer.concat([der.subarray(4, bitString), encodeElement(3, [new Uint8Array(1), sequence])])
  return encodeElement(0x30, [whole])
}
