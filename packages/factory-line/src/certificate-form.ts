// A certificate in two stages: what will be signed (recorded by the caller before it asks for a signature), then the signed whole,
// released only after its own signature has been verified. Promises well-formed v3 DER; what it says is the caller's.

import type { KeyObject } from 'node:crypto'
import {
  type Bytes,
  encodeBits,
  encodeElement,
  encodeInteger,
  encodeSequence,
  encodeUnsigned,
  GENERALIZED_TIME,
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

/** Signs and verifies what came back: a broken signer (FAULTS 41) must not put its mark on a product. */
export async function signAndVerify(toBeSigned: Bytes, key: SigningKey, verifier: KeyObject = importKey(key.spki)): Promise<Bytes> {
  const signature = await key.sign(toBeSigned)
  if (!verifyWithKey(verifier, key.algorithm, toBeSigned, signature))
    throw new FactoryError('signature_bad', 'the signer returned a signature that does not verify; take it out of service')
  return signature
}

/** The whole certificate, verified. */
export async function signCertificate(toBeSigned: Bytes, key: SigningKey): Promise<Bytes> {
  const signature = await signAndVerify(toBeSigned, key)
  return encodeSequence([toBeSigned, signatureAlgorithmIdentifier(key.algorithm), encodeBits(signature)])
}

/** 16 octets: time-ordered prefix (milliseconds), then 80 bits from `random`; top bit clear, so positive within RFC 5280's 20. */
export function certificateSerial(nowSeconds: number, random: (length: number) => Bytes): Bytes {
  const serial = new Uint8Array(16)
  const milliseconds = Math.floor(nowSeconds * 1000)
  for (let i = 0; i < 6; i++) serial[i] = Math.floor(milliseconds / 2 ** (8 * (5 - i))) & 0xff
  serial[0] = (serial[0] & 0x7f) | 0x40
  serial.set(random(10), 6)
  return serial
}
