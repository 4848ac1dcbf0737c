// The device guard as a Hono middleware, for an app on @hono/node-server over node:https. Asked at every request; a handler behind it finds
// the device under `c.get('device')`.

import type { TLSSocket } from 'node:tls'
import type { MiddlewareHandler } from 'hono'
import { type DeviceGuard, problemOf, retryAfterSeconds } from './device-guard.ts'
import type { DevicePeer } from './device-peer.ts'

/** For `new Hono<DeviceEnv>()`. */
export interface DeviceEnv {
  /** What @hono/node-server hands to an app. */
  Bindings: { incoming: { socket: object } }
  Variables: { device: DevicePeer }
}

/** Lets good devices pass; the others get 401, 403 or 503 with a problem document (RFC 9457), and their connection ends. */
export function requireDevice(guard: DeviceGuard): MiddlewareHandler<DeviceEnv> {
  return async (c, next) => {
    const socket = c.env.incoming.socket as TLSSocket
    const problem = guard.denial(socket)
    const device = guard.device(socket)
    if (!problem && device) {
      c.set('device', device)
      return next()
    }
    const { status } = problem ?? { status: 401 as const }
    return c.json(problem ? problemOf(problem) : null, status, {
      'content-type': 'application/problem+json',
      connection: 'close',
      ...(status === 503 ? { 'retry-after': `${retryAfterSeconds}` } : {}),
    })
  }
}
