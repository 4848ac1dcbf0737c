// TLS certificates for our own listeners and the CAs above them, for `dev` and `init`. The server's root stands apart from the device
// issuer's, so that no device certificate can ever pose as the server (SECURITY.md).

import { createPrivateKey, X509Certificate } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { join } from 'node:path'
import { type Bytes, DIGITAL_SIGNATURE, decodePem, encodePem, parseCertificate } from '@birthmark/device-sdk/core'
import {
  type Authority,
  authorityKeyId,
  CLIENT_AUTH,
  certificateSerial,
  dnsName,
  encodeToBeSigned,
  extendedKeyUsage,
  generateSigningKey,
  ipAddress,
  keyIdOf,
  keyUsage,
  makeAuthority,
  nameOf,
  readAuthority,
  SERVER_AUTH,
  signCertificate,
  subjectAltNames,
  subjectKeyId,
  writeDurably,
} from '@birthmark/factory-line'
import { systemClock } from './line-folder.ts'

type RandomBytes = (length: number) => Bytes

const DAY = 86_400

export interface TwoTier {
  root: Bytes
  issuing: Authority
}

/** A root and an issuing CA under `folder` (`root.pem`, `issuing.pem`, keys beside them), made when they are not there. */
export async function ensureTwoTier(folder: string, organization: string, purpose: string, random: RandomBytes): Promise<TwoTier> {
  const { root } = await ensureCertificates(folder, organization, purpose, random, null)
  return { root, issuing: readAuthority(folder, 'issuing', [root]) }
}

/** The same with both keys encrypted under `passphrase`, so that nothing here reads them again. */
export function ensureSealedTwoTier(
  folder: string,
  organization: string,
  purpose: string,
  random: RandomBytes,
  passphrase: Buffer,
): Promise<{ root: Bytes; issuing: Bytes }> {
  return ensureCertificates(folder, organization, purpose, random, passphrase)
}

/** PKCS #8 under PBES2. OpenSSL's 2,048 rounds are few for a remembered word; the passphrases that init makes have 256 random bits. */
function sealed(pem: string, passphrase: Buffer): string {
  return createPrivateKey(pem).export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase }) as string
}

async function ensureCertificates(
  folder: string,
  organization: string,
  purpose: string,
  random: RandomBytes,
  passphrase: Buffer | null,
): Promise<{ root: Bytes; issuing: Bytes }> {
  const certificateIn = (name: string) => decodePem(readFileSync(join(folder, name), 'utf8'), 'CERTIFICATE', 1)[0]
  const read = () => ({ root: certificateIn('root.pem'), issuing: certificateIn('issuing.pem') })
  // root.pem is written last: with it, everything is there.
  if (existsSync(join(folder, 'root.pem'))) return read()
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const now = systemClock.now()
  const keys = { root: generateSigningKey(), issuing: generateSigningKey() }
  // Fifteen years for a root, ten for what it signs: longer than the devices' certificates by far, and replaceable (EST cacerts).
  const rootForm = {
    name: { organization, commonName: `${organization} ${purpose} root` },
    pathLength: 1,
    notAfter: now + 15 * 365 * DAY,
  }
  const root = await makeAuthority(rootForm, keys.root.key, null, systemClock, random)
  const issuingForm = {
    name: { organization, commonName: `${organization} ${purpose} CA 1` },
    pathLength: 0,
    notAfter: now + 10 * 365 * DAY,
  }
  const issuing = await makeAuthority(issuingForm, keys.issuing.key, root, systemClock, random)
  for (const [name, { certificate }, { pem }] of [
    ['issuing', issuing, keys.issuing],
    ['root', root, keys.root],
  ] as const) {
    writeDurably(join(folder, `${name}.key.pem`), passphrase ? sealed(pem, passphrase) : pem, 0o600)
    writeDurably(join(folder, `${name}.pem`), encodePem('CERTIFICATE', certificate), 0o644)
  }
  return read()
}

