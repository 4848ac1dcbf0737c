// The routes, without a socket. A path means something in exactly one spelling.

import { Hono } from 'hono'
import type { Log } from '../ports.ts'
import { estPrefix } from '../wire/est.ts'
import { type EstService, estRoute } from './est-routes.ts'
import { type Exchange, isPlainPath, pathOf, refuse, respond } from './exchange.ts'
import type { Limits } from './limits.ts'

export type App = Hono<{ Bindings: Exchange }>

export interface AppOptions {
  enrollment: EstService
  limits: Limits
  log: Log
  /** Why the server should get no traffic now, or null: what /readyz says. */
  unready: () => string | null
}

/** The way into the app, for the listener as for tests. */
export function answer(app: App, request: Request, exchange: Exchange): Response | Promise<Response> {
  if (!isPlainPath(pathOf(exchange.target))) return refuse(exchange.requestId, 'not_found')
  return app.fetch(request, exchange)
}

export function createApp({ enrollment, limits, log, unready }: AppOptions): App {
  const app: App = new Hono()

  app.all(estPrefix + '*', estRoute(enrollment, limits, log))

  // Liveness: that this answers at all. Readiness: that an enrollment would.
  app.get('/healthz', c => respond(c.env.requestId, 200, { 'content-type': 'text/plain; charset=utf-8' }, 'ok\n'))
  app.get('/readyz', c => {
    const reason = unready()
    if (reason !== null) return refuse(c.env.requestId, 'busy', { detail: `not ready: ${reason}` })
    return respond(c.env.requestId, 200, { 'content-type': 'text/plain; charset=utf-8' }, 'ready\n')
  })
  app.all('/healthz', c => refuse(c.env.requestId, 'method_not_allowed', { allow: 'GET, HEAD' }))
  app.all('/readyz', c => refuse(c.env.requestId, 'method_not_allowed', { allow: 'GET, HEAD' }))

  app.notFound(c => refuse(c.env.requestId, 'not_found'))
  app.onError((error, c) => {
    const { requestId, peer, target } = c.env
    log.error({ requestId, address: peer.address, target: target.slice(0, 200), err: error }, 'request failed')
    return refuse(requestId, 'internal')
  })
  return app
}
