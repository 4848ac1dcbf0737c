// What a refusal or failure looks like on the wire: the one table from code to status, sentence and next step. A code without a row does
// not compile. The detail that comes with a refusal names the culprit; the row says what to do about it. Nothing here names a secret,
// a path of this machine or a stack.

import type { RefusalCode } from '../registrar/refusal.ts'

/** What HTTP itself refuses, before any story is asked. */
export type RequestProblemCode =
  | 'not_found'
  | 'method_not_allowed'
  | 'operation_not_offered'
  | 'request_malformed'
  | 'header_too_large'
  | 'expectation_refused'
  | 'content_encoding_refused'
  | 'content_type_refused'
  | 'body_too_large'
  | 'body_timeout'
  | 'pipelining_refused'
  | 'closing'

export type ProblemCode = RefusalCode | RequestProblemCode

interface Row {
  status: number
  /** Used where the caller has no more exact detail. */
  sentence: string
  next: string
}

const birth = 'Use the birth certificate with its intermediates for simpleenroll'
const operational = 'Use the certificate that this server issued for simplereenroll'
const profile = "Leave it out of the CSR: what a certificate holds comes from the server's profile"
const fleetOps = 'Ask fleet operations'
const later = 'Send the same request again after Retry-After seconds'

const table: Record<ProblemCode, Row> = {
  // 401: who is asking could not be established.
  credentials_required: {
    status: 401,
    sentence: 'no client certificate and no one-time secret',
    next: 'Open TLS with the birth certificate, or send the one-time secret by Basic authentication',
  },
  certificate_malformed: {
    status: 401,
    sentence: 'the client certificate is malformed',
    next: 'Check its DER with: openssl x509 -text',
  },
  certificate_untrusted: {
    status: 401,
    sentence: 'the client certificate leads to no trust anchor',
    next: "Send the intermediates too, and check that the server was given the manufacturer's root",
  },
  certificate_expired: {
    status: 401,
    sentence: 'the client certificate is outside its validity',
    next: `Check both clocks. ${birth} if the operational certificate ran out`,
  },
  certificate_not_birth: { status: 401, sentence: 'the client certificate is no birth certificate', next: birth },
  certificate_unknown: { status: 401, sentence: 'this server did not issue the client certificate', next: birth },
  secret_refused: {
    status: 401,
    sentence: 'the one-time secret is wrong',
    next: 'Check user and secret, or have a new one minted',
  },
  secret_expired: { status: 401, sentence: 'the one-time secret has expired', next: 'Have a new one minted' },
  secret_used: { status: 401, sentence: 'the one-time secret has been used', next: 'Have a new one minted' },

  token_refused: { status: 401, sentence: 'the bearer token is not accepted', next: 'Have its issuer make another one' },
  token_expired: { status: 401, sentence: 'the bearer token has expired', next: 'Have its issuer make another one' },
  token_used: { status: 401, sentence: 'the bearer token was used for another key', next: 'Have its issuer make another one' },
  proof_refused: {
    status: 401,
    sentence: "the device's proof does not hold",
    next: 'Sign path, body and time of this very request with the key of the certificate that is shown',
  },

  // 403: who is asking is known, and may not.
  device_unknown: { status: 403, sentence: 'the device is in no manifest', next: 'Import the manifest that lists it' },
  device_key_mismatch: {
    status: 403,
    sentence: 'the manifest lists this device with another birth key',
    next: `${fleetOps}: either the manifest is old or the device is not what it says`,
  },
  device_revoked: { status: 403, sentence: 'the device is revoked', next: `${fleetOps}: it has to be admitted anew` },
  device_quarantined: {
    status: 403,
    sentence: 'the device is in quarantine',
    next: `Keep the identity and retry later; ${fleetOps}: birthmark revoke list`,
  },
  group_revoked: {
    status: 403,
    sentence: 'a group of the device is revoked',
    next: `${fleetOps}: nobody enrolls into a revoked group`,
  },
  status_unknown: { status: 403, sentence: 'whether the device is revoked is not known', next: 'Retry later; unknown is refused' },
  operation_unknown: {
    status: 404,
    sentence: 'no such EST operation',
    next: 'Use cacerts, simpleenroll or simplereenroll under /.well-known/est/',
  },
  label_unknown: { status: 404, sentence: 'no such label', next: 'Use a configured label, or none' },
  secret_not_allowed: { status: 403, sentence: 'a one-time secret does not serve here', next: operational },
  token_not_allowed: { status: 403, sentence: 'a bearer token does not serve here', next: operational },
  gateway_not_admitted: {
    status: 403,
    sentence: 'no device is carried here by this gateway',
    next: 'Put the gateway into a group that the profile names under gateways, and let it use its newest certificate',
  },
  webhook_refused: { status: 403, sentence: "the owner's system refuses the device", next: fleetOps },
  birth_certificate_on_reenroll: { status: 403, sentence: 'a birth certificate cannot renew', next: operational },
  operational_certificate_required: { status: 403, sentence: 'renewing needs the operational certificate', next: operational },
  certificate_superseded: {
    status: 403,
    sentence: 'a newer certificate of this device exists',
    next: 'Use the newest certificate',
  },
  clone_suspected: {
    status: 403,
    sentence: 'the birth identity asks with another key than before',
    next: `${fleetOps}: either the device was reset or there are two of it`,
  },
  birth_not_admitted: {
    status: 403,
    sentence: 'the profile admits other birth certificates',
    next: "Use the label of this device's product line, or widen the profile's patterns",
  },
  certificate_of_other_profile: {
    status: 403,
    sentence: 'the certificate was issued under another label',
    next: 'Renew under the label that it was issued under',
  },
  issuer_not_admitted: {
    status: 403,
    sentence: 'certificates of this issuer do not renew here',
    next: birth,
  },
  renewal_too_early: { status: 403, sentence: 'it is too early to renew', next: 'Renew at the time that is named' },
  enrolling_again_not_allowed: {
    status: 403,
    sentence: 'the device is enrolled already',
    next: `${operational}, or ask fleet operations`,
  },
  name_not_possible: {
    status: 403,
    sentence: "the profile's names have no value for this device",
    next: `${fleetOps}: the device's groups or the profile's templates have to change`,
  },
  approval_denied: { status: 403, sentence: 'a person denied the request', next: `${fleetOps}: they can still approve it` },
  device_id_not_allowed: {
    status: 403,
    sentence: 'the device id has characters or a length that cannot be used',
    next: 'Use 1-64 letters, digits or ._:- as serialNumber',
  },
  subject_not_own: {
    status: 403,
    sentence: "the CSR's subject is not the device's",
    next: 'Leave the subject empty or use the device id',
  },
  subject_changed: {
    status: 403,
    sentence: 'the subject differs from the certificate being renewed',
    next: 'Keep subject and subjectAltName when renewing (RFC 7030 4.2.2)',
  },
  subject_alt_name_not_allowed: { status: 403, sentence: 'the CSR asks for a name the profile does not allow', next: profile },
  ca_not_allowed: { status: 403, sentence: 'the CSR asks to be a CA', next: profile },
  key_usage_not_allowed: { status: 403, sentence: 'the CSR asks for a key usage the profile does not allow', next: profile },
  extended_key_usage_not_allowed: { status: 403, sentence: 'the CSR asks for a purpose the profile does not allow', next: profile },
  extension_not_allowed: { status: 403, sentence: 'the CSR asks for an extension the profile does not allow', next: profile },
  key_is_birth_key: {
    status: 403,
    sentence: 'the CSR holds the birth key',
    next: 'Make a new key for the operational certificate',
  },
  key_is_ca_key: { status: 403, sentence: 'the CSR holds a CA key', next: 'Make a new key' },
  key_of_another_device: {
    status: 403,
    sentence: 'the CSR holds the key of another device',
    next: 'Make a new key on the device itself',
  },
  key_revoked: { status: 403, sentence: 'the CSR holds a revoked key', next: 'Make a new key' },
  channel_binding_mismatch: {
    status: 403,
    sentence: 'the CSR was made for another TLS connection',
    next: 'Build the CSR inside the connection that carries it (RFC 7030 3.5)',
  },
  scep_not_allowed: { status: 403, sentence: 'the profile does not allow SCEP', next: 'Use EST, or allow scep in the profile' },

  channel_binding_required: {
    status: 403,
    sentence: 'the CSR names no TLS connection',
    next: 'Put tls-exporter (TLS 1.3, RFC 9266) or tls-unique (TLS 1.2) in base64 as challengePassword into the CSR',
  },
  server_keys_not_allowed: {
    status: 403,
    sentence: 'this server makes no device keys here',
    next: 'Make the key on the device and use simpleenroll',
  },

  // 400 and its kin: the request itself is wrong.
  csr_malformed: {
    status: 400,
    sentence: 'the CSR is malformed',
    next: 'Send one DER CSR in base64; check it with: openssl req -text -verify',
  },
  csr_signature: { status: 400, sentence: "the CSR's signature does not verify", next: 'Sign the CSR with the key it holds' },
  key_unsupported: { status: 400, sentence: 'the key type is not supported', next: 'Use P-256' },
  key_weak: { status: 400, sentence: 'the key is weak', next: 'Make a new key from a good random source' },
  key_recipient_unusable: {
    status: 400,
    sentence: 'the key cannot be encrypted to the client',
    next: 'Open TLS with an EC or RSA certificate, and name no other key in the CSR',
  },
  transaction_conflict: {
    status: 400,
    sentence: 'the transaction id belongs to another request',
    next: 'Take a new transaction id for a new key',
  },
  not_found: { status: 404, sentence: 'nothing here', next: 'EST lives under /.well-known/est/, spelled exactly so' },
  method_not_allowed: { status: 405, sentence: 'wrong method', next: 'Use the method that Allow names' },
  operation_not_offered: {
    status: 501,
    sentence: 'this server does not offer the operation',
    next: 'Use simpleenroll or simplereenroll',
  },
  request_malformed: { status: 400, sentence: 'no well-formed HTTP/1.1 request', next: 'Check framing, headers and target' },
  header_too_large: { status: 431, sentence: 'the request headers are too large', next: 'Send at most 16 KB of headers' },
  expectation_refused: { status: 417, sentence: 'an unknown Expect', next: 'Send Expect: 100-continue or none' },
  content_encoding_refused: { status: 415, sentence: 'the body has a content encoding', next: 'Send it without Content-Encoding' },
  content_type_refused: {
    status: 415,
    sentence: 'the body is no application/pkcs10',
    next: 'Send Content-Type: application/pkcs10',
  },
  body_too_large: { status: 413, sentence: 'the body is too large', next: 'Send one CSR in base64, at most 64 KB' },
  body_timeout: { status: 408, sentence: 'the body did not arrive in time', next: 'Send the request again' },
  pipelining_refused: {
    status: 503,
    sentence: 'another request of this connection is being answered',
    next: 'Wait for the answer before the next request',
  },

  // 503: not now. 500: the server failed, and which way is nobody's business outside.
  busy: { status: 503, sentence: 'the server is busy', next: later },
  closing: { status: 503, sentence: 'the server is stopping', next: later },
  store_unavailable: { status: 503, sentence: 'the record cannot be written', next: later },
  webhook_unavailable: { status: 503, sentence: "the owner's system gave no answer", next: later },
  token_keys_unavailable: { status: 503, sentence: 'bearer tokens cannot be checked now', next: later },
  issuer_unavailable: { status: 503, sentence: 'the issuing key is not available', next: later },
  clock_regressed: { status: 503, sentence: "the server's clock went back", next: later },
  certificates_too_often: {
    status: 429,
    sentence: 'too many certificates were made for the device',
    next: `${later}, with the newest certificate`,
  },
  profiles_superseded: { status: 503, sentence: 'another server has newer profiles', next: later },
  serial_conflict: { status: 500, sentence: 'no certificate could be made', next: later },
  lint_failed: { status: 500, sentence: 'no certificate could be made', next: `${fleetOps} and name the request id` },
  signature_wrong: { status: 500, sentence: 'no certificate could be made', next: `${fleetOps} and name the request id` },
  internal: { status: 500, sentence: 'internal error', next: `${fleetOps} and name the request id` },
}

