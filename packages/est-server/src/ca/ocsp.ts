// OCSP responses (RFC 6960 4.2) as bytes: what a responder signs and the message around it. Pure, and on the hot path of every question that no
// cache answers: all lengths are known before the first octet is written, so each goes once to where it will be sent from.

import {
  BIT_STRING,
  type Bytes,
  bytesOfHex,
  encodeElement,
  encodeSequence,
  GENERALIZED_TIME,
  OCTET_STRING,
  SEQUENCE,
  signatureAlgorithmIdentifier,
} from '@birthmark/device-sdk/core'
import { listedReason, type RevocationFact } from './crl.ts'

const ENUMERATED = 0x0a
const BASIC_RESPONSE = bytesOfHex('06092b0601050507300101') // OID 1.3.6.1.5.5.7.48.1.1
const SUCCESSFUL = bytesOfHex('0a0100')
const GOOD = bytesOfHex('8000')
const UNKNOWN = bytesOfHex('8200')

export interface OcspStatement {
  /** Where the CertID stands in the question; it is repeated as it was asked. */
  certId: { at: number; end: number }
  /** Null: not a certificate of this issuer. */
  status: 'good' | RevocationFact | null
}

/** An answer that wants its signature. */
export interface OcspDraft {
  /** The ResponseData, to be signed. */
  data: Bytes
  /** Holds it, with room in front for the headers and behind for the signature. */
  slab: Bytes
  dataAt: number
}

export interface OcspEncoder {
  draft(
    question: { der: Bytes; nonceAt: number; nonceEnd: number },
    statements: OcspStatement[],
    thisUpdate: number,
    nextUpdate: number,
  ): OcspDraft
  /**
   * The whole OCSPResponse, a part of a slab that it shares: whoever keeps it copies it. Throws RangeError for a signature that the algorithm does
   * not make.
   */
  response(draft: OcspDraft, signature: Bytes): Bytes
}

/** The longest signature of an algorithm: P-521's in DER, RSA-8192's. */
function signatureBytesMax(algorithm: string): number {
  if (algorithm.startsWith('ecdsa-')) return 139
  if (algorithm.startsWith('rsa-')) return 1024
  return algorithm === 'ed25519' ? 64 : 3309
}

/** Seven headers at most, the status and the type's OID. */
const frontBytesMax = 34
/** Room for some 150 answers: to take memory for each would cost as much as writing it. */
const slabBytes = 65_536
/** Dates of revocations that are remembered written: as many as a fleet has rules in use at a time. */
const revokedMax = 1024

const headerBytes = (length: number) => (length < 0x80 ? 2 : length < 0x100 ? 3 : 4)
const elementBytes = (length: number) => headerBytes(length) + length

// Each writes at `at` and gives where it ended. Of the few dozen octets at a time a call of `set` costs more than the loop.

function put(out: Bytes, at: number, bytes: Bytes): number {
  return copy(out, at, bytes, 0, bytes.length)
}

function copy(out: Bytes, at: number, bytes: Bytes, from: number, to: number): number {
  for (let i = from; i < to; i++) out[at++] = bytes[i]
  return at
}

function putHeader(out: Bytes, at: number, tag: number, length: number): number {
  out[at++] = tag
  if (length >= 0x100) {
    out[at++] = 0x82
    out[at++] = length >> 8
  } else if (length >= 0x80) out[at++] = 0x81
  out[at++] = length & 0xff
  return at
}

const generalizedTime = (seconds: number) =>
  encodeElement(GENERALIZED_TIME, [Buffer.from(`${new Date(seconds * 1000).toISOString().slice(0, 19).replace(/[-T:]/g, '')}Z`)])

function revokedStatus({ at, reason }: RevocationFact): Bytes {
  const code = listedReason(reason)
  const parts = [generalizedTime(at)]
  if (code !== null) parts.push(new Uint8Array([0xa0, 0x03, ENUMERATED, 0x01, code]))
  return encodeElement(0xa1, parts)
}

