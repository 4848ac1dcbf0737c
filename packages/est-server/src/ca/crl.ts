// Certificate revocation lists (RFC 5280 5) as bytes: entries, what stands before and after them, and the envelope around what was signed. Pure.
// A list is written in pieces, so that one of a million entries need never be in memory; which certificates are on it is the caller's business.

import {
  AUTHORITY_KEY_ID,
  BOOLEAN,
  type Bytes,
  bytesOfHex,
  encodeBits,
  encodeElement,
  encodeInteger,
  encodeSequence,
  INTEGER,
  OBJECT_IDENTIFIER,
  OCTET_STRING,
  SEQUENCE,
  signatureAlgorithmIdentifier,
} from '@birthmark/device-sdk/core'
import { encodeTime } from './certificate-template.ts'
import type { Issuer } from './issuer-key.ts'

const CRL_NUMBER = '551d14' // 2.5.29.20
const ISSUING_DISTRIBUTION_POINT = '551d1c' // 2.5.29.28
const REASON_CODE_EXTENSION = bytesOfHex('300c300a0603551d1504030a01') // crlEntryExtensions of a reasonCode, up to its value

/** Since when a certificate is revoked, and why: CRLReason or null. */
export interface RevocationFact {
  at: number
  reason: number | null
}

/**
 * The reason as a list may give it: `unspecified` is left out (RFC 5280 5.3.1), and so are certificateHold and removeFromCRL, which promise a way
 * back that there is not.
 */
export function listedReason(reason: number | null): number | null {
  return reason !== null && [1, 2, 3, 4, 5, 9, 10].includes(reason) ? reason : null
}

/** Header of an element of `length` octets, however many. */
export function derHeader(tag: number, length: number): Bytes {
  if (length < 0x80) return new Uint8Array([tag, length])
  const octets: number[] = []
  for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) octets.unshift(rest % 256)
  return new Uint8Array([tag, 0x80 | octets.length, ...octets])
}

/** Certificates that were revoked together. `serials`: content octets of INTEGERs, `serialBytes` each (below 100), one after the other. */
export interface RevokedRun {
  serials: Bytes
  serialBytes: number
  fact: RevocationFact
}

/** What of an entry stands before and after its serial. */
function aroundSerial({ serialBytes, fact }: RevokedRun): { head: Bytes; tail: Bytes } {
  const reason = listedReason(fact.reason)
  const time = encodeTime(fact.at)
  const tail = Buffer.concat(reason === null ? [time] : [time, REASON_CODE_EXTENSION, new Uint8Array([reason])])
  return { head: new Uint8Array([SEQUENCE, 2 + serialBytes + tail.length, INTEGER, serialBytes]), tail }
}

/** Octets of the entries of a run. */
export function entriesBytes(run: RevokedRun): number {
  const { head, tail } = aroundSerial(run)
  return (run.serials.length / run.serialBytes) * (head.length + run.serialBytes + tail.length)
}

/** Writes the entries of a run to `out` from `at` on, and gives where they end. */
export function writeEntries(run: RevokedRun, out: Buffer, at: number): number {
  const { head, tail } = aroundSerial(run)
  const { serials, serialBytes } = run
  const each = head.length + serialBytes + tail.length
  const end = at + (serials.length / serialBytes) * each
  // One entry for all of them, again and again: only the serial differs.
  out.fill(Buffer.concat([head, new Uint8Array(serialBytes), tail]), at, end)
  let from = 0
  for (let to = at + head.length; to < end; to += each) for (let i = 0; i < serialBytes; i++) out[to + i] = serials[from++]
  return end
}

export interface CrlShape {
  number: number
  thisUpdate: number
  nextUpdate: number
  /** URLs by which certificates name this list, for a list of a part of them; null for one of all. */
  distributionPoint: string[] | null
}

function extension(oid: string, critical: boolean, value: Bytes): Bytes {
  const flag = critical ? [encodeElement(BOOLEAN, [new Uint8Array([0xff])])] : []
  return encodeSequence([encodeElement(OBJECT_IDENTIFIER, [bytesOfHex(oid)]), ...flag, encodeElement(OCTET_STRING, [value])])
}

/**
 * IssuingDistributionPoint (RFC 5280 5.2.5): the names under which certificates know this list, and that it speaks of no CA. It is what tells a
 * part from the whole; without it a list that lacks a certificate would say that the certificate is good.
 */
function issuingDistributionPoint(urls: string[]): Bytes {
  const names = urls.map(url => encodeElement(0x86, [Buffer.from(url, 'latin1')]))
  const onlyContainsUserCerts = encodeElement(0x81, [new Uint8Array([0xff])])
  return encodeSequence([encodeElement(0xa0, [encodeElement(0xa0, names)]), onlyContainsUserCerts])
}

/** What stands before and after `entriesBytes` octets of entries in the TBSCertList. */
export function crlFrame(issuer: Issuer, shape: CrlShape, entriesBytes: number): { before: Bytes; after: Bytes } {
  const extensions = [
    extension(AUTHORITY_KEY_ID, false, encodeSequence([encodeElement(0x80, [issuer.keyId])])),
    extension(CRL_NUMBER, false, encodeInteger(shape.number)),
  ]
  if (shape.distributionPoint !== null)
    extensions.push(extension(ISSUING_DISTRIBUTION_POINT, true, issuingDistributionPoint(shape.distributionPoint)))
  const after = encodeElement(0xa0, [encodeSequence(extensions)])
  const fields = Buffer.concat([
    encodeInteger(1),
    signatureAlgorithmIdentifier(issuer.algorithm),
    issuer.certificate.subject,
    encodeTime(shape.thisUpdate),
    encodeTime(shape.nextUpdate),
    // RFC 5280 5.1.2.6: no certificates, no list of them.
    ...(entriesBytes === 0 ? [] : [derHeader(SEQUENCE, entriesBytes)]),
  ])
  return { before: Buffer.concat([derHeader(SEQUENCE, fields.length + entriesBytes + after.length), fields]), after }
}

/** What stands before and after a TBSCertList of `tbsBytes` octets in the signed list. */
export function crlEnvelope(issuer: Issuer, signature: Bytes, tbsBytes: number): { before: Bytes; after: Bytes } {
  const after = Buffer.concat([signatureAlgorithmIdentifier(issuer.algorithm), encodeBits(signature)])
  return { before: derHeader(SEQUENCE, tbsBytes + after.length), after }
}
