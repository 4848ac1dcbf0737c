// Reads a request body within a budget: nothing beyond `bytesMax` is kept, and a deadline ends the reading with an outcome of its own.

import type { IncomingMessage } from 'node:http'
import type { BodyOutcome } from './exchange.ts'

export interface BodyReading {
  outcome: Promise<BodyOutcome>
  /** Called at the deadline. */
  expire(): void
}

/** `incoming` must not have been read from. */
export function readBody(incoming: IncomingMessage, bytesMax: number): BodyReading {
  let settle: (outcome: BodyOutcome) => void = () => {}
  const outcome = new Promise<BodyOutcome>(resolve => {
    settle = resolve
  })
  let chunks: Buffer[] = []
  let length = 0
  incoming.on('data', (chunk: Buffer) => {
    length += chunk.length
    if (length <= bytesMax) chunks.push(chunk)
    else {
      chunks = []
      settle({ kind: 'refused', code: 'body_too_large' })
    }
  })
  incoming.on('end', () => settle({ kind: 'body', bytes: chunks.length === 1 ? chunks[0] : Buffer.concat(chunks) }))
  // The client went away or broke the framing: nobody is left to read the answer.
  incoming.on('error', () => settle({ kind: 'refused', code: 'request_malformed' }))
  incoming.on('close', () => settle({ kind: 'refused', code: 'request_malformed' }))
  return { outcome, expire: () => settle({ kind: 'refused', code: 'body_timeout' }) }
}
