// A birth over standard input and output, for device programs of the tests whose keys no other process can have.

import { createInterface } from 'node:readline'
import type { memoryStore, NodeKeyStore } from '@birthmark/device-sdk/node'

/** Makes the birth key and prints its SubjectPublicKeyInfo; takes the birth certificate, which goes into `store`. Both in hex, a line each. */
export async function birthByLine(keys: NodeKeyStore, store: ReturnType<typeof memoryStore>): Promise<void> {
  const spki = await new Promise<Uint8Array>((resolve, reject) =>
    keys.generate('birth', (error, made) => (made ? resolve(made) : reject(error))),
  )
  process.stdout.write(`${Buffer.from(spki).toString('hex')}\n`)
  for await (const line of createInterface({ input: process.stdin })) {
    store.put('birth.chain', new Uint8Array(Buffer.from(line, 'hex')))
    break
  }
}
