// The state of `birthmark dev`: a manufacturer, a device issuer, a server CA apart from both, a notice key, each made once and found
// again. Every certificate says that it is for development; `serve` refuses them, and nothing here listens beyond loopback.

import { createPrivateKey, generateKeyPairSync } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { decodePem } from '@birthmark/device-sdk/core'
import { enrollmentProfile } from '@birthmark/est-server'
import { openManufacturer, writeDurably } from '@birthmark/factory-line'
import { CommandError, usageError } from './command-error.ts'
import { developmentOrganization, type Settings } from './configuration.ts'
import { ensureLine } from './line-folder.ts'
import { ensureRa } from './ra-certificate.ts'
import { developmentRevocation } from './revocation-settings.ts'
import { ensureServerCertificate, ensureServiceCertificate, ensureTwoTier } from './server-certificate.ts'

/** Of `birthmark dev --scep-port`: the same for every device, which no other server takes. */
export const developmentChallenge = 'birthmark-dev'

export interface Made {
  what: string
  where: string
  /** False: it was there from an earlier start. */
  fresh: boolean
}

const LOOPBACK = ['localhost', '127.0.0.1', '::1']

/** Throws `not_loopback` for any other interface: there is no password here. */
export function checkLoopback(host: string): void {
  if (!LOOPBACK.includes(host))
    throw new CommandError(
      'not_loopback',
      `birthmark dev has no password, so it listens on ${LOOPBACK.join(', ')} alone, not on ${host}`,
      'for other machines: birthmark init DIR --host NAME, then birthmark serve',
      'refused',
    )
}

/** Makes what is missing under `folder` and returns the settings to compose. A start that was cut off is completed by the next. */
export async function prepareDevelopment(options: {
  folder: string
  host: string
  estPort: number
  mqttPort: number
  /** Null, the default, for no SCEP. */
  scepPort?: number | null
  lifetimeSeconds: number
  random: (length: number) => Uint8Array
}): Promise<{ settings: Settings; made: Made[] }> {
  const { host, random } = options
  checkLoopback(host)
  const folder = resolve(options.folder)
  const file = (...names: string[]): string => join(folder, ...names)
  if (existsSync(folder) && !existsSync(file('development.json')) && existsSync(file('fleet.db')))
    throw usageError(`${folder} holds the state of a real server`, 'choose another --dir')
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  if (!existsSync(file('development.json')))
    writeDurably(file('development.json'), `${JSON.stringify({ notForProduction: true })}\n`, 0o644)

  const made: Made[] = []
  const note = (what: string, name: string, fresh: boolean): void =>
    void made.push({ what, where: join(options.folder, name), fresh })

  note('manufacturer: root, issuing CA, manifest signer', 'factory', await ensureLine(file('factory'), developmentOrganization))
  const maker = openManufacturer(file('factory'))

  const issuerFresh = !existsSync(file('issuer', 'root.pem'))
  const issuer = await ensureTwoTier(file('issuer'), developmentOrganization, 'operational', random)
  note('device issuer: root and issuing CA', 'issuer', issuerFresh)

  const serverFresh = !existsSync(file('server', 'root.pem'))
  const server = await ensureTwoTier(file('server'), developmentOrganization, 'server', random)
  await ensureServerCertificate(file('server'), LOOPBACK, server.issuing, random)
  await ensureServiceCertificate(file('server'), 'observer', server.issuing, random)
  note('server CA (apart from the device issuer) and TLS certificate', 'server', serverFresh)

  const noticeFresh = ensureNoticeKey(file('notice.key.pem'))
  note('notice key: signs revocations', 'notice.key.pem', noticeFresh)

  const scepPort = options.scepPort ?? null
  let scep: Settings['scep'] = null
  if (scepPort !== null) {
    const { fresh } = await ensureRa(file('scep'), developmentOrganization, issuer.issuing, random)
    note('SCEP: registration authority', 'scep', fresh)
    const pem = readFileSync(file('scep', 'ra.key.pem'), 'utf8')
    const certificates = decodePem(readFileSync(file('scep', 'ra.pem')), 'CERTIFICATE', 1)
    const ra = { certificates, key: { kind: 'software', pem, passphrase: null } } as const
    scep = { host, port: scepPort, ra, next: null, previous: [] }
  }

  const certificate = readFileSync(file('server', 'server.pem'), 'utf8')
  const key = readFileSync(file('server', 'server.key.pem'), 'utf8')
  const fleet = 'dev'
  const birthAnchors = [maker.root.certificate]
  const settings: Settings = {
    fleet,
    state: folder,
    development: true,
    est: { host, port: options.estPort, certificate, key },
    mqtt: { kind: 'embedded', host, port: options.mqttPort, certificate, key, services: { observer: 'observer' } },
    birthAnchors,
    serverAnchors: [server.root],
    issuer: {
      certificates: [issuer.issuing.certificate, issuer.root],
      previous: [],
      links: [],
      next: null,
      key: { kind: 'software', pem: readFileSync(file('issuer', 'issuing.key.pem'), 'utf8'), passphrase: null },
    },
    notices: { keys: [createPrivateKey(readFileSync(file('notice.key.pem')))], countersignAbove: null },
    profiles: [
      enrollmentProfile({
        fleet,
        birthAnchors,
        lifetimeSeconds: options.lifetimeSeconds,
        admitSecrets: true,
        scep: scep && { staticChallenge: developmentChallenge, development: true },
      }),
    ],
    scep,
    store: { kind: 'sqlite' },
    metrics: null,
    workers: 1,
    status: null,
    revocation: developmentRevocation,
    logLevel: 'warn',
  }
  return { settings, made }
}

/** True when it was made. */
export function ensureNoticeKey(file: string): boolean {
  if (existsSync(file)) return false
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  writeDurably(file, privateKey.export({ type: 'pkcs8', format: 'pem' }) as string, 0o600)
  return true
}
