// The webhook's HTTP side: a request listener for node:http or node:https. Who may ask is told by a secret in the path, since RabbitMQ can
// send no header of its own; put it behind mutual TLS or on loopback as well.

import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { RevocationError } from '../errors.ts'
import type { Log } from '../ports.ts'
import type { Webhook } from './webhook.ts'

// A question is a few hundred bytes; a topic may have 64 KB, and then the answer is no.
const bodyBytesMax = 16_384
const secretCharactersMin = 16
const secondsMax = 5

function fieldsOf(type: string, body: string): { [name: string]: unknown } | null {
  if (!type.startsWith('application/json')) return Object.fromEntries(new URLSearchParams(body))
  try {
    const value: unknown = JSON.parse(body)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : null
  } catch {
    return null
  }
}

const digest = (value: string) => createHash('sha256').update(value).digest()

async function bodyOf(request: IncomingMessage): Promise<string | null> {
  const parts: Buffer[] = []
  let length = 0
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length
    if (length > bodyBytesMax) return null
    parts.push(part)
  }
  return Buffer.concat(parts).toString()
}

/** Answers POST `/{secret}/{dialect}/{question}`. Throws `configuration_invalid` for a short secret. */
export function webhookListener(webhook: Webhook, { secret, log }: { secret: string; log: Log }) {
  if (!/^[A-Za-z0-9_-]+$/.test(secret) || secret.length < secretCharactersMin)
    throw new RevocationError('configuration_invalid', `the webhook's secret: at least ${secretCharactersMin} of A-Z a-z 0-9 _ -`)
  const wanted = digest(secret)

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const say = (status: number, type: string, body: string): void => {
      response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' })
      response.end(body)
    }
    const [, given, path] = /^\/([^/?]{1,256})(\/[a-z/]{1,64})$/.exec(request.url ?? '') ?? []
    if (path === undefined || !timingSafeEqual(digest(given), wanted)) return say(404, 'text/plain', 'not found\n')
    if (request.method !== 'POST') return say(405, 'text/plain', 'POST\n')
    const body = await bodyOf(request)
    if (body === null) {
      response.setHeader('connection', 'close')
      return say(413, 'text/plain', 'too long\n')
    }
    const fields = fieldsOf(request.headers['content-type'] ?? '', body)
    if (!fields) return say(400, 'text/plain', 'neither a JSON object nor a form\n')
    const { status, type, body: said } = await webhook.answer({ path, fields })
    say(status, type, said)
  }

  return (request: IncomingMessage, response: ServerResponse): void => {
    request.setTimeout(secondsMax * 1000, () => request.destroy())
    answer(request, response).catch((error: unknown) => {
      log.error({ err: error }, 'a broker’s question could not be answered')
      // Whatever the broker makes of it, it isn't a yes: RabbitMQ denies, EMQX asks the next of its chain.
      if (!response.headersSent) response.writeHead(500)
      response.end()
    })
  }
}
