// HTTPS as an EST client needs it: one connection a request, TLS 1.2 or later against the given anchors alone, the server's name checked
// (IP literals too), no session kept for resumption, no redirect, no decompression, and a bound on bytes and time.

import { request as httpsRequest } from 'node:https'
import type { TLSSocket } from 'node:tls'
import type { Http, HttpRequest, HttpResponse, TlsIdentity } from '../../agent/ports.ts'
import { decodeBase64, encodeBase64, encodePem } from '../../core/base64.ts'
import { concatBytes, utf8Bytes } from '../../core/bytes.ts'
import { csrBytesMax } from '../../core/csr.ts'
import { type DeviceError, type DeviceErrorCode, deviceError } from '../../core/errors.ts'
import { bindCsr, channelBindingOf } from './channel-binding.ts'
import type { NodeKeyStore } from './keys.ts'
import { judgeServer, type ServerTime } from './server-path.ts'

/** PEM certificates one after the other, as node:tls takes chains and anchors. */
export function pemChain(certificates: Uint8Array[]): string {
  return certificates.map(der => encodePem('CERTIFICATE', der)).join('')
}

/** The part of `tls.connect`'s options that says who we are and whom we trust. Throws `key_unavailable` when the slot is empty. */
export function tlsCredentials(anchors: Uint8Array[], keys: NodeKeyStore, identity: TlsIdentity): object {
  const chain = {
    ca: anchors.map(der => encodePem('CERTIFICATE', der)),
    // An anchor is an anchor, self-signed or not.
    allowPartialTrustChain: true,
    minVersion: 'TLSv1.2' as const,
  }
  const trust = { ...chain, rejectUnauthorized: true }
  if (identity.slot === null) return trust
  const cert = pemChain(identity.chain)
  const secureContext = keys.tlsContext?.(identity.slot, { ...chain, cert })
  const key = secureContext ? { secureContext } : keys.tlsKey(identity.slot)
  if (!key) throw deviceError('key_unavailable', `no key in slot ${identity.slot}`)
  return { ...trust, ...key, cert }
}

// What OpenSSL and node:tls call a server certificate that does not hold.
const untrusted = /^(CERT_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO|ERR_TLS_CERT|INVALID_|PATH_LENGTH|HOSTNAME_MISMATCH|UNSUPPORTED_CERT)/

export interface HttpOptions {
  /** Shortens the timeout a request asks for; for tests and impatient links. */
  timeoutSecondsMax?: number
  /** `channel`: every CSR names the TLS connection that carries it (RFC 7030 3.5). Absent: from the first time that the server demands it. */
  possession?: 'channel' | undefined
  /** What the server's certificate is judged against; null, and without it, the machine's clock. */
  time?: () => ServerTime | null
}

/** How the server says that it takes no CSR without the channel binding (docs/est.md). */
const demandsBinding = (response: HttpResponse): boolean =>
  response.status === 403 && new TextDecoder('latin1').decode(response.body.subarray(0, 26)).startsWith('channel_binding_required')

/** `url`: `https://host[:port]`, nothing else in it; TypeError for any other. `anchors`: DER, whom the server must chain to. */
export function nodeHttp(url: string, anchors: Uint8Array[], keys: NodeKeyStore, options: HttpOptions = {}): Http {
  const { protocol, hostname, port: number, pathname, search, username } = new URL(url)
  if (protocol !== 'https:' || pathname !== '/' || search || username)
    throw new TypeError(`server.url is not https://host[:port]: ${url}`)
  // Brackets are URL syntax; the socket and the name check want the bare address.
  const host = hostname.replace(/^\[|\]$/g, '')

  let bound = options.possession === 'channel'

  const port: Http = {
    request(request, tls, done) {
      let stop = (): void => {}
      const binding = bound
      stop = exchange(request, tls, binding, (error, response) => {
        if (!response || binding || !request.body || !demandsBinding(response)) return done(error, response)
        bound = true
        stop = port.request(request, tls, done)
      })
      return () => stop()
    },
  }
  return port

  function exchange(request: HttpRequest, tls: TlsIdentity, binding: boolean, done: Parameters<Http['request']>[2]): () => void {
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
    const seconds = Math.min(request.timeoutSeconds, options.timeoutSecondsMax ?? Number.POSITIVE_INFINITY)
    const time = options.time?.() ?? null
    const timer = setTimeout(() => failed('timeout', `no answer within ${seconds} s`), seconds * 1000)
    let sent: ReturnType<typeof httpsRequest> | undefined
    try {
      sent = httpsRequest({
        host,
        port: number || 443,
        method: request.method,
        path: request.path,
        headers: request.body ? { ...request.headers, 'content-length': request.body.length } : request.headers,
        // A fresh connection and no session cache: a new identity must prove itself, a revoked one must not ride on a ticket.
        agent: false,
        maxHeaderSize: 16384,
        ...tlsCredentials(anchors, keys, tls),
        // Judged below, before a byte of the request is written.
        ...(time && { rejectUnauthorized: false }),
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
    const { body } = request
    const post = sent
    const write = (socket: TLSSocket | null) => {
      if (!body || !binding || !socket) return void post.end(body ?? undefined)
      try {
        bindCsr(decodeBase64(body, csrBytesMax), channelBindingOf(socket), keys, (error, csr) => {
          if (!csr) return end(error, null)
          const bytes = utf8Bytes(encodeBase64(csr, 64))
          post.setHeader('content-length', bytes.length)
          post.end(bytes)
        })
      } catch (error) {
        end(error as DeviceError, null)
      }
    }
    if (time || (body && binding))
      sent.on('socket', socket =>
        socket.once('secureConnect', () => {
          const against = time && judgeServer(socket as TLSSocket, host, anchors, time)
          if (against) end(against, null)
          else write(socket as TLSSocket)
        }),
      )
    else write(null)
    return () => failed('aborted', 'given up')
  }
}
