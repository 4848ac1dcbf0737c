// What a standard consumer does with a certificate: reads where its status is found, fetches it, and believes it only when the issuer signed it.
// For `birthmark status` and `doctor`; nothing of the server relies on it.

import { createHash, randomBytes } from 'node:crypto'
import { request } from 'node:http'
import {
  type Bytes,
  type Certificate,
  childrenOf,
  contentOf,
  defaultAlgorithms,
  encodingOf,
  equalBytes,
  extensionOf,
  membershipOf,
  octetBits,
  oidValue,
  parseCertificate,
  partsOf,
  readElement,
  readWhole,
  SEQUENCE,
  signatureAlgorithmIdentifier,
  timeValue,
} from '@birthmark/device-sdk/core'
import { encodeOcspRequest, parseOcspResponse, publicKeyBits, type SingleStatus } from '@birthmark/est-server'
import { signatureVerifier } from '@birthmark/factory-line'
import { CommandError, explain } from './command-error.ts'
import type { Finding } from './examination.ts'

const CRL_DISTRIBUTION_POINTS = '551d1f' // 2.5.29.31
const AUTHORITY_INFORMATION_ACCESS = '2b06010505070101' // 1.3.6.1.5.5.7.1.1
const AD_OCSP = '2b06010505073001' // 1.3.6.1.5.5.7.48.1
const OCSP_SIGNING = '2b06010505070309' // 1.3.6.1.5.5.7.3.9

const timeoutMs = 10_000
/** A shard of 4,096 revoked has 200 KB; other issuers' lists may be whole. */
const listBytesMax = 64 * 1024 * 1024

export interface StatusUrls {
  crl: string | null
  ocsp: string | null
}

/** The first http URL of each kind. Throws the reader's errors for extensions that are malformed. */
export function statusUrls(certificate: Certificate): StatusUrls {
  const text = (bytes: Bytes) => Buffer.from(bytes).toString('latin1')
  const points = extensionOf(certificate, CRL_DISTRIBUTION_POINTS)
  const access = extensionOf(certificate, AUTHORITY_INFORMATION_ACCESS)
  let crl: string | null = null
  let ocsp: string | null = null
  for (const point of points ? partsOf(readWhole(points.value, SEQUENCE), SEQUENCE, 1, 16) : []) {
    const name = childrenOf(point, 3).find(part => part.tag === 0xa0)
    for (const full of name ? childrenOf(name, 1) : []) {
      if (full.tag !== 0xa0) continue
      const urls = childrenOf(full, 16).flatMap(uri => (uri.tag === 0x86 ? [text(contentOf(uri))] : []))
      crl ??= urls.find(url => url.startsWith('http://')) ?? null
    }
  }
  for (const description of access ? partsOf(readWhole(access.value, SEQUENCE), SEQUENCE, 1, 16) : []) {
    const [method, location] = partsOf(description, SEQUENCE, 2, 2)
    if (oidValue(method) === AD_OCSP && location.tag === 0x86) ocsp ??= text(contentOf(location))
  }
  return { crl, ocsp }
}

/** Rejects with CommandError. */
export function fetchStatus(url: string, body?: Bytes): Promise<Bytes> {
  const wrong = (detail: string) =>
    new CommandError(
      'status_unreachable',
      `${url}: ${detail}`,
      `is that name yours, and does it lead to the port of status: in the configuration? curl -v ${url}`,
      'unreachable',
    )
  return new Promise((resolve, reject) => {
    const headers = body ? { 'content-type': 'application/ocsp-request', 'content-length': body.length } : {}
    const sent = request(url, { method: body ? 'POST' : 'GET', headers, agent: false, timeout: timeoutMs }, response => {
      const parts: Buffer[] = []
      let length = 0
      response.on('data', (part: Buffer) => {
        parts.push(part)
        length += part.length
        if (length > listBytesMax) response.destroy(wrong('more than 64 MB'))
      })
      response.on('error', reject)
      response.on('end', () => {
        const bytes = Buffer.concat(parts)
        if (response.statusCode === 200) resolve(bytes)
        else reject(wrong(`HTTP ${response.statusCode}: ${bytes.toString('utf8', 0, 200).trim()}`))
      })
    })
    sent.on('timeout', () => sent.destroy(wrong('no answer in time')))
    sent.on('error', error =>
      reject(error instanceof CommandError ? error : wrong((error as NodeJS.ErrnoException).code ?? error.message)),
    )
    sent.end(body)
  })
}

export interface ListFacts {
  thisUpdate: number
  nextUpdate: number
  bytes: number
  entries: number
  /** Of the certificate asked about; null when none was. */
  listed: boolean | null
}

/** Reads a list and checks the issuer's signature. Throws CommandError for one that cannot be believed at `now`. */
export function judgeList(der: Bytes, issuer: Certificate, now: number, serial: Bytes | null): ListFacts {
  const bad = (detail: string) =>
    new CommandError('status_wrong', `the list ${detail}`, 'openssl crl -inform DER -noout -text shows what it says', 'failed')
  try {
    const [tbs, algorithm, signature] = partsOf(readWhole(der, SEQUENCE), SEQUENCE, 3, 3)
    if (!isSignedBy(issuer, encodingOf(tbs), encodingOf(algorithm), octetBits(signature))) throw bad('is not signed by the issuer')
    // Not childrenOf: a list of everything has more entries than any limit of a device.
    const fields = []
    for (let at = tbs.content; at < tbs.end; ) {
      const field = readElement(der, at, tbs.end)
      fields.push(field)
      at = field.end
    }
    const [thisUpdate, nextUpdate] = [timeValue(fields[3]), timeValue(fields[4])]
    if (now > nextUpdate) throw bad(`ended ${new Date(nextUpdate * 1000).toISOString()}`)
    if (now < thisUpdate - 300) throw bad(`begins ${new Date(thisUpdate * 1000).toISOString()}: a clock is wrong`)
    let entries = 0
    let listed = false
    const list = fields[5]
    if (list?.tag === SEQUENCE)
      for (let at = list.content; at < list.end; entries++) {
        const entry = readElement(der, at, list.end)
        const number = readElement(der, entry.content, entry.end)
        if (serial !== null && equalBytes(contentOf(number), serial)) listed = true
        at = entry.end
      }
    return { thisUpdate, nextUpdate, bytes: der.length, entries, listed: serial === null ? null : listed }
  } catch (error) {
    if (error instanceof CommandError) throw error
    throw bad(`cannot be read (${(error as Error).message})`)
  }
}

