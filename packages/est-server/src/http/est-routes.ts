// EST over HTTP (RFC 7030 3.2): from request to enrollment story and back. Decides nothing about who may have what; refuses what is no
// EST request before a body is read, and reads no body of a client that shows no credential at all.

import { type Bytes, codeOf, decodeBase64, encodeBase64, encodePem, proofBytesMax, proofHeader } from '@birthmark/device-sdk/core'
import type { EnrollmentOutcome, EnrollmentRequest, Peer, ShownProof } from '../enrollment-request.ts'
import { createLogBudget } from '../log-budget.ts'
import { sha256 } from '../node-crypto.ts'
import type { Log } from '../ports.ts'
import type { ServerKeyOutcome } from '../server-key.ts'
import {
  certsOnlyBody,
  certsOnlyType,
  csrOfBody,
  type EstOperation,
  type EstTarget,
  estMethods,
  keyAndCertificatesBody,
  keyAndCertificatesType,
  parseEstPath,
  shortTypeOf,
} from '../wire/est.ts'
import { basicCredentials, bearerToken, type Credentials, withCredentials } from './client-certificate.ts'
import { type Answer, answer, type Exchange, pathOf, refuse } from './exchange.ts'
import type { Limits } from './limits.ts'
import { type HttpObserver, nobody } from './observer.ts'
import { type ProblemCode, type ProblemOptions, problem, statusOf } from './problem.ts'

/** The stories behind the routes. */
export interface EstService {
  enroll(request: EnrollmentRequest): Promise<EnrollmentOutcome>
  /** DER, for cacerts. Empty for an unknown label. */
  caCertificates(label: string | null): Bytes[]
  /** DER CsrAttrs for csrattrs, as far as the peer is recognised its names filled in; null for an unknown label. */
  csrAttributes?(peer: Peer, label: string | null): Promise<Bytes | null>
  /** Whether the peer's certificate was looked into and refused. */
  isStranger?(peer: Peer, label: string | null): boolean
  /** Makes a key for a device; absent where the server makes none. */
  generateKey?(request: EnrollmentRequest): Promise<ServerKeyOutcome>
  /** Whether the label's clients read base64 of one line only. */
  bodyInOneLine?(label: string | null): boolean
  /** Told when a peer with a certificate asks for anything but one: a device proves a new identity by a cacerts. */
  noteUse?(peer: Peer, label: string | null, proof?: ShownProof): Promise<void>
}

type Ask = (request: EnrollmentRequest) => Promise<EnrollmentOutcome | ServerKeyOutcome>

const nothing: Bytes = new Uint8Array(0)

/** Answers one request under estPrefix. What it throws is a failure of the server. */
export type EstEndpoint = (exchange: Exchange) => Answer | Promise<Answer>

