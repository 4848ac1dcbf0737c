// Certificates for tests against a running server: a server certificate under a root of its own, a manufacturer, and devices born
// under it. Made with the line's own forms; other programs judge them in test/interop.

import { createPrivateKey, randomBytes, sign } from 'node:crypto'
import {
  type Bytes,
  csrAssemble,
  csrInfo,
  DIGITAL_SIGNATURE,
  encodeName,
  encodePem,
  parseCertificate,
  SERIAL_NUMBER,
} from '@birthmark/device-sdk/core'
import {
  type Authority,
  authorityKeyId,
  certificateSerial,
  dnsName,
  encodeBirthForm,
  encodeToBeSigned,
  extendedKeyUsage,
  generateSigningKey,
  ipAddress,
  keyIdOf,
  keyUsage,
  type ManifestEntry,
  makeAuthority,
  nameOf,
  neverExpires,
  SERVER_AUTH,
  type SigningKey,
  sha256Hex,
  signCertificate,
  subjectAltNames,
} from '@birthmark/factory-line'

/** Whole seconds, a minute ago: good for every clock of the machine. */
export const moment = { now: () => Math.floor(Date.now() / 1000) - 60 }

export interface ServerIdentity {
  key: string
  /** Leaf and intermediate. */
  cert: string
  /** What clients trust. */
  rootPem: string
}

/** For localhost, 127.0.0.1 and ::1. */
export async function serverIdentity(): Promise<ServerIdentity> {
  const rootKey = generateSigningKey()
  const root = await makeAuthority(
    { name: { commonName: 'Test server root' }, pathLength: 1, notAfter: neverExpires },
    rootKey.key,
    null,
    moment,
  )
  const issuing = await makeAuthority(
    { name: { commonName: 'Test server issuing CA' }, pathLength: 0, notAfter: neverExpires },
    generateSigningKey().key,
    root,
    moment,
  )
  const own = generateSigningKey()
  const issuer = parseCertificate(issuing.certificate)
  const certificate = await signCertificate(
    encodeToBeSigned(
      {
        serial: certificateSerial(moment.now(), randomBytes),
        issuer: issuer.subject,
        subject: nameOf({ commonName: 'localhost' }),
        notBefore: moment.now(),
        notAfter: moment.now() + 86_400 * 30,
        spki: own.key.spki,
        extensions: [
          keyUsage(DIGITAL_SIGNATURE),
          extendedKeyUsage([SERVER_AUTH]),
          subjectAltNames([
            dnsName('localhost'),
            ipAddress(Uint8Array.of(127, 0, 0, 1)),
            ipAddress(Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)),
          ]),
          authorityKeyId(keyIdOf(issuer.spki)),
        ],
      },
      issuing.key.algorithm,
    ),
    issuing.key,
  )
  return {
    key: own.pem,
    cert: encodePem('CERTIFICATE', certificate) + encodePem('CERTIFICATE', issuing.certificate),
    rootPem: encodePem('CERTIFICATE', root.certificate),
  }
}

export interface TestManufacturer {
  root: Authority
  issuing: Authority
}

export async function manufacturer(name = 'Test devices'): Promise<TestManufacturer> {
  const root = await makeAuthority(
    { name: { commonName: `${name} root` }, pathLength: 1, notAfter: neverExpires },
    generateSigningKey().key,
    null,
    moment,
  )
  const issuing = await makeAuthority(
    { name: { commonName: `${name} CA` }, pathLength: 0, notAfter: neverExpires },
    generateSigningKey().key,
    root,
    moment,
  )
  return { root, issuing }
}

export interface TestDevice {
  serial: string
  birth: Bytes
  /** PEM private key of the birth certificate. */
  key: string
  /** PEM, birth certificate and issuing CA. */
  cert: string
  manifest: ManifestEntry
}

export async function bear(maker: TestManufacturer, serial: string, groups: string[] = []): Promise<TestDevice> {
  const own = generateSigningKey()
  const profile = { organization: null, commonName: true, hardwareType: null }
  const form = encodeBirthForm({ serial, spki: own.key.spki }, profile, maker.issuing, moment.now(), randomBytes)
  const birth = await signCertificate(form, maker.issuing.key)
  return {
    serial,
    birth,
    key: own.pem,
    cert: encodePem('CERTIFICATE', birth) + encodePem('CERTIFICATE', maker.issuing.certificate),
    manifest: { serial, spkiSha256: sha256Hex(own.key.spki), groups, keyOrigin: 'device' },
  }
}

/** A CSR for a fresh key: its DER and the key's PEM. `subject`: the serial number alone unless told, as a renewal has to. */
export async function request(serial: string, subject?: Bytes): Promise<{ csr: Bytes; key: string; spki: Bytes }> {
  const own = generateSigningKey()
  return {
    csr: await csrOf(subject ?? encodeName([{ oid: SERIAL_NUMBER, value: serial }]), own.key),
    key: own.pem,
    spki: own.key.spki,
  }
}

export async function csrOf(subject: Bytes, key: SigningKey, attributes: Bytes[] = []): Promise<Bytes> {
  const info = csrInfo(subject, key.spki, attributes)
  return csrAssemble(info, key.algorithm, await key.sign(info))
}

/** Signs with a PEM key, for certificates and CSRs that no form of ours would make. */
export function signWith(pem: string, message: Bytes): Bytes {
  return sign('sha256', message, createPrivateKey(pem))
}
