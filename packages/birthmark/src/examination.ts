// The checks of `birthmark doctor`. Each looks at one thing, says what it saw, and what to do where it is wrong.

import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { request } from 'node:https'
import { isIP } from 'node:net'
import { join } from 'node:path'
import { connect, type TLSSocket } from 'node:tls'
import {
  anchorOf,
  type Bytes,
  type Certificate,
  decodeBase64,
  defaultAlgorithms,
  encodePem,
  equalBytes,
  nameText,
  oidText,
  parseCertificate,
  parseCertsOnly,
  validatePath,
} from '@birthmark/device-sdk/core'
import { CSR_TEMPLATE, parseCsrAttributes, parseCsrTemplate } from '@birthmark/est-server'
import { CLIENT_AUTH, SERVER_AUTH, signatureVerifier } from '@birthmark/factory-line'
import { administrationOf } from './admin-client.ts'
import type { IssuerView } from './administration.ts'
import { explain } from './command-error.ts'
import { issuerWarningSeconds } from './configured-issuers.ts'

export type Finding = { check: string; ok: true; detail: string } | { check: string; ok: false; detail: string; next: string }

const timeoutMs = 5000
/** 2026-01-01: no machine that runs this is older. */
const releaseTime = 1_767_225_600
const warnDays = 14

const good = (check: string, detail: string): Finding => ({ check, ok: true, detail })
const bad = (check: string, detail: string, next: string): Finding => ({ check, ok: false, detail, next })

export function examineClock(now: number): Finding {
  const shown = new Date(now * 1000).toISOString()
  if (now < releaseTime) return bad('clock', `${shown} is before this release`, 'set the clock: timedatectl set-ntp true')
  return good('clock', shown)
}

/** A server's state folder on this machine. */
export async function examineFolder(folder: string): Promise<Finding[]> {
  const findings: Finding[] = []
  if (!existsSync(folder)) return [bad('state folder', `${folder} is not there`, 'start the server: birthmark dev')]
  const mode = statSync(folder).mode & 0o777
  findings.push(
    mode & 0o077
      ? bad('state folder', `${folder} may be entered by others (mode ${mode.toString(8)})`, `chmod 700 ${folder}`)
      : good('state folder', `${folder}, mode 700`),
  )
  const open = keyFilesIn(folder, 3).filter(file => statSync(file).mode & 0o077)
  if (open.length)
    findings.push(bad('key files', `${open[0]} may be read by others`, `chmod 600 ${open[0]}, and consider the key known`))
  else findings.push(good('key files', 'readable by their owner alone'))
  try {
    const status = await administrationOf(folder).status()
    findings.push(good('server process', `pid ${status.pid}, fleet ${status.fleet}, ${status.sessions ?? 'unknown'} sessions`))
    findings.push(...(await administrationOf(folder).issuers()).issuers.flatMap(issuer => examineIssuer(issuer, Date.now() / 1000)))
    const { serving, of } = status.workers
    findings.push(
      status.unready !== null
        ? bad('enrollment', `not served now: ${status.unready}`, "see the server's log; nothing acknowledged is lost")
        : serving < of
          ? bad('workers', `${serving} of ${of} serve`, 'one that died is started anew by itself; its log lines say why it ended')
          : good('workers', `${serving} of ${of} serve`),
    )
    const clock = await administrationOf(folder).clock()
    findings.push(
      clock.halted
        ? bad('clock and records', 'the clock stands before the last record: nothing is issued', 'birthmark clock status')
        : good('clock and records', 'in order'),
    )
    if (status.undelivered)
      findings.push(
        bad(
          'revocation notices',
          `${status.undelivered} not confirmed by the broker`,
          'is the broker reachable? The server tries again by itself',
        ),
      )
    else findings.push(good('revocation notices', 'all confirmed by the broker'))
  } catch (error) {
    const { message, next } = explain(error)
    findings.push(bad('server process', message, next))
  }
  return findings
}

/** The issuer that signs, or is about to. */
export function examineIssuer({ issuer, state, certificate }: IssuerView, now: number): Finding[] {
  const check = `issuing CA, ${state}`
  if (certificate === null) {
    const next = 'name its certificate in issuer.previous, or retire it: birthmark ca retire'
    return state === 'retired' ? [] : [bad(check, `${issuer} is not in the configuration`, next)]
  }
  if (state !== 'signing' && state !== 'next') return []
  const days = Math.floor((certificate.notAfter - now) / 86_400)
  const detail = `${certificate.subject}, ${certificate.keyAlgorithm}, ${days} days left`
  if (days < 0) return [bad(check, `${certificate.subject} has ended: nothing is issued`, 'roll over to a new one: docs/keys.md')]
  return days * 86_400 < issuerWarningSeconds
    ? [bad(check, `${detail}; certificates end with it`, 'roll over to a new one: docs/keys.md')]
    : [good(check, detail)]
}

function keyFilesIn(folder: string, depth: number): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap(entry => {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) return depth > 0 ? keyFilesIn(path, depth - 1) : []
    return /\.key(\.pem)?$/.test(entry.name) ? [path] : []
  })
}

