// One HTTP request of ours to a configured URL: the address checked after its name was resolved and then connected to as it is, no redirect
// followed, no content coding, a bound on the answer and on the whole time. What comes back is bytes of somebody else.

import { type LookupAddress, lookup } from 'node:dns'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { isIP } from 'node:net'
import type { Bytes } from '@birthmark/device-sdk/core'
import { addressRefusal } from './outbound-address.ts'

export interface OutboundRequest {
  url: URL
  method: 'GET' | 'POST'
  headers: Record<string, string>
  body: Bytes | null
  /** From the look-up to the last byte. */
  timeoutSeconds: number
  answerBytesMax: number
  allowLoopback: boolean
  /** PEM of whom TLS must lead to; null for the runtime's CAs. */
  anchors: string | null
}

export interface OutboundAnswer {
  status: number
  body: Buffer
}

/** Rejects with an Error whose message names host and cause, never headers or body. */
export type Outbound = (request: OutboundRequest) => Promise<OutboundAnswer>

/** All addresses of a name. Passed in by tests: a name server that changes its mind is the attack. */
export type Resolve = (host: string) => Promise<string[]>

const systemResolve: Resolve = host =>
  new Promise((resolve, reject) =>
    lookup(host, { all: true, verbatim: true }, (error, addresses: LookupAddress[]) =>
      error ? reject(error) : resolve(addresses.map(({ address }) => address)),
    ),
  )

export function createOutbound(resolve: Resolve = systemResolve): Outbound {
  return async asked => {
    const { url, timeoutSeconds } = asked
    const host = url.hostname.replace(/^\[|\]$/g, '')
    const failed = (cause: string) => new Error(`${host}: ${cause}`)
    const deadline = AbortSignal.timeout(timeoutSeconds * 1000)
    const late = new Promise<never>((_, reject) =>
      deadline.addEventListener('abort', () => reject(failed(`no answer within ${timeoutSeconds} s`)), { once: true }),
    )
    const work = async (): Promise<OutboundAnswer> => {
      const addresses = isIP(host) ? [host] : await resolve(host)
      if (addresses.length === 0) throw failed('the name has no address')
      for (const address of addresses) {
        // One forbidden address among good ones is how a name is turned against the asker.
        const refused = addressRefusal(address, asked.allowLoopback)
        if (refused !== null) throw failed(`${address} is ${refused}`)
      }
      return exchange(asked, host, addresses[0], deadline, failed)
    }
    return Promise.race([work(), late])
  }
}

function exchange(
  { url, method, headers, body, answerBytesMax, anchors }: OutboundRequest,
  host: string,
  address: string,
  signal: AbortSignal,
  failed: (cause: string) => Error,
): Promise<OutboundAnswer> {
  return new Promise((resolve, reject) => {
    const secure = url.protocol === 'https:'
    const sent = (secure ? httpsRequest : httpRequest)({
      // The address that was judged; the name is for TLS and the Host line.
      host: address,
      port: url.port || (secure ? 443 : 80),
      path: url.pathname + url.search,
      method,
      agent: false,
      signal,
      maxHeaderSize: 16_384,
      headers: { host: url.host, ...headers, ...(body && { 'content-length': String(body.length) }) },
      ...(secure && { servername: isIP(host) ? '' : host, minVersion: 'TLSv1.2', ...(anchors !== null && { ca: anchors }) }),
    })
    sent.on('error', error => reject(failed((error as NodeJS.ErrnoException).code ?? error.message)))
    sent.on('response', (answer: IncomingMessage) => {
      const status = answer.statusCode ?? 0
      const stop = (cause: string) => {
        reject(failed(cause))
        sent.destroy()
      }
      // Wherever it leads, nobody has judged it.
      if (status >= 300 && status < 400) return stop(`answered with a redirect (${status})`)
      if ((answer.headers['content-encoding'] ?? 'identity') !== 'identity') return stop('answered in a content coding')
      const parts: Buffer[] = []
      let length = 0
      answer.on('data', (part: Buffer) => {
        length += part.length
        if (length > answerBytesMax) stop(`answered with more than ${answerBytesMax} bytes`)
        else parts.push(part)
      })
      answer.on('error', error => reject(failed(error.message)))
      answer.on('end', () => (answer.complete ? resolve({ status, body: Buffer.concat(parts) }) : reject(failed('was cut off'))))
    })
    sent.end(body ?? undefined)
  })
}
