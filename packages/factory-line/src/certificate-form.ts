// A certificate in two stages: what will be signed (recorded by the caller before it asks for a signature), then the signed whole,
// released only after its own signature has been verified. Promises well-formed v3 DER; what it says is the caller's.

import type { KeyObject } from 'node:crypto'
import {
  BIT_STRING,
  type Bytes,
  encodeElement,
  encodeInteger,
  encodeSequence,
  encodeUnsigned,
  GENERALIZED_TIME,
  SEQUENCE,
  signatureAlgorithmIdentifier,
  UTC_TIME,
  utf8Bytes,
} from '@birthmark/device-sdk/core'
import { FactoryError } from './errors.ts'
import { importKey, type SigningKey, verifyWithKey } from './signing-key.ts'

/** 99991231235959Z: "no well-defined expiration date" (RFC 5280 4.1.2.5, 802.1AR 8.7). */
export const neverExpires = 253402300799

export interface CertificateForm {
  serial: Bytes
  issuer: Bytes
  subject: Bytes
  /** Seconds since 1970. */
  notBefore: number
  notAfter: number
  spki: Bytes
  extensions: Bytes[]
}

function encodeTime(seconds: number): Bytes {
  const digits = new Date(seconds * 1000).toISOString().replace(/[-:T]|\.\d+/g, '')
  // RFC 5280 4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050.
  return seconds < 2524608000
    ? encodeElement(UTC_TIME, [utf8Bytes(digits.slice(2))])
    : encodeElement(GENERALIZED_TIME, [utf8Bytes(digits)])
}

/** Validity (RFC 5280 4.1.2.5), in seconds since 1970. */
export function encodeValidity(notBefore: number, notAfter: number): Bytes {
  return encodeSequence([encodeTime(notBefore), encodeTime(notAfter)])
}

/** TBSCertificate (RFC 5280 4.1) for an issuer that signs with `algorithm`. */
export function encodeToBeSigned(form: CertificateForm, algorithm: string): Bytes {
  return encodeSequence([
    encodeElement(0xa0, [encodeInteger(2)]),
    encodeUnsigned(form.serial),
    signatureAlgorithmIdentifier(algorithm),
    form.issuer,
    encodeValidity(form.notBefore, form.notAfter),
    form.subject,
    form.spki,
    encodeElement(0xa3, [encodeSequence(form.extensions)]),
  ])
}

/** What a signer returned, once it verifies: a broken one (FAULTS 41) must not put its mark on a product. `verifier`: the signer's public key. */
export function judgeSignature(toBeSigned: Bytes, signature: Bytes, algorithm: string, verifier: KeyObject): Bytes {
  if (!verifyWithKey(verifier, algorithm, toBeSigned, signature))
    throw new FactoryError('signature_bad', 'the signer returned a signature that does not verify; take it out of service')
  return signature
}

/** The whole certificate, verified. */
export async function signCertificate(toBeSigned: Bytes, key: SigningKey): Promise<Bytes> {
  const signature = judgeSignature(toBeSigned, await key.sign(toBeSigned), key.algorithm, importKey(key.spki))
  return assembleCertificate(toBeSigned, signatureAlgorithmIdentifier(key.algorithm), signature)
}

/** Certificate (RFC 5280 4.1) of what was signed. `algorithm`: its AlgorithmIdentifier. In one copy, since every unit passes here. */
export function assembleCertificate(toBeSigned: Bytes, algorithm: Bytes, signature: Bytes): Bytes {
  const bits = 1 + lengthBytes(signature.length + 1) + 1 + signature.length
  const body = toBeSigned.length + algorithm.length + bits
  const bytes = Buffer.allocUnsafe(1 + lengthBytes(body) + body)
  let at = writeHeader(bytes, 0, SEQUENCE, body)
  bytes.set(toBeSigned, at)
  at += toBeSigned.length
  bytes.set(algorithm, at)
  at = writeHeader(bytes, at + algorithm.length, BIT_STRING, signature.length + 1)
  bytes[at++] = 0
  bytes.set(signature, at)
  return bytes
}

/** Octets of a DER length below 64 KiB, which no certificate of the line comes near. */
function lengthBytes(length: number): number {
  return length < 0x80 ? 1 : length < 0x100 ? 2 : 3
}

/** Returns where the content begins. */
function writeHeader(bytes: Buffer, at: number, tag: number, length: number): number {
  bytes[at] = tag
  const octets = lengthBytes(length)
  if (octets === 1) bytes[at + 1] = length
  else {
    bytes[at + 1] = 0x7f + octets
    if (octets === 2) bytes[at + 2] = length
    else bytes.writeUInt16BE(length, at + 2)
  }
  return at + 1 + octets
}

/** 16 octets: time-ordered prefix (milliseconds), then 80 bits from `random`; top bit clear, so positive within RFC 5280's 20. */
export function certificateSerial(nowSeconds: number, random: (length: number) => Bytes): Bytes {
  const serial = Buffer.alloc(16)
  writeCertificateSerial(serial, 0, nowSeconds, random)
  return serial
}

/** The same, written from `at` on. */
export function writeCertificateSerial(bytes: Buffer, at: number, nowSeconds: number, random: (length: number) => Bytes): void {
  bytes.writeUIntBE(Math.floor(nowSeconds * 1000), at, 6)
  bytes[at] = (bytes[at] & 0x7f) | 0x40
  bytes.set(random(10), at + 6)
}