/** Reaches an EST server as a device would, without a certificate of its own. */
export async function* examineServer(url: string, anchors: Bytes[]): AsyncGenerator<Finding> {
  const { hostname, port } = new URL(url)
  const host = hostname.replace(/^\[|\]$/g, '')
  const chain = yield* examineTls('EST', host, Number(port || 443), anchors)
  if (!chain) return
  yield await examineCacerts(url, anchors)
  yield await examineCsrattrs(url, anchors)
}

export async function* examineMqtt(url: string, anchors: Bytes[]): AsyncGenerator<Finding> {
  const { hostname, port } = new URL(url)
  yield* examineTls('MQTT', hostname.replace(/^\[|\]$/g, ''), Number(port || 8883), anchors)
}

async function* examineTls(
  what: string,
  host: string,
  port: number,
  anchors: Bytes[],
): AsyncGenerator<Finding, Certificate[] | null> {
  let chain: Bytes[]
  try {
    chain = await serverChain(host, port)
  } catch (error) {
    const told = explain(error)
    yield bad(`${what} reachable`, `${host}:${port}: ${told.message}`, told.next)
    return null
  }
  yield good(`${what} reachable`, `${host}:${port}`)
  const leaf = new X509Certificate(chain[0])
  const named = (isIP(host) ? leaf.checkIP(host) : leaf.checkHost(host)) !== undefined
  yield named
    ? good(`${what} name`, `${host} is in the certificate`)
    : bad(
        `${what} name`,
        `the certificate is for ${leaf.subjectAltName ?? 'nobody'}, not ${host}`,
        'use one of those names, or make a certificate for this one',
      )
  let parsed: Certificate[]
  try {
    parsed = chain.map(parseCertificate)
  } catch (error) {
    yield bad(`${what} chain`, (error as Error).message, 'the certificate is not strict DER; ask whoever made it')
    return null
  }
  const problem = pathProblem(parsed, anchors, SERVER_AUTH)
  const days = Math.floor((parsed[0].notAfter - Date.now() / 1000) / 86_400)
  if (problem) yield bad(`${what} chain`, problem.detail, problem.next)
  else if (days < warnDays)
    yield bad(
      `${what} chain`,
      `the server's certificate ends in ${days} days`,
      'renew it; birthmark dev and init do so when run again',
    )
  else yield good(`${what} chain`, `leads to ${nameText(parsed[parsed.length - 1].issuer)}; ${days} days left`)
  yield parsed[0].extendedKeyUsage && !parsed[0].extendedKeyUsage.includes(SERVER_AUTH)
    ? bad(`${what} key usage`, 'the certificate is not for TLS servers', 'make one with extendedKeyUsage serverAuth')
    : good(`${what} key usage`, 'serverAuth')
  return problem ? null : parsed
}

function serverChain(host: string, port: number): Promise<Bytes[]> {
  return new Promise((resolve, reject) => {
    // What is wrong with the certificate is for the checks that follow to say.
    const socket: TLSSocket = connect({ host, port, rejectUnauthorized: false, ...(isIP(host) ? {} : { servername: host }) })
    const timer = setTimeout(() => socket.destroy(Object.assign(new Error('no answer'), { code: 'ETIMEDOUT' })), timeoutMs)
    socket.on('error', error => {
      clearTimeout(timer)
      reject(error)
    })
    socket.on('secureConnect', () => {
      clearTimeout(timer)
      const chain: Bytes[] = []
      for (let at = socket.getPeerX509Certificate(); at && chain.length < 8; at = at.issuerCertificate) chain.push(at.raw)
      socket.destroy()
      if (chain.length) resolve(chain)
      else reject(new Error('the server showed no certificate'))
    })
  })
}

async function examineCacerts(url: string, anchors: Bytes[]): Promise<Finding> {
  const target = `${url.replace(/\/$/, '')}/.well-known/est/cacerts`
  try {
    const { status, date, body } = await get(target, anchors)
    if (status !== 200) return bad('EST cacerts', `HTTP ${status}: ${body.toString('utf8').slice(0, 200)}`, 'see the server’s log')
    const certificates = parseCertsOnly(decodeBase64(body, 65_536))
    const skew = date ? Math.abs(Date.parse(date) / 1000 - Date.now() / 1000) : 0
    if (skew > 60) return bad('EST cacerts', `the server's clock is ${Math.round(skew)} s away from ours`, 'set both clocks by NTP')
    return good('EST cacerts', `${certificates.length} certificates; ${nameText(parseCertificate(certificates[0]).subject)}`)
  } catch (error) {
    return bad('EST cacerts', (error as Error).message, `curl -v ${target}`)
  }
}

