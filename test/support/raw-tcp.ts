// Sends exactly what a test says over plain TCP, and reads until the server has answered once: no library between the test and the bytes.

import { connect } from 'node:net'

export interface RawReply {
  status: number
  body: Buffer
}

/** Rejects when the server closes before a whole answer, or after ten seconds. */
export function sendRaw(port: number, request: string | Uint8Array): Promise<RawReply> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(request))
    let received = Buffer.alloc(0)
    const timer = setTimeout(() => socket.destroy(new Error('no answer')), 10_000)
    const done = (reply: RawReply) => {
      clearTimeout(timer)
      socket.destroy()
      resolve(reply)
    }
    socket.on('data', data => {
      received = Buffer.concat([received, data])
      const end = received.indexOf('\r\n\r\n')
      if (end < 0) return
      const head = received.subarray(0, end).toString('latin1')
      const length = Number(/^content-length: *(\d+)/im.exec(head)?.[1] ?? 0)
      if (received.length < end + 4 + length) return
      done({ status: Number(head.slice(9, 12)), body: received.subarray(end + 4, end + 4 + length) })
    })
    socket.on('error', reject)
    socket.on('close', () => {
      clearTimeout(timer)
      reject(new Error(`closed after ${received.length} bytes`))
    })
  })
}
