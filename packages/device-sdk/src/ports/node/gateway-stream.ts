// The gateway's end of a line of bytes: reads devices' requests from it, has them carried, writes the answers back. The device's end is `streamLink` of
// `@birthmark/device-sdk/agent`, which says what the frames are.

import type { Duplex } from 'node:stream'
import { encodeFrame, frameReader } from '../../agent/stream-frames.ts'
import { frameBytesMax, headerList, headersOf } from '../../agent/stream-link.ts'
import { utf8Bytes } from '../../core/bytes.ts'
import { birthmarkError } from './errors.ts'
import type { Gateway } from './gateway.ts'

/** A device has one request under way, and perhaps one for the time; whoever sends more at once is no device of ours. */
const underWayMax = 4

/** What an agent reads of an answer. */
const answered = ['content-type', 'content-encoding', 'retry-after', 'renew-after', 'www-authenticate']

/**
 * Serves one line (a serial port's stream, a socket) until it ends or the returned function is called. What is not carried, and what fails on the way to the
 * server, is answered with 502 and its code, so that the device tries again; what is no message is passed over.
 */
export function serveStream(gateway: Gateway, line: Duplex): () => void {
  let underWay = 0
  const read = frameReader(frameBytesMax, message => {
    if (!Array.isArray(message) || message.length !== 5 || underWay === underWayMax) return
    const [number, method, path, list, body] = message
    const headers = headersOf(list)
    if (typeof number !== 'number' || (method !== 'GET' && method !== 'POST') || typeof path !== 'string' || !headers) return
    if (body !== null && !(body instanceof Uint8Array)) return
    underWay++
    const answer = (status: number, said: Record<string, string>, content: Uint8Array) => {
      if (!line.writable) return
      // Under way until the line has taken it: who asks and does not read is heard no more, and nothing piles up.
      line.write(encodeFrame([number, status, headerList(said), new Uint8Array(content)]), () => {
        underWay--
      })
    }
    gateway.forward({ method, path, headers, body }).then(
      response => {
        const said: Record<string, string> = {}
        for (const name of answered) if (response.headers[name] !== undefined) said[name] = response.headers[name]
        answer(response.status, said, response.body)
      },
      error => answer(502, { 'content-type': 'text/plain' }, utf8Bytes(birthmarkError(error).code)),
    )
  })
  const onData = (part: Uint8Array) => read(new Uint8Array(part))
  // A line that breaks ends; whoever opened it hears of it too.
  const onError = () => {}
  line.on('data', onData).on('error', onError)
  return () => void line.off('data', onData).off('error', onError)
}
