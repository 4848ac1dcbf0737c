// A birth over standard input and output, for device programs of the tests whose keys no other process can have: the device's end, and the line's.

import type { ChildProcessWithoutNullStreams } from 'node:child_process'
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

/** The line's end: certifies the key that `child` prints, and gives back what it prints as JSON in the end. Throws, with its words, when it fails. */
export async function lifeByLine(child: ChildProcessWithoutNullStreams, certify: (spki: Uint8Array) => Promise<Uint8Array>) {
  let trouble = ''
  child.stderr.on('data', part => {
    trouble += part
  })
  const ended = new Promise(resolve => child.on('close', resolve))
  const said: string[] = []
  for await (const line of createInterface({ input: child.stdout })) {
    said.push(line)
    if (said.length > 1) continue
    const birth = await certify(new Uint8Array(Buffer.from(line, 'hex')))
    child.stdin.end(`${Buffer.from(birth).toString('hex')}\n`)
  }
  const code = await ended
  if (code !== 0) throw new Error(`the device ended with ${code}: ${trouble}`)
  return JSON.parse(said[1])
}
