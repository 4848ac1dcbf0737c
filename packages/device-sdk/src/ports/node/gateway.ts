// The gateway's half: carries a device's requests to the server over the gateway's own mutual TLS, and answers back. It adds no authority: what it shows opens
// the way in, and what the device signed decides. Only requests that a device may have are carried, and none for which the gateway's own certificate
// would speak.

import type { HttpRequest, HttpResponse } from '../../agent/ports.ts'
import { proofHeader } from '../../core/device-proof.ts'
import { estBodyBytesMax, estTimeoutSeconds } from '../../core/est-request.ts'
import { type Anchors, certificates } from './anchors.ts'
import { BirthmarkError, birthmarkError } from './errors.ts'
import { httpsExchange, httpsServer } from './https-exchange.ts'
import type { Identity } from './identity.ts'

export { serveStream } from './gateway-stream.ts'

export interface GatewayOptions {
  /** The gateway's own, enrolled, in a group that the server's profile names under `gateways`. */
  identity: Identity
  /** `https://host[:port]`, and whom its certificate must chain to. */
  server: string
  trust: Anchors
}

export interface Gateway {
  /**
   * Carries one request of a device, as it came over the link. Rejects with a BirthmarkError: `est_refused` for a request that is not carried, otherwise
   * as an exchange fails. What the server says, refusals too, is the device's to judge.
   */
  forward(request: Pick<HttpRequest, 'method' | 'path' | 'headers' | 'body'>): Promise<HttpResponse>
}

const asksForAll = /^\/\.well-known\/(est\/([\w~-][\w.~-]{0,63}\/)?cacerts|birthmark\/time\?nonce=[0-9a-f]{32,64})$/
const enrolls = /^\/\.well-known\/est\/([\w~-][\w.~-]{0,63}\/)?simple(re)?enroll$/
const carried = ['accept', 'content-type', proofHeader]

export function createGateway({ identity, server, trust }: GatewayOptions): Gateway {
  const target = httpsServer(server)
  const anchors = certificates('trust', trust)
  return {
    forward: ({ method, path, headers, body }) =>
      new Promise((resolve, reject) => {
        const refuse = (why: string) => reject(new BirthmarkError('est_refused', `not carried: ${why}`))
        const enrolling = enrolls.test(path)
        if (method !== (enrolling ? 'POST' : 'GET') || !(enrolling || asksForAll.test(path)))
          return refuse('no request of a device')
        // Without the device's proof the server would hear the gateway itself.
        if (enrolling && !headers[proofHeader]) return refuse('no proof of the device')
        if ((body?.length ?? 0) > estBodyBytesMax || Boolean(body) !== enrolling) return refuse('its body')
        const kept: Record<string, string> = {}
        for (const name of carried) if (headers[name] !== undefined) kept[name] = headers[name]
        httpsExchange(
          target,
          { method, path, headers: kept, body, bodyBytesMax: estBodyBytesMax, timeoutSeconds: estTimeoutSeconds },
          // Whichever identity is in use by now.
          { credentials: () => identity.tlsOptions({ trust: anchors }) },
          (error, response) => (response ? resolve(response) : reject(birthmarkError(error))),
        )
      }),
  }
}
