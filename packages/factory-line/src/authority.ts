// The manufacturer's own hierarchy: a root, an issuing CA for birth certificates, and the manifest signer. Promises certificates that
// other software verifies, each on disk with a key that only its owner may read. Where the root's key lives after `line init`
// (an offline medium, an HSM) is the manufacturer's decision.

import { randomBytes } from 'node:crypto'
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import {
  type Bytes,
  COMMON_NAME,
  DIGITAL_SIGNATURE,
  decodePem,
  encodeName,
  encodePem,
  equalBytes,
  KEY_CERT_SIGN,
  ORGANIZATION,
  parseCertificate,
} from '@birthmark/device-sdk/core'
import { certificateSerial, encodeToBeSigned, neverExpires, signCertificate } from './certificate-form.ts'
import { FactoryError } from './errors.ts'
import { authorityKeyId, basicConstraintsCa, CRL_SIGN, extendedKeyUsage, keyUsage, subjectKeyId } from './extensions.ts'
import { generateSigningKey, readSigningKey, type SigningKey, sha256 } from './signing-key.ts'

/**
 * 2.25.149728488 as DER content octets: signs manifests. A birth certificate of the same issuing CA
 * has the same digitalSignature bit, so only this purpose, stated, keeps a device from writing the list of its own siblings.
 */
export const MANIFEST_SIGNING = '69c7b2d968'

/** A CA or signer that can sign: its certificate, what stands above it, its key. */
export interface Authority {
  certificate: Bytes
  /** Issuers upwards, root last; empty for a root. */
  chain: Bytes[]
  key: SigningKey
}

export interface Manufacturer {
  root: Authority
  issuing: Authority
  manifest: Authority
}

export interface Moment {
  /** Seconds since 1970. */
  now(): number
}

export interface AuthorityForm {
  name: { organization?: string; commonName: string }
  /** −1: none stated. */
  pathLength: number
  notAfter: number
  /** Beside what every CA has. */
  extensions?: Bytes[]
}

/** RFC 7093 2, method 1: the leftmost 160 bits of SHA-256 over the key. Over the whole SubjectPublicKeyInfo, so that no parser is needed. */
export function keyIdOf(spki: Bytes): Bytes {
  return sha256(spki).subarray(0, 20)
}

export function nameOf(name: { organization?: string; commonName: string }): Bytes {
  const organization = name.organization ? [{ oid: ORGANIZATION, value: name.organization }] : []
  return encodeName([...organization, { oid: COMMON_NAME, value: name.commonName }])
}

/** Makes a CA: self-signed without `parent`, else signed by it. */
export async function makeAuthority(
  form: AuthorityForm,
  key: SigningKey,
  parent: Authority | null,
  clock: Moment,
  random: (length: number) => Bytes = randomBytes,
): Promise<Authority> {
  const now = clock.now()
  const above = parent ? parseCertificate(parent.certificate) : null
  const subject = nameOf(form.name)
  const issuerKeyId = above ? (above.subjectKeyId ?? keyIdOf(above.spki)) : keyIdOf(key.spki)
  const signer = parent ? parent.key : key
  const toBeSigned = encodeToBeSigned(
    {
      serial: certificateSerial(now, random),
      issuer: above ? above.subject : subject,
      subject,
      notBefore: now,
      notAfter: form.notAfter,
      spki: key.spki,
      extensions: [
        basicConstraintsCa(form.pathLength),
        keyUsage(KEY_CERT_SIGN | CRL_SIGN),
        subjectKeyId(keyIdOf(key.spki)),
        authorityKeyId(issuerKeyId),
        ...(form.extensions ?? []),
      ],
    },
    signer.algorithm,
  )
  const certificate = await signCertificate(toBeSigned, signer)
  return { certificate, chain: parent ? [parent.certificate, ...parent.chain] : [], key }
}

/** Who seals a station's journal and signs its manifests. */
export async function makeManifestSigner(
  name: { organization?: string; commonName: string },
  key: SigningKey,
  issuing: Authority,
  clock: Moment,
): Promise<Authority> {
  const now = clock.now()
  const above = parseCertificate(issuing.certificate)
  const toBeSigned = encodeToBeSigned(
    {
      serial: certificateSerial(now, randomBytes),
      issuer: above.subject,
      subject: nameOf(name),
      notBefore: now,
      notAfter: above.notAfter,
      spki: key.spki,
      extensions: [
        keyUsage(DIGITAL_SIGNATURE),
        extendedKeyUsage([MANIFEST_SIGNING]),
        subjectKeyId(keyIdOf(key.spki)),
        authorityKeyId(keyIdOf(above.spki)),
      ],
    },
    issuing.key.algorithm,
  )
  return { certificate: await signCertificate(toBeSigned, issuing.key), chain: [issuing.certificate, ...issuing.chain], key }
}

