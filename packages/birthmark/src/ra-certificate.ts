// The registration authority of SCEP: an RSA key and a certificate of the issuing CA, for `init`, `dev` and `ca ra`. It lives as long as the CA and
// is made anew with it. A thief of it reads and answers SCEP messages; it issues nothing.

import { createPublicKey, generateKeyPair } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type Bytes, DIGITAL_SIGNATURE, decodePem, encodePem, equalBytes, parseCertificate } from '@birthmark/device-sdk/core'
import {
  authorityKeyId,
  certificateSerial,
  encodeToBeSigned,
  extendedKeyUsage,
  keyIdOf,
  keyUsage,
  nameOf,
  type SigningKey,
  signCertificate,
  subjectKeyId,
  writeDurably,
} from '@birthmark/factory-line'
import { systemClock } from './line-folder.ts'

/** RFC 5280 4.2.1.3, bit 2. */
const KEY_ENCIPHERMENT = 4
// id-kp-cmcRA (1.3.6.1.5.5.7.3.28) is what it is. emailProtection (.4) is what clients on OpenSSL take a signer of CMS for; neither makes a TLS
// client or server of it.
const purposes = ['2b0601050507031c', '2b06010505070304']

const generate = promisify(generateKeyPair)

export interface RaPair {
  /** PEM: the RA's certificate. */
  certificate: string
  /** PKCS#8 PEM. */
  key: string
}

/** PEM of a certificate under `issuing` for an RSA key, DER SubjectPublicKeyInfo, that is to be an RA's. It ends with the CA. */
export async function certifyRa(
  issuing: { certificate: Bytes; key: SigningKey },
  spki: Bytes,
  name: { organization: string },
  now: number,
  random: (length: number) => Bytes,
): Promise<string> {
  const above = parseCertificate(issuing.certificate)
  const toBeSigned = encodeToBeSigned(
    {
      serial: certificateSerial(now, random),
      issuer: above.subject,
      subject: nameOf({ organization: name.organization, commonName: `${name.organization} SCEP RA` }),
      notBefore: now - 60,
      notAfter: above.notAfter,
      spki,
      extensions: [
        keyUsage(DIGITAL_SIGNATURE | KEY_ENCIPHERMENT),
        extendedKeyUsage(purposes),
        subjectKeyId(keyIdOf(spki)),
        authorityKeyId(above.subjectKeyId ?? keyIdOf(above.spki)),
      ],
    },
    issuing.key.algorithm,
  )
  return encodePem('CERTIFICATE', await signCertificate(toBeSigned, issuing.key))
}

/** A new RA under `issuing`. Two thousand bits: the oldest clients know no more, and no answer of today is a secret by then. */
export async function makeRa(
  issuing: { certificate: Bytes; key: SigningKey },
  name: { organization: string },
  now: number,
  random: (length: number) => Bytes,
): Promise<RaPair> {
  const { privateKey } = await generate('rsa', { modulusLength: 2048 })
  const spki: Bytes = createPublicKey(privateKey).export({ type: 'spki', format: 'der' })
  const certificate = await certifyRa(issuing, spki, name, now, random)
  return { certificate, key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string }
}

/** Whether `certificate` was issued under `issuing`, by name and key. */
export function isRaOf(certificate: Bytes, issuing: Bytes): boolean {
  const [present, above] = [parseCertificate(certificate), parseCertificate(issuing)]
  const { authorityKeyId: keyId } = present
  return equalBytes(present.issuer, above.subject) && keyId !== null && equalBytes(keyId, above.subjectKeyId ?? keyIdOf(above.spki))
}

/**
 * `ra.pem` and `ra.key.pem` in `folder`. Made anew when the issuing CA is another than the one that signed it; what was there stays beside as
 * `ra.previous.pem` and its key, since clients hold on to the certificate that they were given.
 */
export async function ensureRa(
  folder: string,
  organization: string,
  issuing: { certificate: Bytes; key: SigningKey },
  random: (length: number) => Bytes,
): Promise<{ fresh: boolean }> {
  const file = (name: string) => join(folder, name)
  if (existsSync(file('ra.pem'))) {
    if (isRaOf(decodePem(readFileSync(file('ra.pem')), 'CERTIFICATE', 1)[0], issuing.certificate)) return { fresh: false }
    for (const [now, before] of [
      ['ra.key.pem', 'ra.previous.key.pem'],
      ['ra.pem', 'ra.previous.pem'],
    ])
      renameSync(file(now), file(before))
  }
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const { certificate, key } = await makeRa(issuing, { organization }, systemClock.now(), random)
  writeDurably(file('ra.key.pem'), key, 0o600)
  // Last: with it, everything is there.
  writeDurably(file('ra.pem'), certificate, 0o644)
  return { fresh: true }
}
