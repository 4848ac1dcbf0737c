// What an EST server's answer is worth. Before: bytes from a server that TLS authenticated and nothing more. After: a verdict, in which
// `issued` means well formed and, for an enrollment, bound to the key that asked; whether the certificate chains to an anchor that the
// device trusts is judged by validate-path.ts. Nothing here follows a redirect or undoes a content encoding.

import { decodeBase64 } from './base64.ts'
import { type Bytes, equalBytes } from './bytes.ts'
import { type Certificate, parseCertificate } from './certificate.ts'
import { parseCertsOnly } from './cms.ts'
import { fail } from './errors.ts'
import { estBodyBytesMax } from './est-request.ts'
import type { HttpResponse } from './http-message.ts'

export type EstVerdict =
  /** 200. For an enrollment the new certificate comes first and the others are its chain, in the server's order; for cacerts all that the CA sent. */
  | { kind: 'issued'; certificates: Certificate[] }
  | {
      /**
       * `pending`: 202, the same request again later (RFC 7030 4.2.3). `unauthorized`: 401. `unavailable`: 429 or 5xx. `refused`: the rest.
       * A redirect too: EST 3.2.1 wants a person's consent to leave the origin, and a device has nobody to ask.
       */
      kind: 'pending' | 'unauthorized' | 'refused' | 'unavailable'
      /** The status and the first 200 printable ASCII characters of the body, so that a log line stays one line. */
      detail: string
      /** 1 … 86,400. */
      retryAfterSeconds: number
    }

/** What a 202 or 503 without a usable Retry-After means. */
export const retryAfterDefault = 60
/** A longer Retry-After is cut to this, so that a server's slip cannot silence a fleet for good. */
export const retryAfterMax = 86400

/** Seconds of a Retry-After (RFC 9110 10.2.3), 1 … 86,400; an absent one reads as `undefined`, which is neither form. A date needs a trusted `now`; without it the default holds. */
function retryAfterSeconds(value: string, now: number | undefined): number {
  let seconds = retryAfterDefault
  if (/^\d+$/.test(value)) seconds = +value
  else if (now! >= 0 && / GMT$/.test(value)) seconds = Date.parse(value) / 1000 - now!
  // Written so that NaN, from a date that is none, falls to the default.
  return seconds < 1 ? 1 : seconds > 0 ? Math.min(Math.ceil(seconds), retryAfterMax) : retryAfterDefault
}

const malformed = (detail: string): never => fail('est_response_malformed', detail)

function certificatesOf(response: HttpResponse): Certificate[] {
  const headers = response.headers
  const type = headers['content-type']
  if (!/^application\/pkcs7-mime *;/i.test(type + ';')) malformed('content type ' + type)
  // RFC 7030 knows no content coding. Undoing one would let a small answer grow without bound.
  if ((headers['content-encoding'] || 'identity') !== 'identity') malformed('content encoding')
  const found = parseCertsOnly(decodeBase64(response.body, estBodyBytesMax))
  if (!found.length) malformed('empty')
  return found.map(parseCertificate)
}

/**
 * Judges the answer to cacerts (RFC 7030 4.1.3). `now`: seconds since 1970, absent or −1 when not trusted (only a Retry-After date needs it).
 * Throws `est_response_malformed`, `base64_malformed`, `cms_malformed`, `certificate_*` or `der_*` for a 200 that is none.
 */
export function judgeCacerts(response: HttpResponse, now?: number): EstVerdict {
  const status = response.status
  if (status === 200) return { kind: 'issued', certificates: certificatesOf(response) }
  let detail = status + ' '
  for (let i = 0; i < response.body.length && i < 200; i++) detail += String.fromCharCode(response.body[i])
  return {
    kind: status === 202 ? 'pending' : status === 401 ? 'unauthorized' : status === 429 || status > 499 ? 'unavailable' : 'refused',
    detail: detail.replace(/[^ -~]/g, ' '),
    retryAfterSeconds: retryAfterSeconds(response.headers['retry-after'], now),
  }
}

/**
 * Judges the answer to simpleenroll and simplereenroll (4.2.3). A 200 without a certificate for `expectedSpki` (DER SubjectPublicKeyInfo
 * of the request) throws `est_certificate_mismatch`; otherwise as judgeCacerts.
 */
export function judgeEnroll(response: HttpResponse, expectedSpki: Bytes, now?: number): EstVerdict {
  const verdict = judgeCacerts(response, now)
  if (verdict.kind === 'issued') {
    const all = verdict.certificates
    const at = all.map(one => equalBytes(one.spki, expectedSpki)).indexOf(true)
    if (at < 0) fail('est_certificate_mismatch', 'key')
    all.unshift(all.splice(at, 1)[0])
  }
  return verdict
}
