// EST over ECMA-419's HTTP client. How TLS is opened (trust anchors, client certificate) is the firmware's: it is given the identity and returns a
// client. One exchange a client, so that a new identity never speaks over the connection of the one before it.

import type { Http, TlsIdentity } from '../../agent/ports.ts'
import { concatBytes } from '../../core/bytes.ts'
import { type DeviceErrorCode, deviceError } from '../../core/errors.ts'
import type { ModdableHttpClient, ModdableTimer } from './modules.ts'

/** EST's headers that the core reads. */
const headersRead = ['content-type', 'content-encoding', 'retry-after']

/** `open`: a client for one exchange. `untrusted`: to be told when TLS did not believe the server, as `moddableTls` does. */
export function moddableHttp(open: (tls: TlsIdentity, untrusted: () => void) => ModdableHttpClient, timer: ModdableTimer): Http {
  return {
    request(request, tls, done) {
      let over = false
      let client: ModdableHttpClient | null = null
      let refused: DeviceErrorCode = 'network'
      const parts: Uint8Array[] = []
      let received = 0
      let status = 0
      const headers: { [name: string]: string } = {}
      const end = (code: DeviceErrorCode | null): void => {
        if (over) return
        over = true
        timer.clear(limit)
        client?.close()
        done(code && deviceError(code), code ? null : { status, headers, body: concatBytes(parts) })
      }
      const limit = timer.set(() => end('timeout'), request.timeoutSeconds * 1000)
      const body = request.body
      let sent = 0
      const sentHeaders = new Map(Object.entries(request.headers))
      if (body) sentHeaders.set('content-length', String(body.length))
      // Not within this call: whoever asked is not ready for an answer before it returns.
      timer.set(() => {
        if (over) return
        try {
          client = open(tls, () => {
            refused = 'server_untrusted'
          })
          client.request({
            method: request.method,
            path: request.path,
            headers: sentHeaders,
            onHeaders(code, received) {
              status = code
              for (const name of headersRead) {
                const value = received.get(name)
                if (value !== undefined) headers[name] = value
              }
            },
            onReadable(count) {
              if (over) return
              received += count
              if (received > request.bodyBytesMax) end('est_response_malformed')
              else parts.push(new Uint8Array(this.read(count) as ArrayBuffer))
            },
            onWritable(count) {
              if (!body || sent === body.length) return
              const part = body.slice(sent, sent + count)
              sent += part.length
              this.write(part.buffer as ArrayBuffer)
            },
            onDone(error) {
              end(error || !status ? refused : null)
            },
          })
        } catch {
          end(refused)
        }
      }, 0)
      return () => {
        over = true
        timer.clear(limit)
        client?.close()
      }
    },
  }
}
