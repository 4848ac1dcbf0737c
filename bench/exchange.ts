// One request and its answer on a kept connection, as little of HTTP as a device's bytes need.

import type { TLSSocket } from 'node:tls'

/** The body of a 200 that has its length. Rejects on any other answer, and when the connection ends. */
export function exchange(socket: TLSSocket, wire: Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    let received = ''
    const hear = (data: Buffer): void => {
      received += data.toString('latin1')
      const end = received.indexOf('\r\n\r\n')
      if (end < 0) return
      const length = Number(/content-length: (\d+)/i.exec(received.slice(0, end))?.[1])
      if (received.length < end + 4 + length) return
      socket.off('data', hear)
      socket.off('close', fail)
      if (!received.startsWith('HTTP/1.1 200 ')) reject(new Error(received))
      else resolve(received.slice(end + 4))
    }
    const fail = () => reject(new Error(`closed after ${received.slice(0, 200)}`))
    socket.on('data', hear)
    socket.once('close', fail)
    socket.write(wire)
  })
}
