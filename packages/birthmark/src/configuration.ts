// `birthmark.yaml`: parsed once, judged whole, every complaint with its line. After this the program deals in settings and never looks
// at files, environment or defaults again.

import { createPrivateKey, createPublicKey, type KeyObject, X509Certificate } from 'node:crypto'
import { dirname, resolve } from 'node:path'
import { type Bytes, decodePem } from '@birthmark/device-sdk/core'
import { type EnrollmentProfile, enrollmentProfile, forwardingHeaders, type ProxyRule } from '@birthmark/est-server'
import type { ServiceRole } from '@birthmark/fleet-revocation/broker'
import { z } from 'zod'
import { CommandError } from './command-error.ts'
import { fromDisk, type ReadFile } from './configuration-files.ts'
import { type CountersignAbove, CountersignInput } from './countersigning.ts'
import {
  type FileReader,
  IssuerConfiguration,
  type IssuerSettings,
  type SignerSettings,
  settleIssuer,
  settleSigner,
  signer,
} from './issuer-settings.ts'
import { type MaybePair, type MosquittoSettings, settleMosquitto } from './mosquitto-settings.ts'
import { ProfilesConfiguration, settleProfiles } from './profile-settings.ts'
import { RevocationConfiguration, type RevocationSettings, settleRevocation } from './revocation-settings.ts'
import { StatusConfiguration, type StatusSettings, settleStatus } from './status-settings.ts'
import { StoreConfiguration, type StoreSettings, settleStore } from './store-settings.ts'
import { judged, parseYaml, wrong, type YamlDocument } from './yaml-document.ts'

/** In every certificate that `birthmark dev` makes, so that `serve` and people know it. */
export const developmentOrganization = 'Birthmark development, not for production'

export interface Settings {
  fleet: string
  /** Folder of the store and the admin socket. */
  state: string
  development: boolean
  est: { host: string; port: number; certificate: string; key: string; proxies?: ProxyRule[] }
  mqtt: MqttSettings
  /** DER certificates; `birthAnchors` of all profiles together: whose manifests are taken. */
  birthAnchors: Bytes[]
  serverAnchors: Bytes[]
  issuer: IssuerSettings
  /** P-256: the key that signs, then the one that stands by. `countersignAbove`: both sign what revokes more than this. */
  notices: { keys: KeyObject[]; countersignAbove: CountersignAbove | null }
  /** SCEP over plain HTTP; null where it is not offered. `next`: of the issuer to come. `previous`: RAs whose certificates clients still hold. */
  scep: { host: string; port: number; ra: SignerSettings; next: SignerSettings | null; previous: SignerSettings[] } | null
  /** One a label; none has another's label. */
  profiles: EnrollmentProfile[]
  store: StoreSettings
  /** Where Prometheus and load balancers ask; null for nowhere. */
  metrics: { host: string; port: number } | null
  /** Null: certificates name no place to ask. */
  status: StatusSettings | null
  /** Who may take many devices back, and how. */
  revocation: RevocationSettings
  /** Processes that answer devices; 1 for this one alone. */
  workers: number
  logLevel: 'debug' | 'info' | 'warn' | 'error'
}

export type MqttSettings =
  | {
      kind: 'embedded'
      host: string
      port: number
      certificate: string
      key: string
      /** Service certificates under the server's anchors that the broker admits, by common name. */
      services: { [commonName: string]: ServiceRole }
    }
  | {
      kind: 'external'
      url: string
      anchors: string
      certificate: string | null
      key: string | null
      /** Null: what is refused is cut there by the broker's own rules. */
      enforce: MosquittoSettings | null
    }

const Port = z.int().min(1).max(65_535)
const File = z.string().min(1).max(4096)

