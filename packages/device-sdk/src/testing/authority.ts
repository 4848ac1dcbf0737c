// Certificate authorities for tests: a fresh key each, P-256 unless told, profiles as the real ones have them. They sign whatever they are asked to;
// the keys last as long as the process.

import { createHash, createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'
import { signatureAlgorithmIdentifier } from '../core/algorithm.ts'
import { encodePem } from '../core/base64.ts'
import { type Bytes, bytesOfHex, utf8Bytes } from '../core/bytes.ts'
import {
  AUTHORITY_KEY_ID,
  BASIC_CONSTRAINTS,
  EXTENDED_KEY_USAGE,
  KEY_USAGE,
  SUBJECT_ALT_NAME,
  SUBJECT_KEY_ID,
} from '../core/certificate.ts'
import {
  BIT_STRING,
  BOOLEAN,
  encodeBits,
  encodeElement,
  encodeInteger,
  encodeSequence,
  encodeUnsigned,
  GENERALIZED_TIME,
  OBJECT_IDENTIFIER,
  OCTET_STRING,
  UTC_TIME,
} from '../core/der.ts'
import { COMMON_NAME, encodeName } from '../core/distinguished-name.ts'

const CLIENT_AUTH = '2b06010505070302' // 1.3.6.1.5.5.7.3.2
const SERVER_AUTH = '2b06010505070301' // 1.3.6.1.5.5.7.3.1

export type Profile = 'ca' | 'birth' | 'client' | 'server'

export interface CertificateRequest {
  profile: Profile
  /** DER Name. */
  subject: Bytes
  /** DER SubjectPublicKeyInfo. */
  spki: Bytes
  /** Seconds since 1970. */
  notBefore: number
  notAfter: number
  /** DER extensions beside the profile's own. */
  extensions?: Bytes[]
}

export interface TestAuthority {
  certificate: Bytes
  pem: string
  spki: Bytes
  privateKeyPem: string
  issue(request: CertificateRequest): Bytes
  /** A CA below this one. */
  subordinate(name: string, kind?: KeyKind): TestAuthority
}

/** Every kind of key that a device or a CA may have. */
export const keyKinds = ['P-256', 'P-384', 'RSA-2048', 'RSA-3072', 'RSA-4096', 'Ed25519', 'ML-DSA-44', 'ML-DSA-65'] as const
export type KeyKind = (typeof keyKinds)[number]

/** A new key, and the signature algorithm that goes with it. */
export function generateTestKey(kind: KeyKind): { privateKey: KeyObject; algorithm: string } {
  switch (kind) {
    case 'P-256':
    case 'P-384':
      return {
        privateKey: generateKeyPairSync('ec', { namedCurve: kind }).privateKey,
        algorithm: kind === 'P-256' ? 'ecdsa-sha256' : 'ecdsa-sha384',
      }
    case 'Ed25519':
      return { privateKey: generateKeyPairSync('ed25519').privateKey, algorithm: 'ed25519' }
    case 'ML-DSA-44':
      return { privateKey: generateKeyPairSync('ml-dsa-44').privateKey, algorithm: 'ml-dsa-44' }
    case 'ML-DSA-65':
      return { privateKey: generateKeyPairSync('ml-dsa-65').privateKey, algorithm: 'ml-dsa-65' }
    default: {
      const modulusLength = Number(kind.slice(4))
      return { privateKey: generateKeyPairSync('rsa', { modulusLength }).privateKey, algorithm: 'rsa-pkcs1-sha256' }
    }
  }
}

/** Signature in X.509 form. */
export function signWith(key: KeyObject, algorithm: string, message: Bytes): Bytes {
  return new Uint8Array(sign(/sha\d+$/.exec(algorithm)?.[0] ?? null, message, key))
}

/** The end of time in X.509 (RFC 5280 4.1.2.5): what birth certificates say. */
export const neverExpires = 253402300799

export function encodeExtension(oid: string, critical: boolean, value: Bytes): Bytes {
  const marked = critical ? [encodeElement(BOOLEAN, [new Uint8Array([0xff])])] : []
  return encodeSequence([encodeElement(OBJECT_IDENTIFIER, [bytesOfHex(oid)]), ...marked, encodeElement(OCTET_STRING, [value])])
}

function encodeTime(seconds: number): Bytes {
  const digits = new Date(seconds * 1000).toISOString().replace(/[-:T]|\.\d+/g, '')
  const short = seconds < 2524608000
  return encodeElement(short ? UTC_TIME : GENERALIZED_TIME, [utf8Bytes(short ? digits.slice(2) : digits)])
}

const keyIdOf = (spki: Bytes): Bytes => new Uint8Array(createHash('sha1').update(spki).digest())

function extensionsOf(profile: Profile, spki: Bytes, issuerSpki: Bytes): Bytes[] {
  const purposes = profile === 'server' ? [SERVER_AUTH] : profile === 'client' ? [CLIENT_AUTH] : []
  // Named bits: keyCertSign and cRLSign, or digitalSignature.
  const usage = profile === 'ca' ? [1, 0x06] : [7, 0x80]
  return [
    encodeExtension(SUBJECT_KEY_ID, false, encodeElement(OCTET_STRING, [keyIdOf(spki)])),
    encodeExtension(AUTHORITY_KEY_ID, false, encodeSequence([encodeElement(0x80, [keyIdOf(issuerSpki)])])),
    encodeExtension(KEY_USAGE, true, encodeElement(BIT_STRING, [new Uint8Array(usage)])),
    encodeExtension(
      BASIC_CONSTRAINTS,
      true,
      encodeSequence(profile === 'ca' ? [encodeElement(BOOLEAN, [new Uint8Array([0xff])])] : []),
    ),
    ...(purposes.length
      ? [
          encodeExtension(
            EXTENDED_KEY_USAGE,
            false,
            encodeSequence(purposes.map(p => encodeElement(OBJECT_IDENTIFIER, [bytesOfHex(p)]))),
          ),
        ]
      : []),
  ]
}

/** subjectAltName for a server on this machine: 127.0.0.1, ::1, localhost. */
export function loopbackNames(): Bytes {
  const v6 = new Uint8Array(16)
  v6[15] = 1
  return encodeExtension(
    SUBJECT_ALT_NAME,
    false,
    encodeSequence([
      encodeElement(0x87, [new Uint8Array([127, 0, 0, 1])]),
      encodeElement(0x87, [v6]),
      encodeElement(0x82, [utf8Bytes('localhost')]),
    ]),
  )
}

function authority(name: Bytes, key: KeyObject, signing: string, certificate: Bytes | null): TestAuthority {
  const spki = new Uint8Array(createPublicKey(key).export({ type: 'spki', format: 'der' }))
  const issue = (request: CertificateRequest): Bytes => {
    const algorithm = signatureAlgorithmIdentifier(signing)
    const serial = randomBytes(16)
    serial[0] = (serial[0] & 0x3f) | 0x40
    const tbs = encodeSequence([
      encodeElement(0xa0, [encodeInteger(2)]),
      encodeUnsigned(serial),
      algorithm,
      name,
      encodeSequence([encodeTime(request.notBefore), encodeTime(request.notAfter)]),
      request.subject,
      request.spki,
      encodeElement(0xa3, [encodeSequence([...extensionsOf(request.profile, request.spki, spki), ...(request.extensions ?? [])])]),
    ])
    return encodeSequence([tbs, algorithm, encodeBits(signWith(key, signing, tbs))])
  }
  const forCa = (subject: Bytes, subjectSpki: Bytes) =>
    issue({ profile: 'ca', subject, spki: subjectSpki, notBefore: 1577836800, notAfter: neverExpires })
  const own = certificate ?? forCa(name, spki)
  return {
    certificate: own,
    pem: encodePem('CERTIFICATE', own),
    spki,
    privateKeyPem: key.export({ type: 'pkcs8', format: 'pem' }).toString(),
    issue,
    subordinate(below, kind = 'P-256') {
      const subject = encodeName([{ oid: COMMON_NAME, value: below }])
      const { privateKey, algorithm } = generateTestKey(kind)
      const belowSpki = new Uint8Array(createPublicKey(privateKey).export({ type: 'spki', format: 'der' }))
      return authority(subject, privateKey, algorithm, forCa(subject, belowSpki))
    },
  }
}

/** A self-signed root named CN=`name`, valid from 2020 to the end of time. */
export function testAuthority(name: string, kind: KeyKind = 'P-256'): TestAuthority {
  const { privateKey, algorithm } = generateTestKey(kind)
  return authority(encodeName([{ oid: COMMON_NAME, value: name }]), privateKey, algorithm, null)
}
