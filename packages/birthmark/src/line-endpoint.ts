// The station for several testers: an HTTPS endpoint that only testers with a certificate of this line's own CA can open. A tester sends a
// unit's request and what the unit then holds; every rule is the station's and the order's.
//
//   POST /units/SERIAL          CSR, DER or PEM            → 200 PEM: birth certificate, issuing CA
//   POST /units/SERIAL/held     certificate, DER or PEM    → 204, the unit is good
//   POST /units/SERIAL/failed   {"step": …, "cause": …}    → 204, counted; with "scrap": true the unit is scrapped

import type { IncomingMessage } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { TLSSocket } from 'node:tls'
import { codeOf, decodePem, encodePem } from '@birthmark/device-sdk/core'
import { FactoryError, type Order, type Station } from '@birthmark/factory-line'
import { csrOf } from './line-folder.ts'

// The largest request, ML-DSA with PEM around it, has below 12 KB.
const bodyBytesMax = 65_536

export interface LineEndpoint {
  port: number
  close(): Promise<void>
}

export async function openLineEndpoint(options: {
  host: string
  port: number
  /** PEM: server certificate and its key; the CA of the testers. */
  tls: { cert: Buffer; key: Buffer; ca: Buffer }
  station: Station
  /** Null: any serial. */
  order: Order | null
  /** Of every unit, beside those of the order. */
  groups: string[]
  /** After each answer: for the live view. */
  seen(tester: string, serial: string, outcome: string): void
}): Promise<LineEndpoint> {
  const { station, order, seen } = options

  const handle = async (request: IncomingMessage, tester: string): Promise<[status: number, body: string]> => {
    const [, serial, action] = /^\/units\/([A-Za-z0-9._:-]{1,64})(?:\/(held|failed))?$/.exec(request.url ?? '') ?? []
    if (!serial || request.method !== 'POST') return [404, 'POST /units/SERIAL, /units/SERIAL/held or /units/SERIAL/failed\n']
    const body = await bodyOf(request)
    if (!body) return [413, `at most ${bodyBytesMax} bytes\n`]
    try {
      if (action === 'held') {
        await station.confirm(serial, { certificate: certificateOf(body), proof: null })
        seen(tester, serial, 'good')
        return [204, '']
      }
      if (action === 'failed') {
        const { step, cause, scrap } = JSON.parse(body.toString('utf8'))
        if (typeof step !== 'string' || typeof cause !== 'string') return [400, 'step and cause are expected\n']
        await (scrap === true ? station.scrap(serial, step, cause) : station.fail(serial, step, cause))
        seen(tester, serial, scrap === true ? 'scrapped' : 'failed')
        return [204, '']
      }
      const unit = order ? order.unit(serial) : { serial, sku: null, groups: [], station: null }
      if (!unit) throw new FactoryError('not_in_order', `${serial} is not in the order`)
      if (unit.station && unit.station !== station.name)
        throw new FactoryError('wrong_station', `${serial} is for station ${unit.station}; this is ${station.name}`)
      const { certificate, chain } = await station.issue({
        ...unit,
        groups: [...new Set([...unit.groups, ...options.groups])],
        csr: csrOf(body),
      })
      seen(tester, serial, 'issued')
      return [200, [certificate, ...chain].map(der => encodePem('CERTIFICATE', der)).join('')]
    } catch (error) {
      if (error instanceof SyntaxError) return [400, 'the body is not JSON\n']
      const code = error instanceof FactoryError ? error.code : codeOf(error)
      if (!code) throw error
      seen(tester, serial, code)
      // The station stands still: the tester waits for a person. Everything else is about this unit.
      const status = /^(journal_|clock_back|signature_bad|token_)/.test(code) ? 503 : /malformed|csr_/.test(code) ? 400 : 409
      return [status, `${code}: ${(error as Error).message}\n`]
    }
  }

  const server: Server = createServer(
    {
      ...options.tls,
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: 'TLSv1.2',
      // A resumed session would pass over the certificate.
      sessionTimeout: 1,
      handshakeTimeout: 10_000,
      requestTimeout: 30_000,
      headersTimeout: 10_000,
    },
    (request, response) => {
      const tester = String((request.socket as TLSSocket).getPeerCertificate().subject?.CN ?? '')
      handle(request, tester).then(
        ([status, body]) => {
          const type = status === 200 ? 'application/x-pem-file' : 'text/plain'
          response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' }).end(body)
        },
        // Nothing of an unexpected error goes out.
        () => void response.writeHead(500).end('internal error\n'),
      )
    },
  )
  server.maxConnections = 256
  server.on('tlsClientError', () => {})
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.port, options.host, resolve)
  })
  const address = server.address()
  return {
    port: typeof address === 'object' && address ? address.port : options.port,
    close: () =>
      new Promise(resolve => {
        server.close(() => resolve())
        server.closeIdleConnections()
      }),
  }
}

async function bodyOf(request: IncomingMessage): Promise<Buffer | null> {
  const parts: Buffer[] = []
  let length = 0
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length
    if (length > bodyBytesMax) return null
    parts.push(part)
  }
  return Buffer.concat(parts)
}

function certificateOf(content: Buffer): Uint8Array {
  const text = content.toString('latin1')
  return text.includes('-----BEGIN CERTIFICATE-----') ? decodePem(text, 'CERTIFICATE', 8)[0] : content
}
