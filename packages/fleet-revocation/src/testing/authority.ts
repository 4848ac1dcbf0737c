// Certificates for tests and benchmarks: P-256, valid from an hour ago for a day, signed by a key in memory. Nothing here guards anything.

import { createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import {
  type Bytes,
  bytesOfHex,
  COMMON_NAME,
  concatBytes,
  encodeBits,
  encodeElement,
  encodeFleetExtension,
  encodeName,
  encodePem,
  encodeSequence,
  encodeUnsigned,
  GENERALIZED_TIME,
  INTEGER,
  type Membership,
  OBJECT_IDENTIFIER,
  OCTET_STRING,
  SERIAL_NUMBER,
  signatureAlgorithmIdentifier,
  utf8Bytes,
} from '@birthmark/device-sdk/core'

export interface Credential {
  key: KeyObject
  /** PEM: key, and certificate. */
  keyPem: string
  certPem: string
  der: Bytes
  spki: Bytes
}

export interface TestAuthority extends Credential {
  /** An authority under this one; what it issues carries its certificate in `certPem` after the leaf. */
  intermediate(name: string): TestAuthority
  device(id: string, membership: Membership | null, options?: { notAfter?: number; purpose?: string }): Credential
  service(name: string): Credential
  server(): Credential
}

const BASIC_CONSTRAINTS = '551d13'
const KEY_USAGE = '551d0f'
const EXTENDED_KEY_USAGE = '551d25'
const SUBJECT_ALT_NAME = '551d11'
const AUTHORITY_KEY_ID = '551d23'
const SUBJECT_KEY_ID = '551d0e'
export const CLIENT_AUTH = '2b06010505070302'
const SERVER_AUTH = '2b06010505070301'

function extension(oid: string, critical: boolean, value: Bytes): Bytes {
  const parts = [encodeElement(OBJECT_IDENTIFIER, [bytesOfHex(oid)])]
  if (critical) parts.push(encodeElement(1, [new Uint8Array([0xff])]))
  return encodeSequence([...parts, encodeElement(OCTET_STRING, [value])])
}

function time(seconds: number): Bytes {
  const date = new Date(seconds * 1000).toISOString().replace(/[-:T]|\.\d+/g, '')
  // RFC 5280 4.1.2.5: UTCTime up to 2049.
  return date < '2050' ? encodeElement(0x17, [utf8Bytes(date.slice(2))]) : encodeElement(GENERALIZED_TIME, [utf8Bytes(date)])
}

function keyIdOf(spki: Bytes): Bytes {
  return new Uint8Array(createHash('sha256').update(spki).digest().subarray(0, 20))
}

let serial = 1

interface Issuer {
  name: Bytes
  key: KeyObject
  keyId: Bytes
  /** What travels after a leaf: nothing for a root. */
  chainPem: string
}

export function createTestAuthority(name: string, above: Issuer | null = null): TestAuthority {
  const now = Math.floor(Date.now() / 1000)

  function issue(issuer: Issuer | null, subject: Bytes, extensions: (spki: Bytes) => Bytes[], notAfter = now + 86400): Credential {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const spki = new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }))
    const algorithm = signatureAlgorithmIdentifier('ecdsa-sha256')
    const tbs = encodeSequence([
      encodeElement(0xa0, [encodeElement(INTEGER, [new Uint8Array([2])])]),
      encodeUnsigned(new Uint8Array([1, serial >> 16, serial >> 8, serial++])),
      algorithm,
      issuer?.name ?? subject,
      encodeSequence([time(now - 3600), time(notAfter)]),
      subject,
      spki,
      encodeElement(0xa3, [
        encodeSequence([
          ...extensions(spki),
          extension(SUBJECT_KEY_ID, false, encodeElement(OCTET_STRING, [keyIdOf(spki)])),
          ...(issuer ? [extension(AUTHORITY_KEY_ID, false, encodeSequence([encodeElement(0x80, [issuer.keyId])]))] : []),
        ]),
      ]),
    ])
    const signature = new Uint8Array(sign('sha256', tbs, issuer?.key ?? privateKey))
    const der = encodeSequence([tbs, algorithm, encodeBits(signature)])
    return {
      key: privateKey,
      keyPem: privateKey.export({ format: 'pem', type: 'pkcs8' }).toString(),
      certPem: encodePem('CERTIFICATE', der) + (issuer?.chainPem ?? ''),
      der,
      spki,
    }
  }

  const subject = encodeName([{ oid: COMMON_NAME, value: name }])
  const own = issue(above, subject, () => [
    extension(BASIC_CONSTRAINTS, true, encodeSequence([encodeElement(1, [new Uint8Array([0xff])])])),
    // keyCertSign and cRLSign
    extension(KEY_USAGE, true, encodeElement(3, [new Uint8Array([1, 0x06])])),
  ])
  const issuer: Issuer = { name: subject, key: own.key, keyId: keyIdOf(own.spki), chainPem: above ? own.certPem : '' }
  const leaf = (purpose: string): Bytes[] => [
    extension(KEY_USAGE, true, encodeElement(3, [new Uint8Array([7, 0x80])])),
    extension(EXTENDED_KEY_USAGE, false, encodeSequence([encodeElement(OBJECT_IDENTIFIER, [bytesOfHex(purpose)])])),
  ]

  return {
    ...own,
    intermediate: common => createTestAuthority(common, issuer),
    device: (id, membership, options = {}) =>
      issue(
        issuer,
        encodeName([
          { oid: COMMON_NAME, value: id },
          { oid: SERIAL_NUMBER, value: id },
        ]),
        () => [...leaf(options.purpose ?? CLIENT_AUTH), ...(membership ? [encodeFleetExtension(membership)] : [])],
        options.notAfter,
      ),
    service: common => issue(issuer, encodeName([{ oid: COMMON_NAME, value: common }]), () => leaf(CLIENT_AUTH)),
    server: () =>
      issue(issuer, encodeName([{ oid: COMMON_NAME, value: 'localhost' }]), () => [
        ...leaf(SERVER_AUTH),
        extension(
          SUBJECT_ALT_NAME,
          false,
          encodeSequence([
            encodeElement(0x82, [utf8Bytes('localhost')]),
            encodeElement(0x87, [concatBytes([new Uint8Array([127, 0, 0, 1])])]),
          ]),
        ),
      ]),
  }
}