/** `limits.bodyBytesMax` bounds the decoded CSR too. */
export function estEndpoint(service: EstService, limits: Limits, log: Log, observer: HttpObserver = nobody): EstEndpoint {
  const strangers = createLogBudget(log, { now: () => performance.now() / 1000 }, limits.processes)
  function refused({ requestId, peer, target }: Exchange, code: ProblemCode, options?: ProblemOptions): Answer {
    strangers.info(
      { requestId, code, status: statusOf(code), address: peer.address, target: target.slice(0, 200) },
      'EST request refused',
    )
    return refuse(requestId, code, options)
  }

  /** `renewAfter`: seconds, like Retry-After and for the same reason: a small client has no clock to subtract. */
  function certificatesAnswer(exchange: Exchange, label: string | null, certificates: Bytes[], renewAfter?: number): Answer {
    const { requestId } = exchange
    const short = shortTypeOf(exchange.header('accept'))
    const headers: Record<string, string> = short === null ? encoded(certsOnlyType) : { 'content-type': short }
    if (renewAfter !== undefined) headers['renew-after'] = String(renewAfter)
    if (short === 'application/pkix-cert') return answer(requestId, 200, headers, new Uint8Array(certificates[0]))
    if (short !== null) return answer(requestId, 200, headers, certificates.map(der => encodePem('CERTIFICATE', der)).join(''))
    return answer(requestId, 200, headers, certsOnlyBody(certificates, service.bodyInOneLine?.(label)))
  }

  async function cacerts(exchange: Exchange, label: string | null): Promise<Answer> {
    const certificates = service.caCertificates(label)
    if (certificates.length === 0) return refused(exchange, 'label_unknown')
    if (exchange.peer.chain) await service.noteUse?.(exchange.peer, label, proofOf(exchange, nothing))
    return certificatesAnswer(exchange, label, certificates)
  }

  async function csrattrs(exchange: Exchange, label: string | null): Promise<Answer> {
    // RFC 7030 4.5.2: nothing is asked for, and clients go on without.
    if (!service.csrAttributes) return answer(exchange.requestId, 204, {}, '')
    const attributes = await service.csrAttributes(exchange.peer, label)
    if (attributes === null) return refused(exchange, 'label_unknown')
    const whole = answer(
      exchange.requestId,
      200,
      encoded('application/csrattrs'),
      encodeBase64(attributes, service.bodyInOneLine?.(label) ? 0 : 64),
    )
    if (exchange.peer.chain && service.isStranger?.(exchange.peer, label)) whole.stranger = true
    return whole
  }

  function enroll(exchange: Exchange, operation: 'enroll' | 'reenroll', label: string | null, ask: Ask): Answer | Promise<Answer> {
    const encoding = exchange.header('content-encoding')
    // RFC 7030 knows no content coding, and undoing one would let 64 KB grow without bound.
    if (encoding !== undefined && encoding.toLowerCase() !== 'identity') return refused(exchange, 'content_encoding_refused')
    const authorization = exchange.header('authorization')
    const credentials = authorization === undefined ? null : credentialsOf(authorization)
    // Many clients show a secret only to a challenge (RFC 7030 3.2.3): this answer is the first half of their request.
    if (!credentials && !exchange.peer.chain) return challenge(exchange.requestId)
    if (!isPkcs10(exchange.header('content-type'))) return refused(exchange, 'content_type_refused')
    // Beside a certificate a secret is not looked at, so that the peer stays the one that its connection is remembered by.
    const peer = credentials && !exchange.peer.chain ? withCredentials(exchange.peer, credentials) : exchange.peer
    return enrollAs(peer, exchange, operation, label, ask)
  }

  async function enrollAs(
    peer: Peer,
    exchange: Exchange,
    operation: 'enroll' | 'reenroll',
    label: string | null,
    ask: Ask,
  ): Promise<Answer> {
    const body = await exchange.readBody()
    if (body.kind === 'refused') return refused(exchange, body.code)
    let csr = nothing
    let undecodable = ''
    try {
      csr = csrOfBody(body.bytes, limits.bodyBytesMax)
    } catch (error) {
      if (!codeOf(error)) throw error
      // The story is told all the same: it knows whether the sender may hear more than 401, and it keeps the record.
      undecodable = `the body is not the base64 of a CSR: ${(error as Error).message}`
    }
    const request: EnrollmentRequest = { operation, label, csr, peer, requestId: exchange.requestId }
    const proof = proofOf(exchange, body.bytes)
    if (proof) request.proof = proof
    return outcomeAnswer(exchange, label, await ask(request), undecodable)
  }

  /** `undecodable`: what is wrong with the body, where the story can only say that it was no CSR. */
  function outcomeAnswer(
    exchange: Exchange,
    label: string | null,
    outcome: EnrollmentOutcome | ServerKeyOutcome,
    undecodable: string,
  ): Answer {
    const { requestId } = exchange
    switch (outcome.kind) {
      case 'issued':
        if ('key' in outcome) return keyAnswer(requestId, outcome)
        return certificatesAnswer(exchange, label, [outcome.certificate, ...outcome.chain], outcome.renewAfterSeconds)
      case 'pending':
        // No text: BouncyCastle takes a body that it need not read for a broken stream.
        return answer(requestId, 202, { 'retry-after': String(Math.max(1, Math.ceil(outcome.retryAfterSeconds))) }, '')
      case 'unavailable':
        return refused(exchange, outcome.code, { detail: outcome.detail, retryAfterSeconds: outcome.retryAfterSeconds })
      default: {
        const detail = outcome.code === 'csr_malformed' && undecodable ? undecodable : outcome.detail
        const refusal = refused(exchange, outcome.code, { detail })
        // The certificate is the connection's and will not get better on it; judging another one costs another handshake.
        if (outcome.kind === 'unauthenticated' && exchange.peer.chain) refusal.headers.connection = 'close'
        return refusal
      }
    }
  }

  const askCertificate: Ask = request => service.enroll(request)
  const operations: Record<EstOperation, (exchange: Exchange, label: string | null) => Answer | Promise<Answer>> = {
    cacerts,
    simpleenroll: (exchange, label) => enroll(exchange, 'enroll', label, askCertificate),
    simplereenroll: (exchange, label) => enroll(exchange, 'reenroll', label, askCertificate),
    csrattrs,
    serverkeygen: (exchange, label) =>
      service.generateKey && exchange.header(proofHeader) === undefined
        ? enroll(exchange, 'enroll', label, service.generateKey)
        : refused(exchange, 'operation_not_offered', { detail: 'this server makes no device keys' }),
    fullcmc: exchange => refused(exchange, 'operation_not_offered', { detail: 'this server does not speak full CMC' }),
  }

  function given(exchange: Exchange, named: EstTarget | null): Answer | Promise<Answer> {
    if (!named) return refused(exchange, 'operation_unknown')
    const method = estMethods[named.operation]
    if (exchange.method !== method && !(method === 'GET' && exchange.method === 'HEAD'))
      return refused(exchange, 'method_not_allowed', { allow: method === 'GET' ? 'GET, HEAD' : method })
    return operations[named.operation](exchange, named.label)
  }

  return exchange => {
    const start = performance.now()
    const named = parseEstPath(pathOf(exchange.target))
    const told = (whole: Answer): Answer => {
      const outcome = whole.code ?? (whole.status === 202 ? 'pending' : 'ok')
      observer.answered(named?.operation ?? 'none', named?.label ?? null, outcome, (performance.now() - start) / 1000)
      return whole
    }
    const whole = given(exchange, named)
    return whole instanceof Promise ? whole.then(told) : told(whole)
  }
}

