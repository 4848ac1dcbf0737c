// OCSP messages (RFC 6960, RFC 9654): what a responder is asked, read strictly, and what a client asks and is told, for our own checks. Pure;
// nothing here says whether an answer can be believed.

import {
  BOOLEAN,
  type Bytes,
  bytesOfHex,
  childrenOf,
  contentOf,
  deviceError,
  type Element,
  encodeElement,
  encodeSequence,
  encodingOf,
  expectTag,
  GENERALIZED_TIME,
  INTEGER,
  OBJECT_IDENTIFIER,
  OCTET_STRING,
  octetBits,
  oidValue,
  partsOf,
  readWhole,
  SEQUENCE,
  timeValue,
} from '@birthmark/device-sdk/core'

const NONCE = '2b0601050507300102' // 1.3.6.1.5.5.7.48.1.2
const BASIC_RESPONSE = '2b0601050507300101' // 1.3.6.1.5.5.7.48.1.1
const ENUMERATED = 0x0a

/** Certificates in one question: a chain and its siblings. Each costs a look-up, none a signature of its own. */
export const ocspRequestsMax = 16
/** A question about 16 certificates, signed, with the asker's certificate; most have 80 octets. */
export const ocspRequestBytesMax = 8192
/** RFC 9654 2.1. */
const nonceOctetsMax = 128
const extensionsMax = 16

/** Where a CertID stands in its question. All are offsets, so that reading one leaves nothing behind but these numbers. */
export interface CertIdPlace {
  at: number
  /** Hash algorithm and the two hashes, by which the issuer is found, up to the serial's element. */
  issuer: number
  serialElement: number
  /** Content octets, up to `end`. */
  serial: number
  end: number
}

export interface OcspQuestion {
  /** As received. The CertIDs and the nonce are repeated from it. */
  der: Bytes
  certIds: CertIdPlace[]
  /** The whole Nonce extension; both the same for none. */
  nonceAt: number
  nonceEnd: number
}

// A question is read by offsets, without an object for each of its elements: at a signature every forty microseconds, what the reader leaves to be
// collected would cost more than the reading. As strict as the core's reader, which the answers' reader below uses.

/** Where the element that was entered last ends. Set by `enter`, read before the next call; nothing here waits in between. */
let end = 0

/** What is thrown for a malformed question, and caught a few lines above: it has no stack, since nobody reads it. */
const malformed = { malformed: true }

/** Offset of the content of the element of `tag` at `at`, which must end at or before `limit`. */
function enter(bytes: Bytes, at: number, limit: number, tag: number): number {
  let content = at + 2
  let length = bytes[at + 1]
  if (at + 2 > limit || bytes[at] !== tag) throw malformed
  if (length > 0x7f) {
    // Minimal lengths (X.690 10.1); a question has at most 8,192 octets.
    const octets = length & 0x7f
    if (octets === 0 || octets > 2 || at + 2 + octets > limit) throw malformed
    length = octets === 1 ? bytes[at + 2] : (bytes[at + 2] << 8) | bytes[at + 3]
    if (length < (octets === 1 ? 0x80 : 0x100)) throw malformed
    content += octets
  }
  end = content + length
  if (end > limit) throw malformed
  return content
}

/** Offset of the content of an element that must end exactly at `limit`. */
function enterWhole(bytes: Bytes, at: number, limit: number, tag: number): number {
  const content = enter(bytes, at, limit, tag)
  if (end !== limit) throw malformed
  return content
}

const NONCE_OCTETS = bytesOfHex(NONCE)

/**
 * Null for what is malformed, holds too much, or demands what we do not understand. A signature over the question and the asker's name are not looked
 * at (RFC 6960 4.1.2 leaves both to policy); beyond their outermost form nothing is.
 */
export function parseOcspRequest(der: Bytes): OcspQuestion | null {
  if (der.length > ocspRequestBytesMax) return null
  try {
    return readRequest(der)
  } catch (error) {
    if (error === malformed) return null
    throw error
  }
}