const Configuration = z.strictObject({
  fleet: z.string().regex(/^[a-z0-9-]{1,32}$/, 'is 1 to 32 of a-z, 0-9 and hyphen'),
  state: File,
  est: z.strictObject({
    host: z.string().min(1).default('0.0.0.0'),
    port: Port.default(8443),
    certificate: File,
    key: File,
    /** Servers that end TLS in front of this one, by their own client certificates. */
    proxies: z
      .array(
        z.strictObject({
          anchors: z.array(File).min(1).max(8),
          names: z
            .array(z.string().regex(/^[A-Za-z0-9._-]{1,253}$/, 'is a DNS or common name'))
            .min(1)
            .max(64),
          /** The one header in which it names its client. */
          header: z.enum(forwardingHeaders),
        }),
      )
      .max(8)
      .default([]),
  }),
  mqtt: z.union(
    [
      z.strictObject({
        host: z.string().min(1).default('0.0.0.0'),
        port: Port.default(8883),
        certificate: File,
        key: File,
        services: z
          .record(z.string().regex(/^[A-Za-z0-9._:@-]{1,64}$/), z.enum(['publisher', 'relying-party', 'observer', 'operator']))
          .default({}),
      }),
      z.strictObject({
        url: z.string().regex(/^mqtts?:\/\/[^\s]+$/, 'is mqtts://host:port'),
        anchors: File,
        certificate: File.optional(),
        key: File.optional(),
        // Judged by itself, so that a mistake inside is not taken for a broker of the other kind.
        enforce: z.unknown().optional(),
      }),
    ],
    { error: 'needs either certificate and key (the embedded broker) or url and anchors (an external one)' },
  ),
  birth: z.strictObject({ anchors: z.array(File).min(1).max(16) }),
  issuer: IssuerConfiguration,
  server: z.strictObject({ anchors: z.array(File).min(1).max(8) }),
  profiles: ProfilesConfiguration.optional(),
  notices: z
    .strictObject({ key: File, standby: File.optional(), countersignAbove: CountersignInput.optional() })
    .refine(({ standby, countersignAbove }) => countersignAbove === undefined || standby !== undefined, {
      message: 'two signatures take two keys: add standby',
      path: ['countersignAbove'],
    }),
  scep: z
    .strictObject({
      host: z.string().min(1).default('0.0.0.0'),
      port: Port.default(8080),
      ...signer,
      // The RA of the issuer that a roll-over prepares, and those before, whose certificates clients still hold.
      next: z.strictObject(signer).optional(),
      previous: z.array(z.strictObject(signer)).max(4).default([]),
      challenge: z.string().optional(),
    })
    .optional(),
  // Ten minutes is the shortest that leaves room to renew at two thirds; ten years is "as long as the product".
  certificates: z
    .strictObject({ lifetime: z.string().regex(/^[1-9]\d{0,4}[mhd]$/, 'is like 90d, 12h or 10m') })
    .default({ lifetime: '90d' }),
  store: StoreConfiguration,
  metrics: z.strictObject({ listen: z.string().min(1).max(300) }).optional(),
  status: StatusConfiguration.optional(),
  revocation: RevocationConfiguration.optional(),
  // A worker takes a core and some 100 MB; what has more than 64 cores wants a database server anyway.
  workers: z.int().min(1).max(64).default(1),
  log: z.strictObject({ level: z.enum(['debug', 'info', 'warn', 'error']) }).default({ level: 'info' }),
})

type Raw = z.infer<typeof Configuration>

/** Reads and judges a configuration. Throws `configuration` with file, line and what is expected there. */
export function readConfiguration(file: string, readFile: ReadFile = fromDisk): Settings {
  let text: string
  try {
    const read = readFile(file)
    // A configuration is a page; a megabyte is something else under the wrong name.
    if (read.bytes > 1_048_576) throw wrong(`${file} is larger than a configuration can be`, 'name the right file')
    text = read.text
  } catch (error) {
    if (error instanceof CommandError) throw error
    throw wrong(`cannot read ${file}`, 'write one with: birthmark init')
  }
  const document = parseYaml(file, text)
  return settle(judged(Configuration, document, document.content), dirname(resolve(file)), document, readFile)
}

