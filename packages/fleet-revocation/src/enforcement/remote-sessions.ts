// Ending the sessions of refused devices at a broker elsewhere, by its management API. A webhook alone refuses what is new; brokers remember
// what they were told about a live session (RabbitMQ a dozen topics, EMQX for a minute), so a revocation has to end it.

import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { RevocationError } from '../errors.ts'
import type { Clock, Log } from '../ports.ts'
import { repeat } from '../repeat.ts'

export interface RemoteSessions {
  /** Names of connected clients, as far as the broker tells. Rejects with `enforcement_refused`. */
  connected(): Promise<string[]>
  /** Ends every session of `name`; none is no error. Rejects with `enforcement_refused`. */
  end(name: string): Promise<void>
}

export interface ManagementOptions {
  /** `https://host:port`, or `http://` to loopback. */
  url: string
  /** RabbitMQ: a user with the administrator tag. EMQX: an API key and its secret. */
  user: string
  password: string
  /** PEM of the anchors for the API's certificate. */
  ca?: string | string[]
  timeoutSeconds?: number
}

// A list of 100,000 connections, names alone.
const answerBytesMax = 32 << 20
const loopback = new Set(['localhost', '127.0.0.1', '[::1]'])

function management({ url, user, password, ca, timeoutSeconds = 10 }: ManagementOptions) {
  const base = new URL(url)
  if (base.protocol !== 'https:' && !(base.protocol === 'http:' && loopback.has(base.hostname)))
    throw new RevocationError('configuration_invalid', `${base.protocol}//${base.hostname}: a broker's management wants https`)
  const ask = base.protocol === 'https:' ? httpsRequest : httpRequest
  return (method: string, path: string, body?: unknown): Promise<{ status: number; body: string }> =>
    new Promise((resolve, reject) => {
      const failed = (why: string) => reject(new RevocationError('enforcement_refused', `${method} ${path}: ${why}`))
      const asked = ask(
        new URL(path, base),
        {
          method,
          auth: `${user}:${password}`,
          agent: false,
          headers: { 'content-type': 'application/json' },
          ...(ca ? { ca } : {}),
        },
        response => {
          const parts: Buffer[] = []
          let length = 0
          response.on('data', (part: Buffer) => {
            length += part.length
            parts.push(part)
            if (length > answerBytesMax) asked.destroy(new Error('too long an answer'))
          })
          response.on('end', () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(parts).toString() }))
        },
      )
      const timer = setTimeout(() => asked.destroy(new Error('too slow')), timeoutSeconds * 1000)
      asked.on('error', error => failed(error.message))
      asked.on('close', () => clearTimeout(timer))
      asked.end(body === undefined ? undefined : JSON.stringify(body))
    })
}

function checked({ status, body }: { status: number; body: string }, what: string, accepted: number[]): unknown {
  if (!accepted.includes(status)) throw new RevocationError('enforcement_refused', `${what}: status ${status}`)
  try {
    return status === 200 ? JSON.parse(body) : null
  } catch (error) {
    throw new RevocationError('enforcement_refused', `${what}: no JSON`, error)
  }
}

const names = (list: unknown, field: string): string[] =>
  Array.isArray(list)
    ? list.map(entry => (entry as { [name: string]: unknown })[field]).filter(name => typeof name === 'string')
    : []

/** RabbitMQ 3.10 and later: `DELETE /api/connections/username/{name}`, on whichever node of a cluster the session is. */
export function rabbitSessions(options: ManagementOptions): RemoteSessions {
  const ask = management(options)
  return {
    connected: async () => names(checked(await ask('GET', '/api/connections?columns=user'), 'connections', [200]), 'user'),
    end: async name => {
      checked(await ask('DELETE', `/api/connections/username/${encodeURIComponent(name)}`), name, [204, 404])
    },
  }
}

/** EMQX 5: `DELETE /api/v5/clients/{clientid}`, which is the device's name since the webhook admits no other. */
export function emqxSessions(options: ManagementOptions): RemoteSessions {
  const ask = management(options)
  const pageSize = 1000
  return {
    connected: async () => {
      const all: string[] = []
      for (let page = 1; ; page++) {
        const path = `/api/v5/clients?conn_state=connected&fields=clientid&limit=${pageSize}&page=${page}`
        const answer = checked(await ask('GET', path), 'clients', [200]) as { data?: unknown }
        const more = names(answer.data, 'clientid')
        all.push(...more)
        if (more.length < pageSize) return all
      }
    },
    end: async name => {
      checked(await ask('DELETE', `/api/v5/clients/${encodeURIComponent(name)}`), name, [204, 404])
    },
  }
}

export interface SessionEnderOptions {
  sessions: RemoteSessions
  /** The webhook's `admitted`: told at once, where the broker's own list may be seconds behind. */
  candidates(): string[]
  /** The webhook's `mustEnd`. */
  mustEnd(name: string): Promise<boolean> | boolean
  clock: Clock
  log: Log
  /** Between two looks at the broker's list. */
  sweepSeconds?: number
}

export interface SessionEnder {
  /** Ends the sessions of all that must go; hand it to the relying party. Rejects with `enforcement_refused` when one could not be ended. */
  enforce(): Promise<{ cut: number }>
  close(): void
}

// Requests to the management API at once.
const atOnce = 8

export function createSessionEnder({
  sessions,
  candidates,
  mustEnd,
  clock,
  log,
  sweepSeconds = 30,
}: SessionEnderOptions): SessionEnder {
  async function endAll(list: string[]): Promise<number> {
    const doomed: string[] = []
    for (const name of new Set(list)) if (await mustEnd(name)) doomed.push(name)
    const left = [...doomed]
    const work = async (): Promise<void> => {
      for (let name = left.pop(); name !== undefined; name = left.pop()) await sessions.end(name)
    }
    await Promise.all(Array.from({ length: atOnce }, work))
    if (doomed.length > 0) log.info({ ended: doomed.length }, 'sessions of refused devices ended at the broker')
    return doomed.length
  }

  const close = repeat(
    clock,
    sweepSeconds,
    async () => endAll(await sessions.connected()),
    error => log.error({ err: error }, 'the broker’s sessions could not be swept'),
  )

  return {
    enforce: async () => {
      // Those that are known first: the list may take its time.
      const cut = await endAll(candidates())
      return { cut: cut + (await endAll(await sessions.connected())) }
    },
    close,
  }
}
