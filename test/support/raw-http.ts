// An HTTP client that sends exactly what a test says, over TLS, and reads whole answers: no library between the test and the bytes.

import { connect, type TLSSocket } from 'node:tls'

export interface RawAnswer {
  status: number
  /** Names in lower case. */
  headers: Record<string, string>
  /** Bytes before the body. */
  headBytes: number
  body: string
}

export interface RawConnection {
  socket: TLSSocket
  /** Writes and waits for one whole answer; null when the server closes first. */
  ask(request: string | Buffer): Promise<RawAnswer | null>
  /** The next answer without writing. */
  answer(): Promise<RawAnswer | null>
  closed: Promise<void>
  close(): void
}

export interface RawOptions {
  port: number
  ca: string
  host?: string
  cert?: string
  key?: string
  version?: 'TLSv1.2' | 'TLSv1.3'
  session?: Buffer
  servername?: string
  localAddress?: string
}

/** Rejects when the handshake fails. */
export function rawConnect(options: RawOptions): Promise<RawConnection> {
  const { port, ca, host = '127.0.0.1', version } = options
  return new Promise((resolve, reject) => {
    const socket = connect({
      ...options,
      port,
      host,
      ca,
      servername: options.servername ?? 'localhost',
      ALPNProtocols: ['http/1.1'],
      ...(version && { minVersion: version, maxVersion: version }),
    })
    let received = Buffer.alloc(0)
    let ended = false
    let wake: () => void = () => {}
    socket.on('data', data => {
      received = Buffer.concat([received, data])
      wake()
    })
    const closed = new Promise<void>(done => {
      socket.once('close', () => {
        ended = true
        wake()
        done()
      })
    })
    socket.on('error', reject)

    async function answer(): Promise<RawAnswer | null> {
      for (;;) {
        const end = received.indexOf('\r\n\r\n')
        if (end >= 0) {
          const [line, ...fields] = received.subarray(0, end).toString('latin1').split('\r\n')
          const headers: Record<string, string> = {}
          for (const field of fields)
            headers[field.slice(0, field.indexOf(':')).toLowerCase()] = field.slice(field.indexOf(':') + 1).trim()
          const length = Number(headers['content-length'] ?? 0)
          const status = Number(line.split(' ')[1])
          if (received.length >= end + 4 + length) {
            const body = received.subarray(end + 4, end + 4 + length).toString()
            received = received.subarray(end + 4 + length)
            if (status !== 100) return { status, headers, headBytes: end + 4, body }
            continue
          }
        }
        if (ended) return null
        await new Promise<void>(resolve => {
          wake = resolve
        })
      }
    }

    socket.once('secureConnect', () =>
      resolve({
        socket,
        answer,
        ask(request) {
          socket.write(request)
          return answer()
        },
        closed,
        close: () => socket.destroy(),
      }),
    )
  })
}

/** A POST with its Content-Length. */
export function post(path: string, body: string | Buffer, headers: Record<string, string> = {}): Buffer {
  const all = {
    Host: 'localhost',
    'Content-Type': 'application/pkcs10',
    'Content-Length': String(Buffer.byteLength(body)),
    ...headers,
  }
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`)
  return Buffer.concat([Buffer.from(`POST ${path} HTTP/1.1\r\n${lines.join('')}\r\n`), Buffer.from(body)])
}