/** `keyHash`: SHA-1 of the responder's public key, which names it. `certificates`: DER, for clients that know the issuer alone. */
export function ocspEncoder(signer: { algorithm: string; keyHash: Bytes; certificates: Bytes[] }): OcspEncoder {
  const responder = encodeElement(0xa2, [encodeElement(OCTET_STRING, [signer.keyHash])])
  const algorithm = signatureAlgorithmIdentifier(signer.algorithm)
  const { certificates } = signer
  const behind = certificates.length === 0 ? new Uint8Array() : encodeElement(0xa0, [encodeSequence(certificates)])
  const signatureMax = signatureBytesMax(signer.algorithm)
  const tailBytesMax = algorithm.length + elementBytes(1 + signatureMax) + behind.length

  let slab = new Uint8Array(slabBytes)
  let used = 0

  // Answers of one second share their times.
  let timeOf = -1
  let time: Bytes = new Uint8Array()
  let nextOf = -1
  let next: Bytes = new Uint8Array()
  const revoked = new Map<number, Bytes>()

  function statusBytes(status: OcspStatement['status']): Bytes {
    if (status === 'good') return GOOD
    if (status === null) return UNKNOWN
    // Reasons have four bits.
    const key = status.at * 16 + (status.reason ?? 0)
    let bytes = revoked.get(key)
    if (bytes === undefined) {
      bytes = revokedStatus(status)
      if (revoked.size >= revokedMax) revoked.clear()
      revoked.set(key, bytes)
    }
    return bytes
  }

  const singleBytes = ({ certId, status }: OcspStatement) =>
    certId.end - certId.at + statusBytes(status).length + time.length + next.length

  function putSingle(out: Bytes, at: number, question: Bytes, statement: OcspStatement): number {
    at = putHeader(out, at, SEQUENCE, singleBytes(statement))
    at = copy(out, at, question, statement.certId.at, statement.certId.end)
    at = put(out, at, statusBytes(statement.status))
    at = put(out, at, time)
    return put(out, at, next)
  }

  return {
    draft({ der, nonceAt, nonceEnd }, statements, thisUpdate, nextUpdate) {
      if (thisUpdate !== timeOf) {
        time = generalizedTime(thisUpdate)
        timeOf = thisUpdate
      }
      if (nextUpdate !== nextOf) {
        next = encodeElement(0xa0, [generalizedTime(nextUpdate)])
        nextOf = nextUpdate
      }
      let listed = 0
      for (let i = 0; i < statements.length; i++) listed += elementBytes(singleBytes(statements[i]))
      const nonce = nonceEnd - nonceAt
      const extensions = nonce === 0 ? 0 : elementBytes(elementBytes(nonce))
      const content = responder.length + time.length + elementBytes(listed) + extensions
      const bytes = frontBytesMax + elementBytes(content) + tailBytesMax
      if (used + bytes > slab.length) {
        slab = new Uint8Array(Math.max(slabBytes, bytes))
        used = 0
      }
      const out = slab
      const dataAt = used + frontBytesMax
      used += bytes
      let at = putHeader(out, dataAt, SEQUENCE, content)
      at = put(out, at, responder)
      at = put(out, at, time)
      at = putHeader(out, at, SEQUENCE, listed)
      for (let i = 0; i < statements.length; i++) at = putSingle(out, at, der, statements[i])
      if (nonce > 0) {
        at = putHeader(out, at, 0xa1, elementBytes(nonce))
        at = putHeader(out, at, SEQUENCE, nonce)
        at = copy(out, at, der, nonceAt, nonceEnd)
      }
      return { data: new Uint8Array(out.buffer, dataAt, at - dataAt), slab: out, dataAt }
    },

    response({ data, slab: out, dataAt }, signature) {
      if (signature.length > signatureMax) throw new RangeError(`a signature of ${signature.length} octets`)
      let at = put(out, dataAt + data.length, algorithm)
      at = putHeader(out, at, BIT_STRING, 1 + signature.length)
      out[at++] = 0
      at = put(out, at, signature)
      const end = put(out, at, behind)
      const basic = end - dataAt
      const bytes = BASIC_RESPONSE.length + elementBytes(elementBytes(basic))
      const content = SUCCESSFUL.length + elementBytes(elementBytes(bytes))
      const start = end - elementBytes(content)
      at = putHeader(out, start, SEQUENCE, content)
      at = put(out, at, SUCCESSFUL)
      at = putHeader(out, at, 0xa0, elementBytes(bytes))
      at = putHeader(out, at, SEQUENCE, bytes)
      at = put(out, at, BASIC_RESPONSE)
      at = putHeader(out, at, OCTET_STRING, elementBytes(basic))
      putHeader(out, at, SEQUENCE, basic)
      return new Uint8Array(out.buffer, start, end - start)
    },
  }
}

/** An OCSPResponse without a signature: one of `ocspErrors`. */
export function ocspErrorResponse(code: number): Bytes {
  return new Uint8Array([SEQUENCE, 3, ENUMERATED, 1, code])
}