/** A secret, or else a bearer token; null for neither. */
function credentialsOf(authorization: string): Credentials | null {
  const basic = basicCredentials(authorization)
  const bearer = basic === null ? bearerToken(authorization) : null
  return basic !== null || bearer !== null ? { basic, bearer } : null
}

/** What a gateway carries in place of the device's own TLS connection (docs/gateway.md); bytes that are none are refused by the story. */
function proofOf(exchange: Exchange, body: Bytes): ShownProof | undefined {
  const text = exchange.header(proofHeader)
  if (text === undefined) return undefined
  let bytes: Bytes = new Uint8Array(0)
  try {
    bytes = decodeBase64(Buffer.from(text, 'latin1'), proofBytesMax)
  } catch (error) {
    if (codeOf(error) === null) throw error
  }
  return { bytes, path: pathOf(exchange.target), bodySha256: sha256(body) }
}

/**
 * The 401 that most clients expect before they show a secret. Its words are in a header, because BouncyCastle drops the connection at a 401
 * with a body that it has no reader for.
 */
function challenge(requestId: string): Answer {
  const { status, headers, body } = problem('credentials_required')
  const { 'www-authenticate': scheme } = headers
  const given = answer(requestId, status, { 'www-authenticate': scheme, 'x-problem': body.trim().replace('\n', '. ') }, '')
  given.code = 'credentials_required'
  return given
}

function keyAnswer(
  requestId: string,
  { key, enveloped, certificate, chain }: Extract<ServerKeyOutcome, { kind: 'issued' }>,
): Answer {
  const headers = { 'content-type': keyAndCertificatesType, 'cache-control': 'no-store' }
  const whole = answer(requestId, 200, headers, keyAndCertificatesBody(key, enveloped, [certificate, ...chain]))
  key.fill(0)
  return whole
}

function isPkcs10(contentType: string | undefined): boolean {
  return contentType === pkcs10 || contentType?.split(';')[0].trim().toLowerCase() === pkcs10
}
const pkcs10 = 'application/pkcs10'

// RFC 7030 4.1.3 asks for the header and RFC 8951 forbids relying on it: clients of both kinds exist.
function encoded(contentType: string): Record<string, string> {
  return { 'content-type': contentType, 'content-transfer-encoding': 'base64' }
}
