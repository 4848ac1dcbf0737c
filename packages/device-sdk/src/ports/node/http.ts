// HTTPS for the agent: exchanges by the identity that it names, against the given anchors alone, each CSR bound to its connection where that is wanted.

import type { Http, HttpRequest, HttpResponse, TlsIdentity } from '../../agent/ports.ts'
import { decodeBase64, encodeBase64, encodePem } from '../../core/base64.ts'
import { utf8Bytes } from '../../core/bytes.ts'
import { csrBytesMax } from '../../core/csr.ts'
import { deviceError } from '../../core/errors.ts'
import { bindCsr, channelBindingOf } from './channel-binding.ts'
import { httpsExchange, httpsServer } from './https-exchange.ts'
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
  const server = httpsServer(url)
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
    const time = options.time?.() ?? null
    const { body } = request
    return httpsExchange(
      server,
      request,
      {
        credentials: () => tlsCredentials(anchors, keys, tls),
        timeoutSecondsMax: options.timeoutSecondsMax,
        judge: time && (socket => judgeServer(socket, server.host, anchors, time)),
        bodyFor:
          body && binding
            ? (socket, made) =>
                bindCsr(decodeBase64(body, csrBytesMax), channelBindingOf(socket), keys, (error, csr) =>
                  made(error, csr && utf8Bytes(encodeBase64(csr, 64))),
                )
            : null,
      },
      done,
    )
  }
}
