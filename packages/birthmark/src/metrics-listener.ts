// What monitoring asks, apart from what devices ask: /metrics for Prometheus, /healthz and /readyz in text. Plain HTTP without authentication,
// so it listens on the loopback unless the configuration says otherwise. It tells counts and states, no device and no secret.

import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { named } from './listening.ts'

export interface MetricsSource {
  /** Prometheus' text format. */
  text(): Promise<string>
  /** Why nothing should be sent here, or null. */
  unready(): string | null
  /** What holds, a line each, whether ready or not. */
  state(): string[]
}

export interface MetricsListener {
  port: number
  close(): Promise<void>
}

export async function openMetricsListener(host: string, port: number, source: MetricsSource): Promise<MetricsListener> {
  // Scrapers come every few seconds, one at a time; what does not finish within ten is not waited for.
  const server = createServer({ requestTimeout: 10_000, headersTimeout: 5000, maxHeaderSize: 8192 }, (request, response) => {
    const say = (status: number, body: string, type = 'text/plain; charset=utf-8') => {
      response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body), 'cache-control': 'no-store' })
      response.end(request.method === 'HEAD' ? undefined : body)
    }
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('allow', 'GET, HEAD')
      say(405, 'GET or HEAD\n')
      return
    }
    switch (request.url) {
      case '/metrics':
        source.text().then(
          text => say(200, text, 'text/plain; version=0.0.4; charset=utf-8'),
          () => say(500, 'not available\n'),
        )
        return
      case '/healthz':
        say(200, 'ok\n')
        return
      case '/readyz': {
        const reason = source.unready()
        say(reason === null ? 200 : 503, `${reason === null ? 'ready' : `not ready: ${reason}`}\n${source.state().join('\n')}\n`)
        return
      }
      default:
        say(404, '/metrics, /healthz, /readyz\n')
    }
  })
  server.maxConnections = 32
  await named('metrics', host, port, async () => {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(port, host, resolve)
    })
  })
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise(resolve => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
