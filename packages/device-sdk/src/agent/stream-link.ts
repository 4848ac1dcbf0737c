// The device's end of a line of bytes to a gateway (a UART, a radio): requests as frames, answers matched by number, lost ones given up by time. The
// other end is `serveStream` of `@birthmark/device-sdk/gateway`. Device subset; the agent does not reach this file.

import type { Bytes } from '../core/bytes.ts'
import type { CborValue } from '../core/cbor.ts'
import { type DeviceError, deviceError } from '../core/errors.ts'
import { estBodyBytesMax } from '../core/est-request.ts'
import type { HttpResponse } from '../core/http-message.ts'
import type { GatewayLink } from './gateway-http.ts'
import type { Clock } from './ports.ts'
import { encodeFrame, frameReader } from './stream-frames.ts'

/** The longest body, and room for what is around it. */
export const frameBytesMax = estBodyBytesMax + 16384

export interface StreamLink extends GatewayLink {
  /** What came over the line, in whatever pieces. Never from within `write`. */
  receive(bytes: Bytes): void
}

/** `[name, text, name, text, …]` as an object, null for anything else. Names stay as they are sent, in lower case. */
export function headersOf(list: CborValue): HttpResponse['headers'] | null {
  if (!Array.isArray(list) || list.length & 1) return null
  const headers: HttpResponse['headers'] = {}
  for (let i = 0; i < list.length; i += 2) {
    const name = list[i]
    const text = list[i + 1]
    if (typeof name !== 'string' || typeof text !== 'string') return null
    headers[name] = text
  }
  return headers
}

export function headerList(headers: HttpResponse['headers']): CborValue {
  const list: CborValue[] = []
  Object.keys(headers).forEach(name => {
    list.push(name, headers[name])
  })
  return list
}

/** `write` sends bytes as they are. Requests may overlap: the agent's, and one for the time. */
export function streamLink(write: (bytes: Bytes) => void, clock: Clock): StreamLink {
  const waiting: { [number: string]: (response: HttpResponse) => void } = {}
  let last = 0
  const receive = frameReader(frameBytesMax, message => {
    if (!Array.isArray(message) || message.length !== 4 || typeof message[0] !== 'number') return
    const answered = waiting['' + message[0]]
    const status = message[1]
    const headers = headersOf(message[2])
    const body = message[3]
    if (answered && typeof status === 'number' && headers && body instanceof Uint8Array)
      answered({ status: status, headers: headers, body: body })
  })
  return {
    receive: receive,
    exchange: (request, done) => {
      // An answer to what was asked 65,536 requests ago is none.
      last = (last + 1) & 0xffff
      const number = last
      const end = (error: DeviceError | null, response: HttpResponse | null): void => {
        stop()
        done(error, response)
      }
      const cancelTimer = clock.setTimer(request.timeoutSeconds, () => end(deviceError('timeout', 'gateway'), null))
      const stop = (): void => {
        cancelTimer()
        delete waiting['' + number]
      }
      waiting['' + number] = response => {
        if (response.body.length > request.bodyBytesMax) end(deviceError('est_response_malformed', 'size'), null)
        else end(null, response)
      }
      write(encodeFrame([number, request.method, request.path, headerList(request.headers), request.body]))
      return stop
    },
  }
}