/** Follows the file names. Keys that others may read, and certificates made for development, are refused. */
function settle(raw: Raw, base: string, document: YamlDocument, readFile: ReadFile): Settings {
  const { at } = document
  const read = (path: PropertyKey[], file: string): string => readAt(at(path), file)
  const readAt = (where: string, file: string): string => {
    try {
      return readFile(resolve(base, file)).text
    } catch (error) {
      throw wrong(
        `${where}: cannot read ${resolve(base, file)} (${(error as NodeJS.ErrnoException).code})`,
        'put the file there or correct the line',
      )
    }
  }
  const certificates = (path: PropertyKey[], file: string): Bytes[] => certificatesAt(at(path), file)
  const certificatesAt = (where: string, file: string): Bytes[] => {
    const pem = readAt(where, file)
    let found: Bytes[]
    try {
      found = decodePem(pem, 'CERTIFICATE', 16)
      if (found.length === 0) throw new Error('it holds none')
      for (const der of found) {
        const { subject, issuer } = new X509Certificate(der)
        // OpenSSL writes the comma of the organization as `\\,`.
        if (!`${subject}\n${issuer}`.replaceAll('\\', '').includes(developmentOrganization)) continue
        throw new CommandError(
          'development_certificate',
          `${where}: ${file} was made by birthmark dev`,
          'make real ones: birthmark init',
          'refused',
        )
      }
    } catch (error) {
      if (error instanceof CommandError) throw error
      throw wrong(
        `${where}: ${file} holds no usable certificates (${(error as Error).message})`,
        'give PEM certificates, leaf first',
      )
    }
    return found
  }
  const key = (path: PropertyKey[], file: string): string => {
    const pem = read(path, file)
    const { mode } = readFile(resolve(base, file))
    if ((mode & 0o077) !== 0) throw wrong(`${at(path)}: ${file} may be read by others`, `chmod 600 ${resolve(base, file)}`)
    try {
      createPrivateKey(pem)
    } catch {
      throw wrong(`${at(path)}: ${file} holds no private key without a passphrase`, 'give a PKCS#8 PEM key')
    }
    return pem
  }
  const pair = (
    path: PropertyKey[],
    files: { certificate: string; key: string },
  ): { certificate: string; key: string; chain: Bytes[] } => {
    const chain = certificates([...path, 'certificate'], files.certificate)
    const pem = key([...path, 'key'], files.key)
    if (!new X509Certificate(chain[0]).checkPrivateKey(createPrivateKey(pem)))
      throw wrong(`${at([...path, 'key'])}: ${files.key} is not the key of ${files.certificate}`, 'name files that belong together')
    return { certificate: read([...path, 'certificate'], files.certificate), key: pem, chain }
  }
  const est = pair(['est'], raw.est)
  const files = { base, at, read, certificates, modeOf: (path: string) => readFile(path).mode }
  const issuer = settleIssuer(raw.issuer, files)
  const noticeKeyOf = (name: 'key' | 'standby', file: string): KeyObject => {
    const read = createPrivateKey(key(['notices', name], file))
    if (createPublicKey(read).asymmetricKeyDetails?.namedCurve !== 'prime256v1')
      throw wrong(
        `${at(['notices', name])}: notices are signed with a P-256 key`,
        'openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256',
      )
    return read
  }
  const { standby, countersignAbove = null } = raw.notices
  const noticeKey = noticeKeyOf('key', raw.notices.key)
  const notices = { keys: standby === undefined ? [noticeKey] : [noticeKey, noticeKeyOf('standby', standby)], countersignAbove }
  const anchors = (path: string, files: string[]): Bytes[] => files.flatMap((file, i) => certificates([path, 'anchors', i], file))
  const serverAnchors = anchors('server', raw.server.anchors)
  const issuerRoots = [...issuer.certificates, ...(issuer.next?.certificates ?? []), ...issuer.previous.flat()].map(der =>
    Buffer.from(der).toString('base64'),
  )
  if (serverAnchors.some(der => issuerRoots.includes(Buffer.from(der).toString('base64'))))
    throw wrong(
      `${at(['server', 'anchors'])}: the device issuer is named as an anchor of the server`,
      'keep the two apart: a device could pose as the server',
    )
  const birthAnchors = anchors('birth', raw.birth.anchors)
  const lifetimeSeconds = secondsOf(raw.certificates.lifetime, at(['certificates', 'lifetime']))
  const { fleet } = raw
  const scep = raw.scep ? scepOf(raw.scep, files) : null
  const { profiles, anchors: own } = raw.profiles
    ? settleProfiles(raw.profiles, document, { fleet, birthAnchors, lifetimeSeconds, base, readFile, certificates: certificatesAt })
    : { profiles: [enrollmentProfile({ fleet, birthAnchors, lifetimeSeconds, admitSecrets: true, scep: scep && {} })], anchors: [] }
  // Those of single profiles too.
  const ofDevices = [...issuerRoots, ...[...birthAnchors, ...own].map(der => Buffer.from(der).toString('base64'))]
  const proxies = raw.est.proxies.map(({ anchors: files, names, header }, i) => {
    const found = files.flatMap((file, j) => certificates(['est', 'proxies', i, 'anchors', j], file))
    if (found.some(der => ofDevices.includes(Buffer.from(der).toString('base64'))))
      throw wrong(
        `${at(['est', 'proxies', i, 'anchors'])}: a CA of devices is named as the anchor of a proxy`,
        'use a CA that issues to proxies alone: a device could speak for every other',
      )
    return { anchors: found, names, header }
  })
  return {
    fleet,
    state: resolve(base, raw.state),
    development: false,
    est: { host: raw.est.host, port: raw.est.port, certificate: est.certificate, key: est.key, proxies },
    mqtt: mqttOf(raw, pair, files, document),
    birthAnchors: [...birthAnchors, ...own],
    profiles,
    serverAnchors,
    issuer,
    notices,
    scep,
    store: settleStore(raw.store, files),
    metrics: raw.metrics ? addressOf(raw.metrics.listen, at(['metrics', 'listen'])) : null,
    status: settleStatus(raw.status, files),
    revocation: settleRevocation(raw.revocation, files),
    workers: raw.workers,
    logLevel: raw.log.level,
  }
}