function readRequest(der: Bytes): OcspQuestion {
  const outer = enterWhole(der, 0, der.length, SEQUENCE)
  const outerEnd = end
  let at = enter(der, outer, outerEnd, SEQUENCE)
  const fieldsEnd = end
  if (fieldsEnd < outerEnd) enterWhole(der, fieldsEnd, outerEnd, 0xa0)
  if (der[at] === 0xa0) {
    // version v1 is the default, which DER leaves out; some clients write it.
    const version = enter(der, at, fieldsEnd, 0xa0)
    const after = end
    if (after - version !== 3 || der[version] !== INTEGER || der[version + 1] !== 1 || der[version + 2] !== 0) throw malformed
    at = after
  }
  if (der[at] === 0xa1) {
    enter(der, at, fieldsEnd, 0xa1)
    at = end
  }
  let request = enter(der, at, fieldsEnd, SEQUENCE)
  const listEnd = end
  const certIds: CertIdPlace[] = []
  while (request < listEnd) {
    if (certIds.length === ocspRequestsMax) throw malformed
    const certId = enter(der, request, listEnd, SEQUENCE)
    const requestEnd = end
    certIds.push(readCertId(der, certId, requestEnd))
    // readCertId leaves `end` at the end of the CertID.
    if (end < requestEnd) nonceWithin(der, end, requestEnd, 0xa0, false)
    request = requestEnd
  }
  if (certIds.length === 0) throw malformed
  const nonceAt = listEnd < fieldsEnd ? nonceWithin(der, listEnd, fieldsEnd, 0xa2, true) : -1
  return { der, certIds, nonceAt, nonceEnd: nonceAt < 0 ? nonceAt : end }
}

function readCertId(der: Bytes, at: number, limit: number): CertIdPlace {
  const content = enter(der, at, limit, SEQUENCE)
  const certIdEnd = end
  enter(der, content, certIdEnd, SEQUENCE)
  enter(der, end, certIdEnd, OCTET_STRING)
  enter(der, end, certIdEnd, OCTET_STRING)
  const issuerEnd = end
  const serial = enterWhole(der, issuerEnd, certIdEnd, INTEGER)
  // Minimal (X.690 8.3.2): no nine equal bits in front.
  const [first, second] = [der[serial], der[serial + 1]]
  const octets = certIdEnd - serial
  if (octets === 0 || (octets > 1 && ((first === 0 && second < 0x80) || (first === 0xff && second >= 0x80)))) throw malformed
  end = certIdEnd
  return { at, issuer: content, serialElement: issuerEnd, serial, end: certIdEnd }
}

/** Whether the octets of a question from `from` to `to` are these. */
export function sameOctets(bytes: Bytes, from: number, to: number, expected: Bytes): boolean {
  if (to - from !== expected.length) return false
  for (let i = 0; i < expected.length; i++) if (bytes[from + i] !== expected[i]) return false
  return true
}

/**
 * Where the Nonce stands among the extensions in the element of `tag` from `at` to `limit`, and `end` at its end; -1 for none. `known`: here a nonce
 * is known.
 */
