// OCSP responses (RFC 6960 4.2) as bytes: what a responder signs and the message around it. Pure, and on the hot path of every question that no
// cache answers, so written from end to front without a level being copied into the next.

import {
  BIT_STRING,
  type Bytes,
  bytesOfHex,
  GENERALIZED_TIME,
  OCTET_STRING,
  SEQUENCE,
  signatureAlgorithmIdentifier,
} from '@birthmark/device-sdk/core'
import { listedReason, type RevocationFact } from './crl.ts'
import { derWriter } from './der-writer.ts'

const ENUMERATED = 0x0a
const BASIC_RESPONSE = bytesOfHex('06092b0601050507300101') // OID 1.3.6.1.5.5.7.48.1.1
const SUCCESSFUL = bytesOfHex('0a0100')
const GOOD = bytesOfHex('8000')
const UNKNOWN = bytesOfHex('8200')
const NO_UNUSED_BITS = new Uint8Array(1)

/** Sixteen answers, an ML-DSA-65 signature and a responder's certificate with another. */
const responseBytesMax = 16_384

export interface OcspStatement {
  /** DER CertID, as it was asked. */
  certId: Bytes
  /** Null: not a certificate of this issuer. */
  status: 'good' | RevocationFact | null
}

export interface OcspEncoder {
  /** The ResponseData to be signed. `nonce`: the whole extension, repeated. */
  data(statements: OcspStatement[], thisUpdate: number, nextUpdate: number, nonce: Bytes | null): Bytes
  /** The whole OCSPResponse around it, in Node's pool: whoever keeps it copies it. */
  response(data: Bytes, signature: Bytes): Bytes
}

/** `keyHash`: SHA-1 of the responder's public key, which names it. `certificates`: DER, for clients that know the issuer alone. */
export function ocspEncoder(signer: { algorithm: string; keyHash: Bytes; certificates: Bytes[] }): OcspEncoder {
  const w = derWriter(responseBytesMax)
  const algorithm = signatureAlgorithmIdentifier(signer.algorithm)

  let timeOf = -1
  let time = ''
  let nextOf = -1
  let next = ''
  const text = (seconds: number) => `${new Date(seconds * 1000).toISOString().slice(0, 19).replace(/[-T:]/g, '')}Z`
  const putTime = (digits: string) => {
    const end = w.mark()
    w.text(digits)
    w.wrap(GENERALIZED_TIME, end)
  }
  const reasons = new Map([1, 2, 3, 4, 5, 9, 10].map(code => [code, new Uint8Array([0xa0, 0x03, ENUMERATED, 0x01, code])]))

  function put({ certId, status }: OcspStatement): void {
    const end = w.mark()
    const nextEnd = w.mark()
    putTime(next)
    w.wrap(0xa0, nextEnd)
    putTime(time)
    if (status === 'good') w.put(GOOD)
    else if (status === null) w.put(UNKNOWN)
    else {
      const revoked = w.mark()
      const reason = listedReason(status.reason)
      if (reason !== null) w.put(reasons.get(reason)!)
      putTime(text(status.at))
      w.wrap(0xa1, revoked)
    }
    w.put(certId)
    w.wrap(SEQUENCE, end)
  }

  return {
    data(statements, thisUpdate, nextUpdate, nonce) {
      // Answers of one second share their times.
      if (thisUpdate !== timeOf) {
        time = text(thisUpdate)
        timeOf = thisUpdate
      }
      if (nextUpdate !== nextOf) {
        next = text(nextUpdate)
        nextOf = nextUpdate
      }
      const end = w.mark()
      if (nonce !== null) {
        w.put(nonce)
        w.wrap(SEQUENCE, end)
        w.wrap(0xa1, end)
      }
      const list = w.mark()
      for (let i = statements.length - 1; i >= 0; i--) put(statements[i])
      w.wrap(SEQUENCE, list)
      putTime(time)
      const id = w.mark()
      w.put(signer.keyHash)
      w.wrap(OCTET_STRING, id)
      w.wrap(0xa2, id)
      w.wrap(SEQUENCE, end)
      return w.takePooled()
    },

    response(data, signature) {
      const end = w.mark()
      if (signer.certificates.length > 0) {
        for (let i = signer.certificates.length - 1; i >= 0; i--) w.put(signer.certificates[i])
        w.wrap(SEQUENCE, end)
        w.wrap(0xa0, end)
      }
      const bits = w.mark()
      w.put(signature)
      w.put(NO_UNUSED_BITS)
      w.wrap(BIT_STRING, bits)
      w.put(algorithm)
      w.put(data)
      for (const tag of [SEQUENCE, OCTET_STRING]) w.wrap(tag, end)
      w.put(BASIC_RESPONSE)
      for (const tag of [SEQUENCE, 0xa0]) w.wrap(tag, end)
      w.put(SUCCESSFUL)
      w.wrap(SEQUENCE, end)
      return w.takePooled()
    },
  }
}

/** An OCSPResponse without a signature: one of `ocspErrors`. */
export function ocspErrorResponse(code: number): Bytes {
  return new Uint8Array([SEQUENCE, 3, ENUMERATED, 1, code])
}
