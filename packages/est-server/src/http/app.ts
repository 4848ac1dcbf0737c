// Which answer a request gets, without a socket. A path means something in exactly one spelling. EST, which carries the load, is answered as it
// is; everything else is a route of a Hono app, for further routes to join.

import { Hono } from 'hono'
import type { Log } from '../ports.ts'
import type { Proxies } from '../proxies.ts'
import { estPrefix } from '../wire/est.ts'
import { type EstService, estEndpoint } from './est-routes.ts'
import { type Answer, answer, type Exchange, isPlainPath, pathOf, refuse, responseOf } from './exchange.ts'
import type { Limits } from './limits.ts'
import { type HttpObserver, nobody } from './observer.ts'

export type App = Hono<{ Bindings: Exchange }>

export interface AppOptions {
  enrollment: EstService
  limits: Limits
  log: Log
  /** Why the server should get no traffic now, or null: what /readyz says. */
  unready: () => string | null
  observer?: HttpObserver
  /** Who may say which client it forwards; null for nobody, and no header is read. */
  proxies: Proxies | null
}

export interface Front {
  /** The answer to what this file knows by itself; null for what is the app's. Never rejects. */
  answer(exchange: Exchange): Answer | Promise<Answer> | null
  app: App
}

const text = { 'content-type': 'text/plain; charset=utf-8' }

export function createFront({ enrollment, limits, log, unready, observer = nobody, proxies }: AppOptions): Front {
  const app: App = new Hono()
  const est = estEndpoint(enrollment, limits, log, observer)

  function failed(error: unknown, { requestId, peer, target }: Exchange): Answer {
    log.error({ requestId, address: peer.address, target: target.slice(0, 200), err: error }, 'request failed')
    return refuse(requestId, 'internal')
  }

  // Liveness: that this answers at all. Readiness: that an enrollment would.
  app.get('/healthz', c => responseOf(answer(c.env.requestId, 200, { ...text }, 'ok\n')))
  app.get('/readyz', c => {
    const reason = unready()
    if (reason !== null) return responseOf(refuse(c.env.requestId, 'busy', { detail: `not ready: ${reason}` }))
    return responseOf(answer(c.env.requestId, 200, { ...text }, 'ready\n'))
  })
  for (const path of ['/healthz', '/readyz'])
    app.all(path, c => responseOf(refuse(c.env.requestId, 'method_not_allowed', { allow: 'GET, HEAD' })))
  app.notFound(c => responseOf(refuse(c.env.requestId, 'not_found')))
  app.onError((error, c) => responseOf(failed(error, c.env)))

  return {
    app,
    answer(exchange) {
      const path = pathOf(exchange.target)
      if (!isPlainPath(path)) return refuse(exchange.requestId, 'not_found')
      if (!path.startsWith(estPrefix)) return null
      try {
        if (proxies !== null) {
          const forwarding = proxies.forwardedBy(exchange.peer, name => exchange.header(name))
          if (forwarding.kind === 'malformed') return refuse(exchange.requestId, 'request_malformed', { detail: forwarding.detail })
          if (forwarding.kind === 'forwarded') exchange.peer = forwarding.peer
        }
        const given = est(exchange)
        return given instanceof Promise ? given.catch(error => failed(error, exchange)) : given
      } catch (error) {
        return failed(error, exchange)
      }
    },
  }
}
