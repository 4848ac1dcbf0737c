// How an issuing CA comes to be when the root is kept offline: the line makes its keys and a request, the root's desk signs it with a
// mandate, the line takes the certificate in. Only files travel, none of them secret, and each end checks what it gets.

import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import {
  type Bytes,
  codeOf,
  csrAssemble,
  csrInfo,
  decodePem,
  encodePem,
  equalBytes,
  parseCertificate,
  parseCsr,
} from '@birthmark/device-sdk/core'
import {
  type Authority,
  type Manufacturer,
  type Moment,
  makeAuthority,
  makeManifestSigner,
  nameOf,
  writeDurably,
} from './authority.ts'
import { neverExpires } from './certificate-form.ts'
import { FactoryError } from './errors.ts'
import { encodeMandate, MANDATE_NAME, type Mandate, mandateOf } from './mandate.ts'
import { generateSigningKey, type KeyType, type SigningKey, sha256Hex, verifySignature } from './signing-key.ts'

/** What a line asks the root's desk to sign. */
export interface IssuingRequest {
  format: 'birthmark-issuing-request/1'
  organization: string
  sku: string
  station: string
  /** PKCS#10 of the issuing CA's key and of the station's key, each signed by itself: DER in base64. */
  issuingCsr: string
  stationCsr: string
}

export interface Permission {
  quota: number
  /** Seconds since 1970. */
  from: number
  until: number
}

/** A root alone, in `root.pem` and `root.key.pem`; with `token` its key is that one and no file is written for it. Throws `authority_exists`. */
export async function createRoot(
  folder: string,
  organization: string,
  from: KeyType | { token: SigningKey },
  clock: Moment,
): Promise<Authority> {
  if (existsSync(join(folder, 'root.pem'))) throw new FactoryError('authority_exists', `${folder} already holds a root`)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const made = typeof from === 'string' ? generateSigningKey(from) : null
  const key = made?.key ?? (from as { token: SigningKey }).token
  const name = { organization, commonName: `${organization} device root` }
  const root = await makeAuthority({ name, pathLength: 1, notAfter: neverExpires }, key, null, clock)
  if (made) writeDurably(join(folder, 'root.key.pem'), made.pem, 0o600)
  writeDurably(join(folder, 'root.pem'), encodePem('CERTIFICATE', root.certificate), 0o644)
  return root
}

/**
 * Makes the keys of a station and of its issuing CA in `folder` and returns what the root's desk needs. With `token` the issuing key is
 * that one and no file is written for it. Throws `authority_exists` when the folder already has a certificate.
 */
export async function requestIssuing(
  folder: string,
  who: { organization: string; sku: string; station: string },
  issuing: KeyType | { token: SigningKey },
): Promise<IssuingRequest> {
  for (const name of [who.sku, who.station])
    if (!MANDATE_NAME.test(name)) throw new FactoryError('mandate_malformed', 'a SKU or station is 1 to 32 of A-Z a-z 0-9 . _ -')
  if (existsSync(join(folder, 'issuing.pem'))) throw new FactoryError('authority_exists', `${folder} already has an issuing CA`)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const station = generateSigningKey()
  let issuingKey: SigningKey
  if (typeof issuing === 'string') {
    const made = generateSigningKey(issuing)
    issuingKey = made.key
    writeDurably(join(folder, 'issuing.key.pem'), made.pem, 0o600)
  } else issuingKey = issuing.token
  writeDurably(join(folder, 'manifest.key.pem'), station.pem, 0o600)
  const csr = async (commonName: string, key: SigningKey): Promise<string> => {
    const info = csrInfo(nameOf({ organization: who.organization, commonName }), key.spki, [])
    return Buffer.from(csrAssemble(info, key.algorithm, await key.sign(info))).toString('base64')
  }
  return {
    format: 'birthmark-issuing-request/1',
    ...who,
    issuingCsr: await csr(`${who.organization} ${who.sku} issuing CA`, issuingKey),
    stationCsr: await csr(`Station ${who.station}`, station.key),
  }
}

/**
 * At the root's desk: an issuing CA for what is asked, within what is permitted. Several requests with one issuing key (a shared HSM) give
 * one CA for their stations, each with the whole quota of its own. Throws `mandate_malformed`, `csr_malformed`, `csr_signature`.
 */
