// SCEP over HTTP (RFC 8894 4): from request to story and back. No socket, no decision. What is no SCEP request at all is refused in plain HTTP;
// from the first byte of a PKIOperation on, every answer is a signed message with status 200, because that is all that clients read.

import { type Bytes, codeOf } from '@birthmark/device-sdk/core'
import type { BudgetedLog } from '../log-budget.ts'
import type { ScepService } from '../scep.ts'
import { messageOfGet, parseScepTarget } from '../wire/scep.ts'
import type { Exchange } from './exchange.ts'
import type { Limits } from './limits.ts'
import type { ScepObserver, ScepOperation, ScepOutcome } from './observer.ts'
import { type ProblemCode, type ProblemOptions, problem } from './problem.ts'

export interface ScepAnswer {
  status: number
  /** Names in lower case. */
  headers: Record<string, string>
  body: Bytes
}

/** Null for a path that is not SCEP's. */
export type ScepEndpoint = (exchange: Exchange) => Promise<ScepAnswer | null>

/** `limits.bodyBytesMax` bounds a message by GET as well. */
export function scepEndpoint(service: ScepService, limits: Limits, log: BudgetedLog, observer: ScepObserver): ScepEndpoint {
  /** What is being answered, until it is. */
  const counts = new WeakMap<Exchange, { operation: ScepOperation; label: string | null; at: number }>()
  function count(exchange: Exchange, outcome: ScepOutcome): void {
    const asked = counts.get(exchange)
    if (asked) observer.scepAnswered(asked.operation, asked.label, outcome, (performance.now() - asked.at) / 1000)
  }

  const answered = (requestId: string, status: number, headers: Record<string, string>, body: Bytes): ScepAnswer => ({
    status,
    headers: { ...headers, 'content-length': String(body.length), 'x-request-id': requestId, 'cache-control': 'no-store' },
    body,
  })

  function refused(exchange: Exchange, code: ProblemCode, options?: ProblemOptions): ScepAnswer {
    const { requestId, peer, target } = exchange
    count(exchange, code)
    const { status, headers, body } = problem(code, options)
    log.info({ requestId, code, status, address: peer.address, target: target.slice(0, 100) }, 'SCEP request refused')
    return answered(requestId, status, headers, Buffer.from(body))
  }

  async function pkiOperation(exchange: Exchange, label: string | null, inQuery: string | null): Promise<ScepAnswer> {
    const { method, requestId, peer } = exchange
    let message: Bytes = new Uint8Array(0)
    if (method === 'POST') {
      const body = await exchange.readBody()
      if (body.kind === 'refused') return refused(exchange, body.code)
      message = body.bytes
    } else {
      try {
        message = messageOfGet(inQuery ?? '', limits.bodyBytesMax)
      } catch (error) {
        if (codeOf(error) === null) throw error
        // Told to the story all the same: no message, and the refusal is signed.
        log.info({ requestId, err: error }, 'SCEP: the message is not base64')
      }
    }
    const reply = await service.pkiOperation({ message, label, address: peer.address, requestId })
    if (reply.kind === 'busy') return refused(exchange, 'busy', { retryAfterSeconds: reply.retryAfterSeconds })
    count(exchange, reply.outcome)
    return answered(requestId, 200, { 'content-type': 'application/x-pki-message' }, reply.body)
  }

  return async exchange => {
    const { target, method, requestId } = exchange
    // RFC 9112 3.2.2: a proxy may send the absolute form.
    const asked = parseScepTarget(target.startsWith('/') ? target : target.replace(/^https?:\/\/[^/?#]*/i, ''))
    if (asked === null) return null
    const { label, operation, message } = asked
    counts.set(exchange, { operation: isOperation(operation) ? operation : 'other', label, at: performance.now() })
    const encoding = exchange.header('content-encoding')
    if (encoding !== undefined && encoding.toLowerCase() !== 'identity') return refused(exchange, 'content_encoding_refused')
    const reads = method === 'GET' || method === 'HEAD'
    if (operation === 'PKIOperation') {
      if (method === 'GET' || method === 'POST') return pkiOperation(exchange, label, message)
      return refused(exchange, 'method_not_allowed', { allow: 'GET, POST' })
    }
    if (operation !== 'GetCACaps' && operation !== 'GetCACert' && operation !== 'GetNextCACert')
      return refused(exchange, 'operation_unknown', {
        detail: `no SCEP operation ${JSON.stringify(operation.slice(0, 32))}`,
        next: `Use ${operations.slice(0, -1).join(', ')} or ${operations.at(-1)}`,
      })
    if (!reads) return refused(exchange, 'method_not_allowed', { allow: 'GET, HEAD' })
    if (operation === 'GetCACaps') {
      const capabilities = service.capabilities(label)
      if (capabilities === null) return refused(exchange, 'label_unknown')
      count(exchange, 'ok')
      return answered(requestId, 200, { 'content-type': 'text/plain' }, Buffer.from(capabilities.map(line => `${line}\n`).join('')))
    }
    if (operation === 'GetCACert') {
      const certificates = service.caCertificates(label)
      if (certificates === null) return refused(exchange, 'label_unknown')
      count(exchange, 'ok')
      return answered(requestId, 200, { 'content-type': 'application/x-x509-ca-ra-cert' }, certificates)
    }
    const next = await service.nextCaCertificates(label)
    if (next === null)
      return refused(exchange, 'operation_not_offered', { detail: 'no roll-over of the CA is under way', next: 'Use GetCACert' })
    count(exchange, 'ok')
    return answered(requestId, 200, { 'content-type': 'application/x-x509-next-ca-cert' }, next)
  }
}

const operations: readonly string[] = ['GetCACaps', 'GetCACert', 'GetNextCACert', 'PKIOperation'] satisfies ScepOperation[]

function isOperation(name: string): name is ScepOperation {
  return operations.includes(name)
}
