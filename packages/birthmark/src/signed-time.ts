// The time for devices without a clock, signed by the first notice key over the device's own nonce (docs/signed-time.md). Public: it says nothing that
// is not on every wall, and costs one signature, less than the handshake that brought the question.

import {
  encodeSign1,
  encodeTime,
  sign1Header,
  timeNonceBytesMax,
  timeNonceBytesMin,
  timePath,
  timeToBeSigned,
} from '@birthmark/device-sdk/core'
import { answer, type Exchange, refuse, responseOf } from '@birthmark/est-server'
import type { Clock } from '@birthmark/fleet-revocation'
import type { Settings } from './configuration.ts'
import { noticeKeysOf } from './notice-signing.ts'

const question = new RegExp(`^[^?]*\\?nonce=((?:[0-9a-f]{2}){${timeNonceBytesMin},${timeNonceBytesMax}})$`)

/** A route for the listener's app, under `path`. */
export function signedTime({ fleet, notices }: Pick<Settings, 'fleet' | 'notices'>, clock: Pick<Clock, 'now'>) {
  const [key] = noticeKeysOf(notices.keys)
  const header = sign1Header(key.algorithm)
  return {
    path: timePath,
    async answer({ env: { requestId, target } }: { env: Exchange }): Promise<Response> {
      const nonce = question.exec(target)?.[1]
      if (nonce === undefined)
        return responseOf(
          refuse(requestId, 'request_malformed', {
            detail: `ask with ?nonce= and ${timeNonceBytesMin} to ${timeNonceBytesMax} random bytes in lower-case hex`,
          }),
        )
      const payload = encodeTime(fleet, Buffer.from(nonce, 'hex'), Math.floor(clock.now()))
      const message = encodeSign1(header, key.keyId, payload, await key.sign(timeToBeSigned(header, payload)))
      const headers = { 'content-type': 'application/cose; cose-type="cose-sign1"', 'cache-control': 'no-store' }
      return responseOf(answer(requestId, 200, headers, new Uint8Array(message)))
    },
  }
}
