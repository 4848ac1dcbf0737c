// What the plain HTTP of certificate status answers, without a socket: lists by GET, OCSP by GET and POST (RFC 5280 4.2.1.13, RFC 6960 A). Every
// answer that may be kept says for how long, and how to ask whether it still holds.

import type { Bytes } from '@birthmark/device-sdk/core'
import type { FullList } from '../full-revocation-list.ts'
import type { OcspAnswer, OcspResponder } from '../ocsp-responder.ts'
import type { Clock } from '../ports.ts'
import type { ListAnswer, RevocationLists } from '../revocation-lists.ts'
import { issuerNamePattern, ocspPath } from '../status-urls.ts'
import { ocspRequestBytesMax, ocspRequestOfPath } from '../wire/ocsp.ts'
import { createAddressBudget } from './address-budget.ts'

export interface StatusQuestion {
  method: string
  /** Of the socket: nobody in front of it is believed about another. */
  address: string
  /** Request target as it came. */
  target: string
  header(name: string): string | undefined
  /** At most `most` octets; null for more, or for one that came too slowly. */
  readBody(most: number): Promise<Bytes | null>
}

export interface StatusAnswer {
  status: number
  headers: Record<string, string>
  body: Bytes | FullList | null
}

export interface StatusRoutesOptions {
  lists: Pick<RevocationLists, 'shard' | 'full'>
  ocsp: Pick<OcspResponder, 'answer'>
  /** Path in front of every route, '' for none: that of the status URL. */
  prefix: string
  clock: Clock
}

/**
 * Seconds a cache in between may answer in our place. Short against every nextUpdate, since a revocation is not seen while it lasts; long enough
 * that a thundering fleet asks the cache.
 */
const freshSeconds = 300

/**
 * Answers that were signed for one address alone (with a nonce, or about what nobody knows): as many at once, and a second. A signature is 50 µs here, and
 * some milliseconds in a token that issuing needs too. Kept answers cost nothing and are not counted.
 */
const signedAtOnce = 400
const signedPerSecond = 100

const text = { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store' }
const plain = (status: number, sentence: string, more: Record<string, string> = {}): StatusAnswer => ({
  status,
  headers: { ...text, ...more },
  body: Buffer.from(`${sentence}\n`),
})
const notFound = () => plain(404, 'There is no such list.')

const httpDate = (seconds: number) => new Date(seconds * 1000).toUTCString()

const shardRoute = new RegExp(`^/crl/(${issuerNamePattern})/([a-z0-9-]{1,32})/(0|[1-9]\\d{0,5})\\.crl$`)
const fullRoute = new RegExp(`^/crl/(${issuerNamePattern})\\.crl$`)

export function createStatusRoutes({
  lists,
  ocsp,
  prefix,
  clock,
}: StatusRoutesOptions): (question: StatusQuestion) => Promise<StatusAnswer> {
  const budget = createAddressBudget(signedAtOnce, signedPerSecond, clock)

  async function ask(question: StatusQuestion, request: Bytes, byUrl: boolean): Promise<StatusAnswer> {
    const seconds = budget.wait(question.address)
    if (seconds > 0)
      return plain(429, 'Too many answers were signed for this address; ask without a nonce.', { 'retry-after': String(seconds) })
    const given = await ocsp.answer(request)
    if (given.cacheable === null && given.error === null) budget.spend(question.address)
    return ocspAnswer(question, given, byUrl)
  }

  function freshness(thisUpdate: number, nextUpdate: number, etag: string): Record<string, string> {
    const now = Math.floor(clock.now())
    const seconds = Math.max(0, Math.min(freshSeconds, nextUpdate - now))
    return {
      etag,
      'last-modified': httpDate(thisUpdate),
      expires: httpDate(now + seconds),
      'cache-control': `public, max-age=${seconds}, must-revalidate`,
    }
  }

  function unchanged(question: StatusQuestion, etag: string, thisUpdate: number): boolean {
    const match = question.header('if-none-match')
    // RFC 9110 13.1.3: the date counts only where there is no tag.
    if (match !== undefined) return match === '*' || match.split(',').some(tag => tag.trim().replace(/^W\//, '') === etag)
    const since = Date.parse(question.header('if-modified-since') ?? '')
    return since / 1000 >= thisUpdate
  }

  function listAnswer<L extends { number: number; thisUpdate: number; nextUpdate: number }>(
    question: StatusQuestion,
    given: ListAnswer<L>,
    bodyOf: (list: L) => { body: Bytes | FullList; length: number },
  ): StatusAnswer {
    if (given.kind === 'unknown') return notFound()
    if (given.kind === 'unavailable')
      return plain(503, `The list cannot be had now (${given.detail}).`, { 'retry-after': String(given.retryAfterSeconds) })
    const { list } = given
    const etag = `"crl-${list.number}"`
    const headers = freshness(list.thisUpdate, list.nextUpdate, etag)
    if (unchanged(question, etag, list.thisUpdate)) return { status: 304, headers, body: null }
    const { body, length } = bodyOf(list)
    headers['content-type'] = 'application/pkix-crl'
    headers['content-length'] = String(length)
    return { status: 200, headers, body }
  }

  function ocspAnswer(question: StatusQuestion, given: OcspAnswer, byUrl: boolean): StatusAnswer {
    const { body, cacheable } = given
    const headers: Record<string, string> = { 'content-type': 'application/ocsp-response', 'content-length': String(body.length) }
    // What POST answered is nobody's to keep; an error is true for now alone.
    if (cacheable === null || !byUrl) headers['cache-control'] = 'no-store'
    else {
      Object.assign(headers, freshness(cacheable.thisUpdate, cacheable.nextUpdate, cacheable.etag))
      if (unchanged(question, cacheable.etag, cacheable.thisUpdate)) {
        delete headers['content-length']
        return { status: 304, headers, body: null }
      }
    }
    return { status: 200, headers, body }
  }

  return async question => {
    const { method, target } = question
    if (!target.startsWith(`${prefix}/`)) return notFound()
    const path = target.slice(prefix.length)
    const reads = method === 'GET' || method === 'HEAD'
    if (path === ocspPath || path === `${ocspPath}/`) {
      if (method !== 'POST') return plain(405, 'Ask by POST, or by GET with the request in the URL.', { allow: 'POST' })
      if (question.header('content-type')?.split(';')[0].trim().toLowerCase() !== 'application/ocsp-request')
        return plain(415, 'An OCSP request has the type application/ocsp-request.')
      const body = await question.readBody(ocspRequestBytesMax)
      if (body === null) return plain(413, `An OCSP request has at most ${ocspRequestBytesMax} octets.`, { connection: 'close' })
      return ask(question, body, false)
    }
    const list = path.startsWith('/crl/') ? path : null
    if (list === null && !path.startsWith(`${ocspPath}/`)) return notFound()
    if (!reads) return plain(405, 'Ask by GET.', { allow: 'GET, HEAD' })
    if (list === null) {
      // A malformed question is answered as one in a body is: by the responder, in its own words.
      const request = ocspRequestOfPath(path.slice(ocspPath.length + 1)) ?? new Uint8Array()
      return ask(question, request, true)
    }
    const shard = shardRoute.exec(list)
    if (shard !== null)
      return listAnswer(question, await lists.shard(shard[1], shard[2], Number(shard[3])), ({ der }) => ({
        body: der,
        length: der.length,
      }))
    const full = fullRoute.exec(list)
    if (full === null) return notFound()
    return listAnswer(question, await lists.full(full[1]), found => ({ body: found, length: found.bytes }))
  }
}
