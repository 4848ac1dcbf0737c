// EST's messages (RFC 7030, as RFC 8951 corrects it): which operation a path names, the CSR in a request body, the bodies of answers.
// Pure: bytes and text in and out, no socket, no decision about who may do what. What comes out of a request is not yet a well-formed
// CSR, only bytes that were well encoded.

import { type Bytes, decodeBase64, decodePem, inLines } from '@birthmark/device-sdk/core'
import { encodeCertificateBag } from './degenerate-data.ts'

export const estPrefix = '/.well-known/est/'

export type EstOperation = 'cacerts' | 'simpleenroll' | 'simplereenroll' | 'csrattrs' | 'serverkeygen' | 'fullcmc'

/** RFC 7030 3.2.2, each with the one method it is asked with. */
export const estMethods: Record<EstOperation, 'GET' | 'POST'> = {
  cacerts: 'GET',
  simpleenroll: 'POST',
  simplereenroll: 'POST',
  csrattrs: 'GET',
  serverkeygen: 'POST',
  fullcmc: 'POST',
}

export interface EstTarget {
  label: string | null
  operation: EstOperation
}

function operationOf(segment: string): EstOperation | null {
  return Object.hasOwn(estMethods, segment) ? (segment as EstOperation) : null
}

/**
 * What a path names, or null for nothing. Segments are compared as they stand: an encoded, doubled or differently cased one is another
 * name. A label may not be an operation's name (RFC 7030 3.2.2).
 */
export function parseEstPath(path: string): EstTarget | null {
  if (!path.startsWith(estPrefix)) return null
  const segments = path.slice(estPrefix.length).split('/')
  const operation = operationOf(segments[segments.length - 1])
  if (!operation || segments.length > 2) return null
  if (segments.length === 1) return { label: null, operation }
  const label = segments[0]
  if (!/^[A-Za-z0-9_][A-Za-z0-9._~-]{0,63}$/.test(label) || operationOf(label)) return null
  return { label, operation }
}

const hyphen = 0x2d

/**
 * The DER of a request body: as it is, in base64 of one line or many, or in PEM armour, as clients send it. Content-Transfer-Encoding is not looked
 * at (RFC 8951 3.1). Throws `base64_malformed` for anything else.
 */
export function csrOfBody(body: Bytes, bytesMax: number): Bytes {
  let at = 0
  // A SEQUENCE as it is. In base64 a CSR begins with M; its first character would be 0 for no SEQUENCE at all.
  if (body[0] === 0x30 && body.length <= bytesMax) return body
  while (at < body.length && body[at] <= 0x20) at++
  if (body[at] !== hyphen) return decodeBase64(body, bytesMax)
  for (const label of ['CERTIFICATE REQUEST', 'NEW CERTIFICATE REQUEST']) {
    const [csr] = decodePem(body, label, 1)
    if (csr) return csr
  }
  return decodeBase64(body, bytesMax)
}

/** RFC 7030 4.1.3. Also the answer to an enrollment; `smime-type` tells it from the other bodies of this type. */
export const certsOnlyType = 'application/pkcs7-mime; smime-type=certs-only'

/** In lines of 64: libest's decoder takes no longer one. In one line, without an end, for those that take no line end instead. */
function base64Text(bytes: Bytes, oneLine: boolean): string {
  // A tenth of the time of the device's own base64Of, at every answer.
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64')
  return oneLine ? text : inLines(text, 64)
}

/** The certs-only body. `certificates`: DER, the issued one first, since small clients take the first. */
export function certsOnlyBody(certificates: Bytes[], oneLine = false): Buffer<ArrayBuffer> {
  return Buffer.from(base64Text(encodeCertificateBag(certificates), oneLine), 'latin1')
}

/** RFC 7030 4.4.2: which kind of key the first part is. */
export const plainKeyType = 'application/pkcs8'
export const envelopedKeyType = 'application/pkcs7-mime; smime-type=server-generated-key'

/** A line that no base64 has. The parts are bounded and our own, so that it needs no randomness. */
const boundary = 'birthmark-server-generated-key'
export const keyAndCertificatesType = `multipart/mixed; boundary=${boundary}`

/** RFC 7030 4.4.2: the private key, then the certificate as simpleenroll would answer it. CRLF as RFC 2046 5.1.1 has it. */
export function keyAndCertificatesBody(key: Bytes, enveloped: boolean, certificates: Bytes[]): string {
  const part = (type: string, bytes: Bytes) =>
    `--${boundary}\r\nContent-Type: ${type}\r\nContent-Transfer-Encoding: base64\r\n\r\n${base64Text(bytes, false).replaceAll('\n', '\r\n')}`
  return `${part(enveloped ? envelopedKeyType : plainKeyType, key)}${part(certsOnlyType, encodeCertificateBag(certificates))}--${boundary}--\r\n`
}

/** Answers that spare a small client PKCS#7, or a script the conversion: the certificate alone in DER, and a PEM chain (RFC 8555 9.1). */
export const shortTypes = ['application/pkix-cert', 'application/pem-certificate-chain'] as const
export type ShortType = (typeof shortTypes)[number]

/** Which of them a request wants; null for EST's own. Only a type that is named counts: `*` is what clients send that mean nothing by it. */
export function shortTypeOf(accept: string | undefined): ShortType | null {
  // What nearly every EST client sends, or nothing.
  if (accept === undefined || accept === 'application/pkcs7-mime' || accept === '*/*') return null
  const named = accept.split(',', 8).map(part => part.split(';')[0].trim().toLowerCase())
  // Who can read PKCS#7 gets it.
  if (named.includes('application/pkcs7-mime')) return null
  return shortTypes.find(type => named.includes(type)) ?? null
}
