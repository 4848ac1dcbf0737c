// One request and what its answer needs, as the routes see it: no socket, no stream. The listener makes it from node:http; a test makes
// one by hand and calls `app.request(path, init, exchange)`.

import type { Bytes } from '@birthmark/device-sdk/core'
import type { Peer } from '../enrollment-request.ts'
import { type ProblemCode, type ProblemOptions, problem, type RequestProblemCode } from './problem.ts'

export type BodyOutcome = { kind: 'body'; bytes: Bytes } | { kind: 'refused'; code: RequestProblemCode }

export interface Exchange {
  method: string
  /** The request target as it came, undecoded. */
  target: string
  /** Without the request's own Basic credentials. */
  peer: Peer
  requestId: string
  /** A request header by its name in lower case, as node:http joins what comes twice. */
  header(name: string): string | undefined
  /** Reads the body, at most once; bounded in bytes and time. */
  readBody(): Promise<BodyOutcome>
}

/** The path of a request target, undecoded (RFC 9112 3.2: origin form or absolute form); '' where there is none. */
export function pathOf(target: string): string {
  const start = target.startsWith('/') ? 0 : /^https?:\/\//i.test(target) ? target.indexOf('/', 8) : -1
  if (start < 0) return ''
  const end = target.search(/[?#]/)
  return target.slice(start, end < 0 ? undefined : end)
}

// One or more segments of the characters that stand for themselves (RFC 3986 3.3), none of them a dot segment.
const plainPath = /^(?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9._~!$&'()*+,;=:@-]+)+$/

/**
 * Whether a path has one spelling only. Routers decode and normalise before they match; a path on which that changes anything looks like
 * another one than it is, and is nobody's.
 */
export function isPlainPath(path: string): boolean {
  return path === '/' || plainPath.test(path)
}

/** A whole answer. `headers` have their names in lower case. */
export interface Answer {
  status: number
  headers: Record<string, string>
  /** Text, or bytes as they are. */
  body: string | Uint8Array<ArrayBuffer>
  /** Why it is no more than a refusal. */
  code?: ProblemCode
  /** Given to whoever asked, after looking into a certificate that proved nothing. */
  stranger?: true
}

/** The one place that makes an answer: each has its length and the id that finds it in the log. Text goes out as UTF-8. */
export function answer(requestId: string, status: number, headers: Record<string, string>, body: Answer['body']): Answer {
  headers['x-request-id'] = requestId
  // RFC 9110 8.6: a 204 has neither length nor body.
  if (status !== 204) headers['content-length'] = String(typeof body === 'string' ? Buffer.byteLength(body) : body.length)
  return { status, headers, body }
}

export function refuse(requestId: string, code: ProblemCode, options?: ProblemOptions): Answer {
  const { status, headers, body } = problem(code, options)
  const given = answer(requestId, status, headers, body)
  given.code = code
  return given
}

/** The same for a route of the app. */
export function responseOf({ status, headers, body }: Answer): Response {
  return new Response(status === 204 ? null : body, { status, headers })
}
