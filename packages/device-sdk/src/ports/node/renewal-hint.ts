// The server's `Renew-After` (docs/est.md): seconds from issuance until it would like to see this device again. Kept beside the identity that it
// came with, so that a reboot does not forget it, and believed within bounds: a server that lies can neither wear out the flash nor
// let the certificate run out.

import type { Http, Store } from '../../agent/ports.ts'
import { renewalTime } from '../../agent/schedule.ts'
import { utf8Bytes, utf8Text } from '../../core/bytes.ts'

/** A renewal before a twelfth of the life is not asked for by anyone in his senses; the last twelfth is for retries. */
const earliest = 1 / 12
const latest = 11 / 12

const RECORD = 'renew-after'

export interface RenewalHints {
  /** `http`, and what its enrollment answers say is noted. */
  watch(http: Http): Http
  /** The answer noted last was accepted as `generation`: from now on its word counts, after a reboot too if the store can be written. */
  issued(generation: number): void
  /** As the agent's: the server's word for this generation if there is one, `renewalTime` otherwise. */
  renewAt: typeof renewalTime
}

/** Throws `store_read`. A damaged record is as none. */
export function renewalHints(store: Store): RenewalHints {
  const stored = store.get(RECORD)
  let [, generation, seconds] = (/^(\d{1,9}) (\d{1,9})$/.exec((stored && utf8Text(stored)) || '') ?? []).map(Number)
  let noted: number | undefined
  return {
    watch: http => ({
      request: (request, tls, done) =>
        http.request(request, tls, (error, response) => {
          // Nine digits are 31 years.
          const said = /^\d{1,9}$/.exec(response?.headers['renew-after'] ?? '')
          if (request.body) noted = said ? Number(said[0]) : undefined
          done(error, response)
        }),
    }),
    issued(next) {
      const known = generation !== undefined
      generation = next
      seconds = noted as number
      try {
        if (noted !== undefined) store.put(RECORD, utf8Bytes(`${generation} ${seconds}`))
        else if (known) store.remove(RECORD)
      } catch {
        // The identity itself is stored. After a reboot the SDK's own schedule holds, which lies in the same span.
      }
    },
    renewAt(hash, deviceId, current, start, end) {
      if (generation !== current || seconds === undefined) return renewalTime(hash, deviceId, current, start, end)
      const life = end - start
      return start + Math.floor(Math.min(Math.max(seconds, life * earliest), life * latest))
    },
  }
}
