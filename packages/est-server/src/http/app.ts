// The routes, without a socket. A path means something in exactly one spelling.

import { Hono } from 'hono'
import type { Log } from '../ports.ts'
import { estPrefix } from '../wire/est.ts'
import { type EstService, estRoute } from './est-routes.ts'
import { type Exchange, pathOf, refuse, respond } from './exchange.ts'
import type { Limits } from './limits.ts'

export type App = Hono<{ Bindings: Exchange }>

export interface AppOptions {
  enrollment: EstService
  limits: Limits
  log: Log
  /** Why the server should get no traffic now, or null: what /readyz says. */
  unready: () => string | null
}

export function createApp({ enrollment, limits, log, unready }: AppOptions): App {
  const app: App = new Hono()

  // Hono decodes and normalises before it matches. Where that changes anything, the path is another one than it looks: nobody's.
  app.use(async (c, next) => {
    if (c.req.path !== pathOf(c.env.target)) return refuse(c.env.requestId, 'not_found')
    await next()
  })

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
