// One HTTPS exchange as an EST client needs it: a connection of its own, TLS 1.2 or later by the credentials given, the server's name checked (IP literals
// too), no session kept for resumption, no redirect, no decompression, and a bound on bytes and time.

import { request as httpsRequest } from 'node:https'
import type { TLSSocket } from 'node:tls'
import type { HttpRequest, HttpResponse } from '../../agent/ports.ts'
import { type Bytes, concatBytes } from '../../core/bytes.ts'
import { type DeviceError, type DeviceErrorCode, deviceError } from '../../core/errors.ts'

export interface HttpsServer {
  /** A name or a bare address. */
  host: string
  port: number
}

/** `url`: `https://host[:port]`, nothing else in it; TypeError for any other. */
export function httpsServer(url: string): HttpsServer {
  const { protocol, hostname, port, pathname, search, username } = new URL(url)
  if (protocol !== 'https:' || pathname !== '/' || search || username)
    throw new TypeError(`server.url is not https://host[:port]: ${url}`)
  // Brackets are URL syntax; the socket and the name check want the bare address.
  return { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port) || 443 }
}

/** What an exchange is told besides its request. */
export interface HttpsTerms {
  /** For `tls.connect`. What it throws is what the exchange fails with. */
  credentials(): object
  /** Shortens the timeout that the request asks for. */
  timeoutSecondsMax?: number | undefined
  /** Judges the server in place of OpenSSL, before a byte of the request is written. */
  judge?: ((socket: TLSSocket) => DeviceError | null) | null
  /** Makes the body once there is a connection to make it for. May throw. */
  bodyFor?: ((socket: TLSSocket, done: (error: DeviceError | null, body: Bytes | null) => void) => void) | null
}

// What OpenSSL and node:tls call a server certificate that does not hold.
const untrusted = /^(CERT_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO|ERR_TLS_CERT|INVALID_|PATH_LENGTH|HOSTNAME_MISMATCH|UNSUPPORTED_CERT)/

/** Returns how to give it up. `done` comes once, never during the call. */
export function httpsExchange(
  { host, port }: HttpsServer,
  request: HttpRequest,
  { credentials, timeoutSecondsMax, judge = null, bodyFor = null }: HttpsTerms,
  done: (error: DeviceError | null, response: HttpResponse | null) => void,
): () => void {
  let ended = false
  const end = (error: DeviceError | null, response: HttpResponse | null) => {
    if (ended) return
    ended = true
    clearTimeout(timer)
    // After a whole answer the connection ends by itself, with a close_notify.
    if (error) sent?.destroy()
    // Never during the call: the agent counts on it.
    setImmediate(done, error, response)
  }
  const failed = (code: DeviceErrorCode, detail: string, cause?: unknown) => {
    const error = deviceError(code, `${host}: ${detail}`)
    if (cause) error.cause = cause
    end(error, null)
  }
  // From the first packet to the last: a server that drips a byte a second is not slow, it is hostile or broken.
  const seconds = Math.min(request.timeoutSeconds, timeoutSecondsMax ?? Number.POSITIVE_INFINITY)
  const timer = setTimeout(() => failed('timeout', `no answer within ${seconds} s`), seconds * 1000)
  let sent: ReturnType<typeof httpsRequest> | undefined
  try {
    sent = httpsRequest({
      host,
      port,
      method: request.method,
      path: request.path,
      headers: request.body ? { ...request.headers, 'content-length': request.body.length } : request.headers,
      // A fresh connection and no session cache: a new identity must prove itself, a revoked one must not ride on a ticket.
      agent: false,
      maxHeaderSize: 16384,
      ...credentials(),
      ...(judge && { rejectUnauthorized: false }),
    })
  } catch (error) {
    if (/engine routines|DSO support/.test((error as Error).message))
      failed('key_unavailable', 'OpenSSL lacks its pkcs11 engine: start with --openssl-config (tokenConfiguration)', error)
    end((error as DeviceError).code ? (error as DeviceError) : deviceError('internal', (error as Error).message), null)
    return () => {}
  }
  sent.on('error', (error: NodeJS.ErrnoException) => {
    const code = error.code ?? ''
    failed(untrusted.test(code) ? 'server_untrusted' : 'network', code || error.message, error)
  })
  sent.on('response', response => {
    const parts: Uint8Array[] = []
    let length = 0
    const tooLong = () => failed('est_response_malformed', `more than ${request.bodyBytesMax} bytes`)
    if (Number(response.headers['content-length']) > request.bodyBytesMax) return tooLong()
    response.on('data', (part: Uint8Array) => {
      length += part.length
      if (length > request.bodyBytesMax) return tooLong()
      parts.push(part)
    })
    response.on('error', error => failed('network', error.message, error))
    response.on('end', () => {
      const headers: Record<string, string> = {}
      for (const [name, value] of Object.entries(response.headers))
        headers[name] = Array.isArray(value) ? value.join(', ') : (value ?? '')
      if (response.complete) end(null, { status: response.statusCode ?? 0, headers, body: concatBytes(parts) })
      else failed('network', 'the answer was cut off')
    })
  })
  const post = sent
  if (judge || bodyFor)
    post.on('socket', socket =>
      socket.once('secureConnect', () => {
        const against = judge?.(socket as TLSSocket)
        if (against) return end(against, null)
        if (!bodyFor) return void post.end(request.body ?? undefined)
        try {
          bodyFor(socket as TLSSocket, (error, body) => {
            if (!body) return end(error, null)
            post.setHeader('content-length', body.length)
            post.end(body)
          })
        } catch (error) {
          end(error as DeviceError, null)
        }
      }),
    )
  else post.end(request.body ?? undefined)
  return () => failed('aborted', 'given up')
}