/** What the server asks a CSR to hold: the first thing to compare when a CSR is refused. */
async function examineCsrattrs(url: string, anchors: Bytes[]): Promise<Finding> {
  const target = `${url.replace(/\/$/, '')}/.well-known/est/csrattrs`
  try {
    const { status, body } = await get(target, anchors)
    if (status === 204) return good('EST csrattrs', 'nothing is asked for')
    if (status !== 200) return bad('EST csrattrs', `HTTP ${status}: ${body.toString('utf8').slice(0, 200)}`, 'see the server’s log')
    const asked = parseCsrAttributes(decodeBase64(body, 65_536))
    const template = asked.find(({ oid }) => oid === CSR_TEMPLATE)?.values?.[0]
    if (!template) return good('EST csrattrs', asked.map(({ oid }) => oidText(oid)).join(', '))
    const { subject, key, extensions } = parseCsrTemplate(template)
    const names = (subject ?? []).flat().map(({ oid }) => oidText(oid))
    const parts = [`subject ${names.join(', ') || 'any'}`, `key ${key ? 'of one type' : 'of any allowed type'}`]
    return good('EST csrattrs', [...parts, `extensions ${extensions.map(({ oid }) => oidText(oid)).join(', ')}`].join('; '))
  } catch (error) {
    return bad('EST csrattrs', (error as Error).message, `curl -v ${target}`)
  }
}

function get(url: string, anchors: Bytes[]): Promise<{ status: number; date: string | undefined; body: Buffer }> {
  return new Promise((resolve, reject) => {
    const ca = anchors.map(der => encodePem('CERTIFICATE', der))
    const sent = request(url, { ca, agent: false, timeout: timeoutMs }, response => {
      const parts: Buffer[] = []
      response.on('data', (part: Buffer) => {
        parts.push(part)
        if (parts.reduce((sum, p) => sum + p.length, 0) > 65_536) response.destroy(new Error('more than 64 KB'))
      })
      response.on('error', reject)
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, date: response.headers.date, body: Buffer.concat(parts) }),
      )
    })
    sent.on('timeout', () => sent.destroy(new Error('no answer')))
    sent.on('error', reject)
    sent.end()
  })
}

/** A device's operational identity in files. */
export function examineIdentity(chain: Bytes[], key: Uint8Array | null, anchors: Bytes[]): Finding[] {
  if (chain.length === 0) return [bad('identity', 'the file holds no PEM certificate', 'name the certificate of birthmark enroll')]
  const findings: Finding[] = []
  let parsed: Certificate[]
  try {
    parsed = chain.map(parseCertificate)
  } catch (error) {
    return [bad('identity', (error as Error).message, 'enroll anew: birthmark enroll')]
  }
  const [leaf] = parsed
  const hours = Math.floor((leaf.notAfter - Date.now() / 1000) / 3600)
  findings.push(
    hours < 0
      ? bad(
          'identity life',
          `over since ${new Date(leaf.notAfter * 1000).toISOString()}`,
          'birthmark enroll: the birth certificate gets a new one',
        )
      : good('identity life', `${nameText(leaf.subject)}, ${hours} hours left`),
  )
  findings.push(
    leaf.extendedKeyUsage && !leaf.extendedKeyUsage.includes(CLIENT_AUTH)
      ? bad(
          'identity key usage',
          'not for TLS clients',
          'use the operational certificate, not the birth certificate or the server’s',
        )
      : good('identity key usage', 'clientAuth'),
  )
  if (key) {
    let fits = false
    try {
      fits = equalBytes(createPublicKey(createPrivateKey(Buffer.from(key))).export({ type: 'spki', format: 'der' }), leaf.spki)
    } catch {
      // Said below: whatever is in the file is not this certificate's key.
    }
    findings.push(
      fits
        ? good('identity key', 'belongs to the certificate')
        : bad('identity key', 'is not the key of the certificate', 'name files of one enrollment'),
    )
  }
  if (anchors.length) {
    const problem = pathProblem(parsed, anchors, CLIENT_AUTH)
    findings.push(
      problem ? bad('identity chain', problem.detail, problem.next) : good('identity chain', 'leads to the operational root'),
    )
  }
  return findings
}

const NEXT: Record<string, string | undefined> = {
  path_no_anchor: 'give the root above this certificate as an anchor, and let the server send its intermediates',
  path_expired: 'renew the certificate, or set the clock',
  path_not_yet_valid: 'set the clock: the certificate lies in the future',
  path_key_usage: 'the certificate is not for this purpose',
}

function pathProblem(chain: Certificate[], anchors: Bytes[], purpose: string): { detail: string; next: string } | null {
  let problem: { detail: string; next: string } | null = null
  validatePath(
    chain[0],
    chain.slice(1),
    {
      anchors: anchors.map(der => anchorOf(parseCertificate(der))),
      time: Math.floor(Date.now() / 1000),
      algorithms: defaultAlgorithms,
      purpose,
      understoodCritical: [],
      depthMax: 6,
      signaturesMax: 16,
    },
    signatureVerifier,
    error => {
      if (error)
        problem = { detail: error.message, next: NEXT[error.code] ?? 'openssl x509 -noout -text shows what the certificate says' }
    },
  )
  return problem
}
