// The devices of the benchmark on Bun, as a program of Bun: orders in lines of JSON on stdin, answers on stdout. A handshake costs them half of what
// it costs on Node, so that they keep a server busy that is as fast.

import { createInterface } from 'node:readline'
import { answer, type ToClients } from './enroll-clients.ts'

for await (const line of createInterface({ input: process.stdin })) {
  const reply = await answer(JSON.parse(line) as ToClients)
  const plain = reply.kind === 'bear' ? { ...reply, root: Buffer.from(reply.root).toString('base64') } : reply
  process.stdout.write(`${JSON.stringify(plain)}\n`)
  if (reply.kind === 'stop') break
}
process.exit(0)