function scepOf(
  { challenge, host, port, next, previous, ...ra }: NonNullable<Raw['scep']>,
  files: FileReader,
): NonNullable<Settings['scep']> {
  // Whoever knows it could be any device, and everybody who ever set up a router does.
  if (challenge !== undefined)
    throw new CommandError(
      'static_challenge',
      `${files.at(['scep', 'challenge'])}: a challenge that is the same for every device is for birthmark dev alone`,
      'take it out, and mint one for each device: birthmark challenge mint',
      'refused',
    )
  return {
    ...{ host, port },
    ra: settleSigner(ra, ['scep'], files),
    next: next ? settleSigner(next, ['scep', 'next'], files) : null,
    previous: previous.map((one, i) => settleSigner(one, ['scep', 'previous', i], files)),
  }
}

function mqttOf(
  { mqtt: raw, status }: Raw,
  pair: (path: PropertyKey[], files: { certificate: string; key: string }) => { certificate: string; key: string },
  files: FileReader,
  document: YamlDocument,
): MqttSettings {
  if (!('url' in raw)) {
    const { certificate, key } = pair(['mqtt'], raw)
    return { kind: 'embedded', host: raw.host, port: raw.port, certificate, key, services: raw.services }
  }
  files.certificates(['mqtt', 'anchors'], raw.anchors)
  /** Both or none. */
  const ownOf = (path: PropertyKey[], { certificate, key }: MaybePair) => {
    if ((certificate === undefined) !== (key === undefined))
      throw wrong(
        `${document.at([...path, key === undefined ? 'certificate' : 'key'])} stands alone`,
        'give certificate and key, or neither',
      )
    return certificate && key ? pair(path, { certificate, key }) : null
  }
  const own = ownOf(['mqtt'], raw)
  return {
    kind: 'external',
    url: raw.url,
    anchors: files.read(['mqtt', 'anchors'], raw.anchors),
    certificate: own?.certificate ?? null,
    key: own?.key ?? null,
    enforce:
      raw.enforce === undefined ? null : settleMosquitto(raw.enforce, { document, base: files.base, ownOf, own, lists: !!status }),
  }
}

/** `host:port`, `[address]:port`, or a port of the loopback. */
function addressOf(listen: string, where: string): { host: string; port: number } {
  const [, bracketed, plain, digits] = /^(?:(?:\[([0-9A-Fa-f:]+)\]|([^:\s]+)):)?(\d{1,5})$/.exec(listen) ?? []
  const host = bracketed ?? plain ?? '127.0.0.1'
  const port = Number(digits)
  if (!(port >= 1 && port <= 65_535)) throw wrong(`${where} is ${listen}`, 'write host:port, such as 127.0.0.1:9464')
  return { host, port }
}

function secondsOf(duration: string, where: string): number {
  const unit = { m: 60, h: 3600, d: 86_400 }[duration.slice(-1)] ?? 0
  const seconds = Number(duration.slice(0, -1)) * unit
  if (seconds < 600 || seconds > 3653 * 86_400) throw wrong(`${where} is ${duration}`, 'choose 10m to 3653d')
  return seconds
}