/**
 * Makes a manufacturer in `folder`: `root`, `issuing` and `manifest`, each a `.pem` (certificate) and a `.key.pem` (0600).
 * Throws `authority_exists` when there is one: a second root under the same path would orphan every product of the first.
 */
export async function createManufacturer(folder: string, organization: string, clock: Moment): Promise<Manufacturer> {
  if (existsSync(join(folder, 'root.pem'))) throw new FactoryError('authority_exists', `${folder} already holds a manufacturer`)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const keys = { root: generateSigningKey(), issuing: generateSigningKey(), manifest: generateSigningKey() }
  // No expiry: birth certificates have none either, and a path is only valid while each of its certificates is.
  const root = await makeAuthority(
    { name: { organization, commonName: `${organization} device root` }, pathLength: 1, notAfter: neverExpires },
    keys.root.key,
    null,
    clock,
  )
  const issuing = await makeAuthority(
    { name: { organization, commonName: `${organization} device issuing CA 1` }, pathLength: 0, notAfter: neverExpires },
    keys.issuing.key,
    root,
    clock,
  )
  const manifest = await makeManifestSigner({ organization, commonName: 'Manifest signer' }, keys.manifest.key, issuing, clock)
  const all: [string, Authority, string][] = [
    ['issuing', issuing, keys.issuing.pem],
    ['manifest', manifest, keys.manifest.pem],
    // The root's certificate comes last: its presence says that the rest is complete, so a crash before it is simply begun again.
    ['root', root, keys.root.pem],
  ]
  for (const [name, authority, pem] of all) {
    writeDurably(join(folder, `${name}.key.pem`), pem, 0o600)
    writeDurably(join(folder, `${name}.pem`), encodePem('CERTIFICATE', authority.certificate), 0o644)
  }
  return { root, issuing, manifest }
}

/** Reads what `createManufacturer` wrote. The root's key is not needed to issue and may be elsewhere; `issuingKey`: one that is in a token. */
export function openManufacturer(
  folder: string,
  issuingKey?: SigningKey,
): Omit<Manufacturer, 'root'> & { root: { certificate: Bytes } } {
  const root = readCertificate(join(folder, 'root.pem'))
  const issuing = readAuthority(folder, 'issuing', [root], issuingKey)
  return { root: { certificate: root }, issuing, manifest: readAuthority(folder, 'manifest', [issuing.certificate, root]) }
}

/** A certificate and key as `NAME.pem` and `NAME.key.pem`, or the key as given; throws `authority_mismatch` when they do not belong together. */
export function readAuthority(
  folder: string,
  name: string,
  chain: Bytes[],
  key: SigningKey = readSigningKey(join(folder, `${name}.key.pem`)),
): Authority {
  const certificate = readCertificate(join(folder, `${name}.pem`))
  if (!equalBytes(parseCertificate(certificate).spki, key.spki))
    throw new FactoryError('authority_mismatch', `the key of ${name} in ${folder} is not the one that ${name}.pem certifies`)
  return { certificate, chain, key }
}

export function readCertificate(file: string): Bytes {
  try {
    return decodePem(readFileSync(file, 'utf8'), 'CERTIFICATE', 1)[0]
  } catch (error) {
    throw new FactoryError('authority_missing', `cannot read a certificate from ${file}`, error)
  }
}

/** Writes a file that is whole or absent after a power cut: a temporary neighbour, fsync, rename, fsync of the folder. */
export function writeDurably(file: string, content: string | Bytes, mode: number): void {
  const temporary = openTemporary(file, mode)
  try {
    writeFileSync(temporary.fd, content)
    fsyncSync(temporary.fd)
  } finally {
    closeSync(temporary.fd)
  }
  temporary.keep()
}

/** The same for lines that come one after another and are not held. `judge` may refuse their number, and then there is no file. Returns it. */
export async function writeLinesDurably(
  file: string,
  lines: AsyncIterable<string>,
  judge: (count: number) => void,
  mode = 0o644,
): Promise<number> {
  const temporary = openTemporary(file, mode)
  let count = 0
  try {
    let waiting: string[] = []
    const write = (): void => {
      writeFileSync(temporary.fd, waiting.join(''))
      waiting = []
    }
    for await (const line of lines) {
      count++
      // Some hundred kilobytes a call.
      if (waiting.push(line) >= 1024) write()
    }
    judge(count)
    write()
    fsyncSync(temporary.fd)
  } catch (error) {
    rmSync(temporary.path, { force: true })
    throw error
  } finally {
    closeSync(temporary.fd)
  }
  temporary.keep()
  return count
}

function openTemporary(file: string, mode: number): { fd: number; path: string; keep(): void } {
  const path = `${file}.tmp`
  // Made anew: opening an old one would keep its mode, which may be wider.
  rmSync(path, { force: true })
  return {
    fd: openSync(path, 'wx', mode),
    path,
    keep() {
      renameSync(path, file)
      const folder = openSync(dirname(file), 'r')
      try {
        fsyncSync(folder)
      } finally {
        closeSync(folder)
      }
    },
  }
}
