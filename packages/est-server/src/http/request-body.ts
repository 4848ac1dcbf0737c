// Reads a request body within a budget: nothing beyond `bytesMax` is kept, and a deadline ends the reading with an outcome of its own.

import type { IncomingMessage } from 'node:http'
import type { BodyOutcome } from './exchange.ts'

/** `incoming` must not have been read from. `done` hears the outcome, once. Returns what to call at the deadline. */
export function readBody(incoming: IncomingMessage, bytesMax: number, done: (outcome: BodyOutcome) => void): () => void {
  // Nearly every body comes in one piece.
  let first: Buffer | null = null
  let more: Buffer[] | null = null
  let length = 0
  let isDone = false
  const settle = (outcome: BodyOutcome) => {
    if (isDone) return
    isDone = true
    first = more = null
    done(outcome)
  }
  // The client went away or broke the framing: nobody is left to read the answer.
  const broken = () => settle({ kind: 'refused', code: 'request_malformed' })
  incoming.on('data', (chunk: Buffer) => {
    if (isDone) return
    length += chunk.length
    if (length > bytesMax) settle({ kind: 'refused', code: 'body_too_large' })
    else if (first === null) first = chunk
    else {
      more ??= [first]
      more.push(chunk)
    }
  })
  incoming.on('end', () => settle({ kind: 'body', bytes: more ? Buffer.concat(more) : (first ?? Buffer.alloc(0)) }))
  incoming.on('error', broken)
  incoming.on('close', broken)
  return () => settle({ kind: 'refused', code: 'body_timeout' })
}
