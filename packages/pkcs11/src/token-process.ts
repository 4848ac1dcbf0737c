// The process beside the server that holds the token: it logs in once, signs and decrypts what it is sent, as many jobs at once as there are sessions, and
// ends with the first failure or with the server. A library that crashes, stalls or leaks takes this process along and nothing else, and the PIN is never
// in the server's memory.

import type { Failure, FromToken, ToToken } from './protocol.ts'
import { TokenError } from './token-error.ts'
import { openTokenSession, PinRefused, readPublicKey, type TokenSession } from './token-session.ts'

let session: TokenSession | null = null

function send(message: FromToken, then: () => void = () => {}): void {
  process.send?.(message, undefined, undefined, then)
}

function failureOf(error: unknown): Failure {
  if (error instanceof TokenError) return { code: error.code, detail: error.message.slice(error.code.length + 2), next: error.next }
  // Not ours, so nobody knows what its text quotes.
  return { code: 'call_failed', detail: 'an unexpected failure in the token process', next: 'try again; report it if it stays' }
}

const end = () => process.exit(0)

process.on('disconnect', end)
// The server stops in order and ends this process last; a Ctrl-C of a terminal reaches the whole group.
process.on('SIGINT', () => {})
process.on('message', (message: ToToken) => {
  if (message.kind === 'open') {
    try {
      session = openTokenSession(message.request)
      send({ kind: 'open', token: session.name, sessions: session.sessions })
    } catch (error) {
      const refusedPin = error instanceof PinRefused ? error.refused : null
      send({ kind: 'unopened', failure: failureOf(error), refusedPin }, end)
    }
    return
  }
  if (message.kind === 'public') {
    try {
      send({ kind: 'public', spki: readPublicKey(message.request) }, end)
    } catch (error) {
      send({ kind: 'unopened', failure: failureOf(error), refusedPin: null }, end)
    }
    return
  }
  const { id, data } = message
  if (session === null) return
  const doing = message.kind === 'sign' ? session.sign(data, message.algorithm) : session.decrypt(data, message.oaep)
  doing.then(
    result => send({ kind: 'done', id, result }),
    error => send({ kind: 'undone', id, failure: failureOf(error) }, end),
  )
})
