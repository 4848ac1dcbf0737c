// The plain HTTP listener of certificate status. Plain on purpose: what it gives is signed, and TLS would need the status of one more certificate
// (RFC 5280 8). Anybody may ask, so sockets, bytes and time are bounded before anything is understood.

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { pipeline } from 'node:stream/promises'
import type { Bytes } from '@birthmark/device-sdk/core'
import { openFullList } from '../full-revocation-list.ts'
import type { Log } from '../ports.ts'
import { addressGroup } from './connection-gate.ts'
import type { StatusAnswer, StatusQuestion } from './status-routes.ts'

export interface StatusListenerOptions {
  answer(question: StatusQuestion): Promise<StatusAnswer>
  log: Log
  limits?: Partial<StatusLimits>
}

export interface StatusLimits {
  /** Sockets at once, of everybody and of one address (IPv6: one /64). */
  connectionsMax: number
  connectionsPerAddressMax: number
  /** A request, from its first byte to its last; and how long a socket may be silent. */
  requestSeconds: number
  idleSeconds: number
  /** Full lists on their way at once: some 40 MB each from the disk. */
  fullListsMax: number
}

const defaultStatusLimits: StatusLimits = {
  // A plain socket holds some 10 KB.
  connectionsMax: 1024,
  connectionsPerAddressMax: 128,
  requestSeconds: 10,
  idleSeconds: 30,
  fullListsMax: 16,
}

/** A GET carries its question in the URL; headers of proxies come on top. */
const headerBytesMax = 16_384
const requestsPerSocketMax = 1000

export interface StatusListener {
  listen(host: string, port: number): Promise<{ port: number }>
  close(graceMs: number): Promise<void>
}

export function createStatusListener({ answer, log, limits: given }: StatusListenerOptions): StatusListener {
  const limits = { ...defaultStatusLimits, ...given }
  const perAddress = new Map<string, number>()
  let fullLists = 0

  const server = createServer(
    {
      maxHeaderSize: headerBytesMax,
      headersTimeout: limits.requestSeconds * 1000,
      requestTimeout: limits.requestSeconds * 1000,
      keepAliveTimeout: 5000,
    },
    (incoming, outgoing) => {
      serve(incoming, outgoing).catch(error => {
        if ((error as NodeJS.ErrnoException).code !== 'ERR_STREAM_PREMATURE_CLOSE')
          log.error({ err: error }, 'a status answer failed')
        outgoing.destroy()
      })
    },
  )
  server.maxConnections = limits.connectionsMax
  server.maxRequestsPerSocket = requestsPerSocketMax
  server.timeout = limits.idleSeconds * 1000
  server.on('connection', (socket: Socket) => {
    const address = addressGroup(socket.remoteAddress ?? '')
    const open = (perAddress.get(address) ?? 0) + 1
    if (open > limits.connectionsPerAddressMax) {
      socket.destroy()
      return
    }
    perAddress.set(address, open)
    socket.once('close', () => {
      const left = (perAddress.get(address) ?? 1) - 1
      if (left > 0) perAddress.set(address, left)
      else perAddress.delete(address)
    })
  })

  async function serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const { headers } = incoming
    const {
      status,
      headers: told,
      body,
    } = await answer({
      method: incoming.method ?? '',
      address: incoming.socket.remoteAddress ?? '',
      target: incoming.url ?? '',
      header: name => headers[name] as string | undefined,
      readBody: most => readBody(incoming, most),
    })
    // What is not read of a body is in the way of the next request.
    if (!incoming.complete && incoming.method === 'POST') told.connection = 'close'
    if (body === null || body instanceof Uint8Array) {
      if (status !== 304) told['content-length'] = String(body?.length ?? 0)
      outgoing.writeHead(status, told)
      outgoing.end(incoming.method === 'HEAD' ? undefined : body)
      return
    }
    if (incoming.method === 'HEAD') {
      outgoing.writeHead(status, told)
      outgoing.end()
      return
    }
    if (fullLists >= limits.fullListsMax) {
      outgoing.writeHead(503, { 'retry-after': '30', 'content-length': '0' })
      outgoing.end()
      return
    }
    fullLists++
    try {
      const stream = await openFullList(body)
      outgoing.writeHead(status, told)
      await pipeline(stream, outgoing)
    } finally {
      fullLists--
    }
  }

  return {
    listen: (host, port) =>
      new Promise((resolve, reject) => {
        server.once('error', reject)
        server.listen(port, host, () => {
          server.off('error', reject)
          server.on('error', error => log.error({ err: error }, 'status listener failed'))
          resolve({ port: (server.address() as AddressInfo).port })
        })
      }),
    close: graceMs =>
      new Promise(resolve => {
        const timer = setTimeout(() => server.closeAllConnections(), graceMs)
        server.close(() => {
          clearTimeout(timer)
          resolve()
        })
        server.closeIdleConnections()
      }),
  }
}

async function readBody(incoming: IncomingMessage, most: number): Promise<Bytes | null> {
  if (Number(incoming.headers['content-length'] ?? 0) > most) return null
  const parts: Buffer[] = []
  let length = 0
  // A body that is given up stays: its socket is to carry the answer.
  for await (const part of incoming.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    length += part.length
    if (length > most) return null
    parts.push(part)
  }
  return parts.length === 1 ? parts[0] : Buffer.concat(parts)
}