function nonceWithin(der: Bytes, at: number, limit: number, tag: number, known: boolean): number {
  let extension = enterWhole(der, enterWhole(der, at, limit, tag), limit, SEQUENCE)
  let nonce = -1
  let nonceEnd = -1
  if (extension === limit) throw malformed
  for (let count = 0; extension < limit; count++) {
    if (count === extensionsMax) throw malformed
    const oid = enter(der, extension, limit, SEQUENCE)
    const extensionEnd = end
    const name = enter(der, oid, extensionEnd, OBJECT_IDENTIFIER)
    const nameEnd = end
    let critical = false
    let value = nameEnd
    if (der[value] === BOOLEAN) {
      const flag = enter(der, value, extensionEnd, BOOLEAN)
      if (end - flag !== 1 || (der[flag] !== 0xff && der[flag] !== 0)) throw malformed
      critical = der[flag] === 0xff
      value = end
    }
    const content = enterWhole(der, value, extensionEnd, OCTET_STRING)
    if (known && sameOctets(der, name, nameEnd, NONCE_OCTETS)) {
      // RFC 9654 2.1: an OCTET STRING of 1 to 128 octets within the extension's own.
      const inner = enterWhole(der, content, extensionEnd, OCTET_STRING)
      const octets = extensionEnd - inner
      if (nonce >= 0 || octets < 1 || octets > nonceOctetsMax) throw malformed
      nonce = extension
      nonceEnd = extensionEnd
    } else if (critical) throw malformed
    extension = extensionEnd
  }
  end = nonceEnd
  return nonce
}

/** RFC 5019 5 and RFC 6960 A.1: the question in a URL, base64, its + / = escaped or not, also in the URL's own alphabet or without padding. */
export function ocspRequestOfPath(text: string): Bytes | null {
  // 4/3 of the octets, three characters for each that is escaped.
  if (text.length === 0 || text.length > ocspRequestBytesMax * 2) return null
  let base64: string
  try {
    base64 = decodeURIComponent(text)
  } catch {
    return null
  }
  base64 = base64.replaceAll('-', '+').replaceAll('_', '/').replace(/=+$/, '')
  if (!/^[A-Za-z0-9+/]+$/.test(base64) || base64.length % 4 === 1) return null
  return Buffer.from(base64, 'base64')
}

// ——— The asker's side.

const SHA_256_IDENTIFIER = bytesOfHex('300d06096086480165030402010500')

/** A question about one certificate, by hashes of its issuer's name and key (SHA-256, RFC 6960 4.1.1); `nonce` of 1 to 128 octets or null. */
export function encodeOcspRequest(issuerNameSha256: Bytes, issuerKeySha256: Bytes, serial: Bytes, nonce: Bytes | null): Bytes {
  const hashes = [issuerNameSha256, issuerKeySha256].map(hash => encodeElement(OCTET_STRING, [hash]))
  const certId = encodeSequence([SHA_256_IDENTIFIER, ...hashes, encodeElement(INTEGER, [serial])])
  const list = encodeSequence([encodeSequence([certId])])
  if (nonce === null) return encodeSequence([encodeSequence([list])])
  const value = encodeElement(OCTET_STRING, [encodeElement(OCTET_STRING, [nonce])])
  const extension = encodeSequence([encodeElement(0x06, [bytesOfHex(NONCE)]), value])
  return encodeSequence([encodeSequence([list, encodeElement(0xa2, [encodeSequence([extension])])])])
}

export interface SingleStatus {
  /** DER CertID, and the content octets of its serial. */
  certId: { der: Bytes; serial: Bytes }
  status: { kind: 'good' } | { kind: 'revoked'; at: number; reason: number | null } | { kind: 'unknown' }
  thisUpdate: number
  nextUpdate: number | null
}

export interface OcspResponse {
  /** What was signed, as received. */
  tbs: Bytes
  /** DER AlgorithmIdentifier. */
  algorithm: Bytes
  signature: Bytes
  /** DER certificates that came along. */
  certificates: Bytes[]
  /** The responder: DER Name, or the SHA-1 of its key. */
  responder: { name: Bytes } | { keyHash: Bytes }
  producedAt: number
  responses: SingleStatus[]
  /** The whole Nonce extension as received; null for none. */
  nonce: Bytes | null
}

/** OCSPResponseStatus beside `successful`: an answer that nobody signed. */
export const ocspErrors = { malformedRequest: 1, internalError: 2, tryLater: 3, sigRequired: 5, unauthorized: 6 } as const
export type OcspError = keyof typeof ocspErrors

