// A device whose keys are all in a PKCS #11 token: born, enrolled over mutual TLS, renewed. A process of its own, since a token's library and OpenSSL's
// engine stay loaded. Arguments: library, token, pin, and a file with { url, trust }. Prints its birth key, takes its birth certificate from standard
// input, both in hex, and prints what became of it as JSON.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createIdentity, memoryStore, type Pkcs11Binding, tokenKeys } from '@birthmark/device-sdk/node'
import { birthByLine } from './birth-by-line.ts'

const [library, token, pin, server] = process.argv.slice(2)
const { PKCS11 } = createRequire(new URL('../../packages/pkcs11/package.json', import.meta.url))('pkcs11js') as {
  PKCS11: new () => Pkcs11Binding
}
const { url, trust } = JSON.parse(readFileSync(server, 'utf8'))
const keys = tokenKeys({ pkcs11: new PKCS11(), library, token, pin, prefix: 'dev-' })
const store = memoryStore()
await birthByLine(keys, store)
const identity = createIdentity({ keys, store, server: { url }, trust })
await identity.enroll()
const { state, generation, deviceId } = await identity.renew()
const tls = identity.tlsOptions()
const shown = JSON.stringify([keys, tls])
process.stdout.write(JSON.stringify({ state, generation, deviceId, key: tls.key ?? null, engine: tls.privateKeyEngine, shown }))
identity.close()
process.exit(0)
