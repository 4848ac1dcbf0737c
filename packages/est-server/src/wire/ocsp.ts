// OCSP messages (RFC 6960, RFC 9654): what a responder is asked, read strictly, and what a client asks and is told, for our own checks. Pure;
// nothing here says whether an answer can be believed.

import {
  type Bytes,
  booleanValue,
  bytesOfHex,
  childrenOf,
  contentOf,
  type Element,
  encodeElement,
  encodeSequence,
  encodingOf,
  expectTag,
  GENERALIZED_TIME,
  INTEGER,
  integerBytes,
  OCTET_STRING,
  octetBits,
  oidValue,
  partsOf,
  readWhole,
  SEQUENCE,
  smallInteger,
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

export interface CertId {
  /** As received, to be repeated in the answer. */
  der: Bytes
  /** Hash algorithm and the two hashes, by which the issuer is found: the content before the serial. */
  issuer: Bytes
  /** Content octets. */
  serial: Bytes
}

export interface OcspQuestion {
  certIds: CertId[]
  /** The whole Nonce extension as received, to be repeated; null for none. */
  nonce: Bytes | null
}

/** Null for what is malformed, holds too much, or demands what we do not understand. A signature over the question is not looked at. */
export function parseOcspRequest(der: Bytes): OcspQuestion | null {
  if (der.length > ocspRequestBytesMax) return null
  try {
    const outer = partsOf(readWhole(der, SEQUENCE), SEQUENCE, 1, 2)
    if (outer.length === 2) expectTag(outer[1], 0xa0)
    const fields = partsOf(outer[0], SEQUENCE, 1, 4)
    let at = 0
    if (fields[at].tag === 0xa0) {
      // version v1 is the default, which DER leaves out; some clients write it.
      const [version] = childrenOf(fields[at++], 1)
      if (smallInteger(expectTag(version, INTEGER)) !== 0) return null
    }
    if (fields[at]?.tag === 0xa1) at++
    const requests = partsOf(fields[at++], SEQUENCE, 1, ocspRequestsMax)
    const extensions = fields[at] === undefined ? null : expectTag(fields[at++], 0xa2)
    if (at !== fields.length) return null
    const certIds: CertId[] = []
    for (const request of requests) {
      const parts = partsOf(request, SEQUENCE, 1, 2)
      // None of the extensions of a single request is known to us: one that is critical cannot be answered.
      if (parts.length === 2 && nonceOf(expectTag(parts[1], 0xa0), false) === undefined) return null
      certIds.push(certIdOf(parts[0]))
    }
    const nonce = extensions === null ? null : nonceOf(extensions, true)
    return nonce === undefined ? null : { certIds, nonce }
  } catch {
    return null
  }
}

function certIdOf(element: Element): CertId {
  const [algorithm, nameHash, keyHash, serial] = partsOf(element, SEQUENCE, 4, 4)
  expectTag(algorithm, SEQUENCE)
  expectTag(nameHash, OCTET_STRING)
  expectTag(keyHash, OCTET_STRING)
  return {
    der: encodingOf(element),
    issuer: element.bytes.subarray(element.content, keyHash.end),
    serial: integerBytes(serial),
  }
}

/** The Nonce among extensions, null for none; undefined when one is malformed, double, or critical and unknown. */
function nonceOf(wrapped: Element, known: boolean): Bytes | null | undefined {
  const [list] = childrenOf(wrapped, 1)
  let nonce: Bytes | null = null
  for (const extension of partsOf(list, SEQUENCE, 1, extensionsMax)) {
    const parts = partsOf(extension, SEQUENCE, 2, 3)
    const oid = oidValue(parts[0])
    const critical = parts.length === 3 && booleanValue(parts[1])
    const value = expectTag(parts[parts.length - 1], OCTET_STRING)
    if (known && oid === NONCE) {
      // RFC 9654 2.1: an OCTET STRING of 1 to 128 octets within the extension's own.
      const inner = readWhole(contentOf(value), OCTET_STRING)
      const octets = inner.end - inner.content
      if (nonce !== null || octets < 1 || octets > nonceOctetsMax) return undefined
      nonce = encodingOf(extension)
    } else if (critical) return undefined
  }
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
  certId: CertId
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
  /** As OcspQuestion.nonce. */
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
  const nonce = extensions === undefined ? null : nonceOf(expectTag(extensions, 0xa1), true)
  const certificates = basic[3] === undefined ? [] : partsOf(childrenOf(expectTag(basic[3], 0xa0), 1)[0], SEQUENCE, 0, 8)
  return {
    tbs: encodingOf(basic[0]),
    algorithm: encodingOf(expectTag(basic[1], SEQUENCE)),
    signature: octetBits(basic[2]),
    certificates: certificates.map(encodingOf),
    responder: responder.tag === 0xa1 ? { name: encodingOf(id) } : { keyHash: contentOf(expectTag(id, OCTET_STRING)) },
    producedAt,
    responses,
    nonce: nonce ?? null,
  }
}

function singleOf(element: Element): SingleStatus {
  const parts = partsOf(element, SEQUENCE, 3, 5)
  const next = parts[3]?.tag === 0xa0 ? childrenOf(parts[3], 1)[0] : null
  return {
    certId: certIdOf(parts[0]),
    status: statusOf(parts[1]),
    thisUpdate: timeValue(expectTag(parts[2], GENERALIZED_TIME)),
    nextUpdate: next === null ? null : timeValue(expectTag(next, GENERALIZED_TIME)),
  }
}

function statusOf(element: Element): SingleStatus['status'] {
  if (element.tag === 0x80 && element.end === element.content) return { kind: 'good' }
  if (element.tag === 0x82 && element.end === element.content) return { kind: 'unknown' }
  const [at, reason] = childrenOf(expectTag(element, 0xa1), 2)
  const code = reason === undefined ? null : contentOf(expectTag(childrenOf(expectTag(reason, 0xa0), 1)[0], ENUMERATED))[0]
  return { kind: 'revoked', at: timeValue(expectTag(at, GENERALIZED_TIME)), reason: code }
}
