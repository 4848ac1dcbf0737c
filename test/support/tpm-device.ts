// A device whose keys are a TPM's: born, enrolled, connected twenty times, renewed while a connection is open, connected twenty times more, by turns to
// what trusts one CA more. A process of its own, since OpenSSL is told of the TPM at the start. Arguments: a folder, and a file with { url, trust }. Prints its birth key, takes its birth certificate
// from standard input, both in hex, and prints what became of it as JSON.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { connect, type TLSSocket } from 'node:tls'
import { createIdentity, fileStore, type TlsOptions, tpmKeys } from '@birthmark/device-sdk/node'
import { birthByLine } from './birth-by-line.ts'

const [folder, server] = process.argv.slice(2)
const { url, trust } = JSON.parse(readFileSync(server, 'utf8'))
const keys = tpmKeys(join(folder, 'keys'))
const store = fileStore(join(folder, 'identity'))
await birthByLine(keys, store)
const { hostname: host, port } = new URL(url)
const open = (tls: TlsOptions): Promise<TLSSocket> =>
  new Promise((resolve, reject) => {
    const socket = connect({ ...tls, host, port: Number(port) }, () => resolve(socket))
    socket.once('error', reject)
  })
/** The status of an answer over an open connection. */
const ask = (socket: TLSSocket): Promise<string> =>
  new Promise((resolve, reject) => {
    socket.once('error', reject)
    socket.once('data', part => resolve(part.toString('latin1').split(' ')[1]))
    socket.write(`GET /.well-known/est/cacerts HTTP/1.1\r\nhost: ${host}\r\n\r\n`)
  })

const identity = createIdentity({ keys, store, server: { url }, trust })
await identity.enroll()
const answers: string[] = []
const asked = async (socket: TLSSocket, keep: boolean) => {
  answers.push(await ask(socket))
  if (!keep) socket.destroy()
}
const more = { trust: [trust.server, trust.birth] }
const contexts = new Set<unknown>()
const connected = async (turn: number) => {
  const tls = identity.tlsOptions(turn & 1 ? more : {})
  contexts.add(tls.secureContext)
  await asked(await open(tls), false)
}
for (let i = 0; i < 20; i++) await connected(i)
const old = await open(identity.tlsOptions())
await identity.renew()
const fresh = await open(identity.tlsOptions())
await asked(fresh, false)
await asked(old, false)
for (let i = 0; i < 19; i++) await connected(i)
await identity.renew()
const { state, generation, deviceId } = identity.status()
const shown = JSON.stringify([keys, identity.tlsOptions()])
process.stdout.write(JSON.stringify({ state, generation, deviceId, answers: answers.join(' '), contexts: contexts.size, shown }))
identity.close()
process.exit(0)
