// A network that fails as told: an Http around another one.

import type { Http } from '../agent/ports.ts'
import { type DeviceErrorCode, deviceError } from '../core/errors.ts'

export interface FlakyHttp extends Http {
  /** How many requests were made, failed ones too. */
  count(): number
}

/**
 * `plan(n)` says what becomes of the n-th request, from 0: null lets it pass, a code fails it before it is sent, and
 * `{ after: code }` lets the server have it and then loses the answer.
 */
export function flakyHttp(http: Http, plan: (n: number) => null | DeviceErrorCode | { after: DeviceErrorCode }): FlakyHttp {
  let count = 0
  return {
    count: () => count,
    request(request, tls, done) {
      const fate = plan(count++)
      if (fate === null) return http.request(request, tls, done)
      if (typeof fate !== 'string')
        return http.request(request, tls, () => done(deviceError(fate.after, 'the answer was lost'), null))
      const timer = setImmediate(() => done(deviceError(fate, 'planned'), null))
      return () => clearImmediate(timer)
    },
  }
}