/** `chain.pem` beside them: issuing CA, then root, as a configuration names it. */
export function writeChain(folder: string, { root, issuing }: { root: Bytes; issuing: Bytes }): void {
  writeDurably(join(folder, 'chain.pem'), encodePem('CERTIFICATE', issuing) + encodePem('CERTIFICATE', root), 0o644)
}

/** `server.pem` and `server.key.pem` in `folder` for `names` (DNS names and addresses), made anew when a name is missing. */
export function ensureServerCertificate(folder: string, names: string[], issuing: Authority, random: RandomBytes): Promise<void> {
  const named = (certificate: X509Certificate): boolean =>
    names.every(name => (isIP(name) ? certificate.checkIP(name) : certificate.checkHost(name)) !== undefined)
  const alternatives = subjectAltNames(names.map(name => (isIP(name) ? ipAddress(addressOctets(name)) : dnsName(name))))
  return ensureLeaf(folder, 'server', names[0], [extendedKeyUsage([SERVER_AUTH]), alternatives], issuing, random, named)
}

/** `NAME.pem` and `NAME.key.pem`: a service that opens connections, such as one that watches the broker. */
export function ensureServiceCertificate(folder: string, name: string, issuing: Authority, random: RandomBytes): Promise<void> {
  return ensureLeaf(folder, name, name, [extendedKeyUsage([CLIENT_AUTH])], issuing, random, () => true)
}

/**
 * Leaf and issuing CA in one PEM file, the key beside it. Made anew when less than 30 days are left or `fits` says no; whoever trusts the
 * root notices nothing.
 */
async function ensureLeaf(
  folder: string,
  file: string,
  commonName: string,
  extensions: Bytes[],
  issuing: Authority,
  random: RandomBytes,
  fits: (certificate: X509Certificate) => boolean,
): Promise<void> {
  const certificateFile = join(folder, `${file}.pem`)
  const keyFile = join(folder, `${file}.key.pem`)
  const now = systemClock.now()
  if (existsSync(certificateFile) && existsSync(keyFile)) {
    const present = new X509Certificate(readFileSync(certificateFile))
    const belongs = present.checkPrivateKey(createPrivateKey(readFileSync(keyFile)))
    if (belongs && fits(present) && present.validToDate.getTime() > (now + 30 * DAY) * 1000) return
  }
  const { key, pem } = generateSigningKey()
  const above = parseCertificate(issuing.certificate)
  const toBeSigned = encodeToBeSigned(
    {
      serial: certificateSerial(now, random),
      issuer: above.subject,
      subject: nameOf({ commonName }),
      notBefore: now - 60,
      // The limit of public CAs (CA/Browser Forum BR 6.3.2 of 2020): clients other than ours may insist on it.
      notAfter: now + 397 * DAY,
      spki: key.spki,
      extensions: [
        keyUsage(DIGITAL_SIGNATURE),
        ...extensions,
        subjectKeyId(keyIdOf(key.spki)),
        authorityKeyId(above.subjectKeyId ?? keyIdOf(above.spki)),
      ],
    },
    issuing.key.algorithm,
  )
  const leaf = await signCertificate(toBeSigned, issuing.key)
  writeDurably(keyFile, pem, 0o600)
  writeDurably(certificateFile, encodePem('CERTIFICATE', leaf) + encodePem('CERTIFICATE', issuing.certificate), 0o644)
}

/** Network-order octets of an IP literal. */
export function addressOctets(address: string): Bytes {
  if (isIP(address) === 4) return Uint8Array.from(address.split('.').map(Number))
  // URL writes an IPv6 address canonically: hexadecimal groups with at most one `::`.
  const [left, right] = new URL(`http://[${address}]`).hostname.slice(1, -1).split('::')
  const groups = (text: string | undefined): number[] => (text ? text.split(':').map(group => parseInt(group, 16)) : [])
  const head = groups(left)
  const tail = groups(right)
  const all = [...head, ...Array<number>(8 - head.length - tail.length).fill(0), ...tail]
  return Uint8Array.from(all.flatMap(group => [group >> 8, group & 0xff]))
}