export interface Problem {
  status: number
  headers: Record<string, string>
  body: string
}

export interface ProblemOptions {
  /** More exact than the row's sentence. Control characters are taken out: it may quote the peer. */
  detail?: string
  /** What to do where the row's advice is for another door. No full stop. */
  next?: string
  retryAfterSeconds?: number
  allow?: string
}

/** A detail quotes names out of certificates; this much tells them apart and keeps an answer small. */
const detailCharactersMax = 300

function oneLine(text: string): string {
  return text.slice(0, detailCharactersMax).replace(/[^\x20-\x7e\xa0-\ud7ff]/g, ' ')
}

export function statusOf(code: ProblemCode): number {
  return table[code].status
}

/** Status, headers but for Content-Length and x-request-id, and text of a refusal. */
export function problem(code: ProblemCode, options: ProblemOptions = {}): Problem {
  const row = table[code]
  const headers: Record<string, string> = { 'content-type': 'text/plain; charset=utf-8' }
  // RFC 7030 3.2.3: the challenge is what makes a client send its secret. One realm for all: it tells strangers nothing.
  // A bad token is answered in its own scheme (RFC 6750 3.1): a secret would be no better.
  if (row.status === 401)
    headers['www-authenticate'] = code.startsWith('token_')
      ? 'Bearer realm="est", error="invalid_token"'
      : 'Basic realm="est", charset="UTF-8"'
  if (options.allow !== undefined) headers.allow = options.allow
  // Seconds, never a date: a small client has no clock to subtract.
  const retryAfter = options.retryAfterSeconds ?? (row.status === 503 ? 5 : undefined)
  if (retryAfter !== undefined) headers['retry-after'] = String(Math.max(1, Math.ceil(retryAfter)))
  const detail = oneLine(options.detail || row.sentence)
  return { status: row.status, headers, body: `${code}: ${detail}\nNext: ${options.next ?? row.next}.\n` }
}