function isSignedBy(signer: Certificate, tbs: Bytes, algorithm: Bytes, signature: Bytes): boolean {
  const name = defaultAlgorithms.find(known => equalBytes(signatureAlgorithmIdentifier(known), algorithm))
  if (name === undefined) return false
  let good = false
  signatureVerifier.verify(signer.spki, name, tbs, signature, verdict => {
    good = verdict
  })
  return good
}

const sha256 = (bytes: Bytes) => createHash('sha256').update(bytes).digest()

/** Asks with a nonce, so that nobody answers from a drawer. Rejects with CommandError for an answer that cannot be believed. */
export async function askOcsp(url: string, certificate: Certificate, issuer: Certificate, now: number): Promise<SingleStatus> {
  const bad = (detail: string) =>
    new CommandError(
      'status_wrong',
      `${url}: the answer ${detail}`,
      `openssl ocsp -issuer CA -cert CERT -url ${url} -text`,
      'failed',
    )
  const nonce = randomBytes(32)
  const asked = encodeOcspRequest(sha256(issuer.subject), sha256(publicKeyBits(issuer.spki)), certificate.serial, nonce)
  const answered = await fetchStatus(url, asked)
  try {
    const given = parseOcspResponse(answered)
    if (typeof given === 'string') throw bad(`is ${given}`)
    const responder = given.certificates
      .map(parseCertificate)
      .find(
        c =>
          c.extendedKeyUsage?.includes(OCSP_SIGNING) &&
          equalBytes(c.issuer, issuer.subject) &&
          isSignedBy(issuer, c.tbs, signatureAlgorithmIdentifier(c.signatureAlgorithm), c.signature),
      )
    if (
      ![issuer, ...(responder ? [responder] : [])].some(signer => isSignedBy(signer, given.tbs, given.algorithm, given.signature))
    )
      throw bad('is not signed by the issuer, nor by a responder that it appointed')
    if (given.nonce === null || !Buffer.from(given.nonce).includes(nonce)) throw bad('does not repeat our nonce')
    const single = given.responses.find(({ certId }) => equalBytes(certId.serial, certificate.serial))
    if (single === undefined) throw bad('is about another certificate')
    if (Math.abs(given.producedAt - now) > 300)
      throw bad(`is of ${new Date(given.producedAt * 1000).toISOString()}: a clock is wrong`)
    return single
  } catch (error) {
    if (error instanceof CommandError) throw error
    throw bad(`cannot be read (${(error as Error).message})`)
  }
}

/** The certificate's place in its fleet, for people. */
export const placeOf = (certificate: Certificate): string => {
  const membership = membershipOf(certificate)
  return membership ? `fleet ${membership.fleet}, index ${membership.idx}` : 'of no fleet'
}

/** Whether the addresses in a certificate answer, and with something to be believed. `chain`: the certificate, and CAs among which is its issuer. */
export async function* examineStatus(chain: Bytes[]): AsyncGenerator<Finding> {
  const now = Math.floor(Date.now() / 1000)
  const bad = (check: string, error: unknown): Finding => {
    const { message, next } = explain(error)
    return { check, ok: false, detail: message, next }
  }
  let certificate: Certificate
  let above: Certificate[]
  try {
    ;[certificate, ...above] = chain.map(parseCertificate)
  } catch {
    // Said by the identity's own check.
    return
  }
  const { crl, ocsp } = statusUrls(certificate)
  if (crl === null && ocsp === null) return
  const issuer = above.find(ca => equalBytes(ca.subject, certificate.issuer))
  if (issuer === undefined) {
    const next = 'append the issuing CA to the certificate file'
    yield { check: 'certificate status', ok: false, detail: 'the CA that signed it is not at hand', next }
    return
  }
  if (crl !== null)
    try {
      const { entries, nextUpdate, listed } = judgeList(await fetchStatus(crl), issuer, now, certificate.serial)
      const detail = `${crl}: ${entries} entries, until ${new Date(nextUpdate * 1000).toISOString()}`
      yield listed
        ? {
            check: 'CRL',
            ok: false,
            detail: 'the certificate is revoked',
            next: 'birthmark devices shows what became of the device',
          }
        : { check: 'CRL', ok: true, detail }
    } catch (error) {
      yield bad('CRL', error)
    }
  if (ocsp !== null)
    try {
      const { status } = await askOcsp(ocsp, certificate, issuer, now)
      yield status.kind === 'good'
        ? { check: 'OCSP', ok: true, detail: `${ocsp}: good` }
        : {
            check: 'OCSP',
            ok: false,
            detail: `the certificate is ${status.kind}`,
            next: 'birthmark devices shows what became of the device',
          }
    } catch (error) {
      yield bad('OCSP', error)
    }
}