export async function signIssuing(
  root: Authority,
  requests: IssuingRequest[],
  permission: Permission,
  clock: Moment,
): Promise<Bytes> {
  const [first] = requests
  const { spki } = proven(first.issuingCsr)
  for (const request of requests) {
    if (request.format !== 'birthmark-issuing-request/1') throw new FactoryError('mandate_malformed', 'this is no issuing request')
    if (
      request.sku !== first.sku ||
      request.organization !== first.organization ||
      !equalBytes(proven(request.issuingCsr).spki, spki)
    )
      throw new FactoryError('mandate_malformed', 'requests for one CA have one organization, one SKU and one issuing key')
  }
  const mandate: Mandate = {
    sku: first.sku,
    from: permission.from,
    until: permission.until,
    stations: requests.map(({ station, stationCsr }) => ({
      name: station,
      keySha256: sha256Hex(proven(stationCsr).spki),
      quota: permission.quota,
    })),
  }
  const { organization, sku } = first
  const stations = mandate.stations.map(({ name }) => name).join(' ')
  const commonName = `${organization} ${sku} issuing CA ${stations}`.slice(0, 64).trimEnd()
  const form = { name: { organization, commonName }, pathLength: 0, notAfter: neverExpires, extensions: [encodeMandate(mandate)] }
  // Only its public half is ours to handle; the signature is the root's.
  const requested: SigningKey = { spki, algorithm: root.key.algorithm, sign: () => Promise.reject(new Error('not here')) }
  return (await makeAuthority(form, requested, root, clock)).certificate
}

/**
 * At the line: checks what came from the desk against the keys here and the root, makes the station's own certificate and writes all of it.
 * `root`: who the line was told its root is. Throws `authority_mismatch`, `wrong_station`.
 */
export async function acceptIssuing(
  folder: string,
  parts: { issuing: Bytes; root: Bytes; issuingKey: SigningKey; stationKey: SigningKey },
  clock: Moment,
): Promise<{ mandate: Mandate; station: string }> {
  const certificate = parseCertificate(parts.issuing)
  const root = parseCertificate(parts.root)
  if (!equalBytes(certificate.spki, parts.issuingKey.spki))
    throw new FactoryError('authority_mismatch', "this certificate is not for this line's issuing key")
  if (
    !equalBytes(certificate.issuer, root.subject) ||
    !verifySignature(root.spki, certificate.signatureAlgorithm, certificate.tbs, certificate.signature)
  )
    throw new FactoryError('authority_mismatch', 'this certificate was not signed by that root')
  const mandate = mandateOf(certificate)
  if (!mandate) throw new FactoryError('mandate_malformed', 'the certificate states no mandate')
  const own = mandate.stations.find(({ keySha256 }) => keySha256 === sha256Hex(parts.stationKey.spki))
  if (!own) throw new FactoryError('wrong_station', 'the mandate does not name the key of this station')
  const issuing: Authority = { certificate: parts.issuing, chain: [parts.root], key: parts.issuingKey }
  const signer = await makeManifestSigner({ commonName: `Station ${own.name}` }, parts.stationKey, issuing, clock)
  writeDurably(join(folder, 'issuing.pem'), encodePem('CERTIFICATE', parts.issuing), 0o644)
  writeDurably(join(folder, 'manifest.pem'), encodePem('CERTIFICATE', signer.certificate), 0o644)
  writeDurably(join(folder, 'root.pem'), encodePem('CERTIFICATE', parts.root), 0o644)
  return { mandate, station: own.name }
}

/** Root, issuing CA and station in one go and one folder: what a trial needs, and tests. Nothing is written. */
export async function trialManufacturer(
  who: { organization: string; sku: string; station: string },
  permission: Permission,
  clock: Moment,
  keyType: KeyType = 'P-256',
): Promise<Manufacturer> {
  const keys = {
    root: generateSigningKey(keyType).key,
    issuing: generateSigningKey(keyType).key,
    station: generateSigningKey().key,
  }
  const { organization } = who
  const rootForm = { name: { organization, commonName: `${organization} device root` }, pathLength: 1, notAfter: neverExpires }
  const root = await makeAuthority(rootForm, keys.root, null, clock)
  const station = { name: who.station, keySha256: sha256Hex(keys.station.spki), quota: permission.quota }
  const mandate = { sku: who.sku, from: permission.from, until: permission.until, stations: [station] }
  const name = { organization, commonName: `${organization} ${who.sku} issuing CA ${who.station}` }
  const form = { name, pathLength: 0, notAfter: neverExpires, extensions: [encodeMandate(mandate)] }
  const issuing = await makeAuthority(form, keys.issuing, root, clock)
  const manifest = await makeManifestSigner({ organization, commonName: `Station ${who.station}` }, keys.station, issuing, clock)
  return { root, issuing, manifest }
}

/** What came from the desk: the issuing CA's certificate and the root's, in that order. */
export function readGrant(pem: string): { issuing: Bytes; root: Bytes } {
  const [issuing, root] = decodePem(pem, 'CERTIFICATE', 2)
  if (!issuing || !root) throw new FactoryError('authority_mismatch', 'two certificates are expected: issuing CA and root')
  return { issuing, root }
}

function proven(base64: string): { spki: Bytes } {
  let csr: ReturnType<typeof parseCsr>
  try {
    csr = parseCsr(Buffer.from(base64, 'base64'))
  } catch (error) {
    if (codeOf(error) === null) throw error
    throw new FactoryError('csr_malformed', (error as Error).message, error)
  }
  if (!verifySignature(csr.spki, csr.signatureAlgorithm, csr.info, csr.signature))
    throw new FactoryError('csr_signature', 'a request is not signed by the key it carries')
  return csr
}