/** Throws the reader's errors (`der_malformed`, `der_limit`) for what is not an OCSP response; a bare error status is its name. */
export function parseOcspResponse(der: Bytes): OcspResponse | OcspError {
  const outer = partsOf(readWhole(der, SEQUENCE), SEQUENCE, 1, 2)
  const status = contentOf(expectTag(outer[0], ENUMERATED))
  if (status.length !== 1 || status[0] !== 0) {
    const name = Object.entries(ocspErrors).find(([, code]) => status.length === 1 && code === status[0])?.[0]
    if (name === undefined || outer.length !== 1) expectTag(undefined, ENUMERATED)
    return name as OcspError
  }
  const [bytes] = childrenOf(expectTag(outer[1], 0xa0), 1)
  const [type, body] = partsOf(bytes, SEQUENCE, 2, 2)
  if (oidValue(type) !== BASIC_RESPONSE) expectTag(undefined, SEQUENCE)
  const basic = partsOf(readWhole(contentOf(expectTag(body, OCTET_STRING)), SEQUENCE), SEQUENCE, 3, 4)
  const fields = partsOf(basic[0], SEQUENCE, 3, 5)
  let at = 0
  if (fields[at].tag === 0xa0) at++
  const responder = fields[at++]
  const [id] = childrenOf(responder, 1)
  const producedAt = timeValue(expectTag(fields[at++], GENERALIZED_TIME))
  const responses = partsOf(fields[at++], SEQUENCE, 0, ocspRequestsMax).map(singleOf)
  const extensions = fields[at]
  let nonce: Bytes | null = null
  if (extensions !== undefined)
    for (const extension of partsOf(childrenOf(expectTag(extensions, 0xa1), 1)[0], SEQUENCE, 1, extensionsMax))
      if (oidValue(childrenOf(extension, 3)[0]) === NONCE) nonce = encodingOf(extension)
  const certificates = basic[3] === undefined ? [] : partsOf(childrenOf(expectTag(basic[3], 0xa0), 1)[0], SEQUENCE, 0, 8)
  return {
    tbs: encodingOf(basic[0]),
    algorithm: encodingOf(expectTag(basic[1], SEQUENCE)),
    signature: octetBits(basic[2]),
    certificates: certificates.map(encodingOf),
    responder: responder.tag === 0xa1 ? { name: encodingOf(id) } : { keyHash: contentOf(expectTag(id, OCTET_STRING)) },
    producedAt,
    responses,
    nonce,
  }
}

function singleOf(element: Element): SingleStatus {
  const parts = partsOf(element, SEQUENCE, 3, 5)
  const next = parts[3]?.tag === 0xa0 ? childrenOf(parts[3], 1)[0] : null
  return {
    certId: answeredCertId(parts[0]),
    status: statusOf(parts[1]),
    thisUpdate: timeValue(expectTag(parts[2], GENERALIZED_TIME)),
    nextUpdate: next === null ? null : timeValue(expectTag(next, GENERALIZED_TIME)),
  }
}

/** In an answer: refused by the reader's errors. */
function answeredCertId({ bytes, head, end: limit }: Element): SingleStatus['certId'] {
  try {
    const { at, serial, end } = readCertId(bytes, head, limit)
    return { der: bytes.subarray(at, end), serial: bytes.subarray(serial, end) }
  } catch (error) {
    if (error !== malformed) throw error
    throw deviceError('der_malformed', 'CertID')
  }
}

function statusOf(element: Element): SingleStatus['status'] {
  if (element.tag === 0x80 && element.end === element.content) return { kind: 'good' }
  if (element.tag === 0x82 && element.end === element.content) return { kind: 'unknown' }
  const [at, reason] = childrenOf(expectTag(element, 0xa1), 2)
  const code = reason === undefined ? null : contentOf(expectTag(childrenOf(expectTag(reason, 0xa0), 1)[0], ENUMERATED))[0]
  return { kind: 'revoked', at: timeValue(expectTag(at, GENERALIZED_TIME)), reason: code }
}
