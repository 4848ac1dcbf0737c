// What an EST client sends (RFC 7030 as RFC 8951 corrects it): three operations as plain HttpRequest values. Who sends them, over which TLS
// identity, and what the answer is worth, is said elsewhere (the Http port, est-response.ts).

import { base64Of, inLines } from './base64.ts'
import { type Bytes, utf8Bytes } from './bytes.ts'
import { fail } from './errors.ts'
import type { HttpRequest } from './http-message.ts'

export interface BasicSecret {
  user: string
  password: string
}

export interface EnrollOptions {
  /** RFC 7030 3.2.2: the CA's label in the path; null for the server's default CA. */
  label: string | null
  /** simplereenroll (4.2.2), over TLS with the certificate to be renewed; otherwise simpleenroll (4.2.1). */
  reenroll: boolean
  /** Only in answer to a 401 that asks for Basic (3.2.3): a secret is never volunteered. */
  basic: BasicSecret | null
}

/** A certs-only answer with eight certificates of RSA-4096 and 802.1AR names stays under 32 KiB in base64. */
export const estBodyBytesMax = 65536

/** A signer behind an HSM queue may take a while; a server that needs longer answers 202. */
export const estTimeoutSeconds = 60

function estRequest(label: string | null, operation: string, csr: Bytes | null): HttpRequest {
  // One path segment of unreserved characters (RFC 3986 2.3), not a dot segment: the label cannot lead elsewhere.
  if (label !== null && (label.length > 64 || !/^\w[\w.~-]*$/.test(label))) fail('est_refused', 'label')
  const body = csr && utf8Bytes(inLines(base64Of(csr), 64))
  const headers: HttpRequest['headers'] = { accept: 'application/pkcs7-mime' }
  if (body) headers['content-type'] = 'application/pkcs10'
  return {
    method: body ? 'POST' : 'GET',
    path: '/.well-known/est/' + (label ? label + '/' : '') + operation,
    headers: headers,
    body: body,
    bodyBytesMax: estBodyBytesMax,
    timeoutSeconds: estTimeoutSeconds,
  }
}

/** GET cacerts (4.1.2). Throws `est_refused` for a label that is no path segment. */
export function cacertsRequest(label: string | null): HttpRequest {
  return estRequest(label, 'cacerts', null)
}

/**
 * POST simpleenroll or simplereenroll of a DER PKCS#10. The body is base64 in lines of 64 (libest refuses longer ones); there is no
 * Content-Transfer-Encoding, which is no HTTP header (RFC 8951 2.1). Throws `est_refused` for a label that is no path segment.
 */
export function enrollRequest(csr: Bytes, options: EnrollOptions): HttpRequest {
  const request = estRequest(options.label, options.reenroll ? 'simplereenroll' : 'simpleenroll', csr)
  const basic = options.basic
  if (basic) request.headers.authorization = 'Basic ' + base64Of(utf8Bytes(basic.user + ':' + basic.password))
  return request
}
