// A device on Bun whose keys are all in a PKCS #11 token, where no TLS reaches them: born, refused at the server's own door, enrolled and renewed through a
// gateway. A process of its own, since a token's library stays loaded. Arguments: library, token, pin, and a file with { url, trust, port }, the
// gateway's line at the last. Prints its birth key, takes its birth certificate from standard input, both in hex, and prints what became of it as JSON.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { connect } from 'node:net'
import { gatewayHttp, streamLink } from '@birthmark/device-sdk/agent'
import {
  type BirthmarkError,
  bunHash,
  createIdentity,
  memoryStore,
  type Pkcs11Binding,
  pemChain,
  systemClock,
  tokenKeys,
} from '@birthmark/device-sdk/bun'
import { birthByLine } from './birth-by-line.ts'

const [library, token, pin, server] = process.argv.slice(2)
const { PKCS11 } = createRequire(new URL('../../packages/pkcs11/package.json', import.meta.url))('pkcs11js') as {
  PKCS11: new () => Pkcs11Binding
}
const { url, trust, port } = JSON.parse(readFileSync(server, 'utf8'))
const keys = tokenKeys({ pkcs11: new PKCS11(), library, token, pin })
const store = memoryStore()
await birthByLine(keys, store)

const alone = createIdentity({ keys, store, server: { url }, trust })
const refused = await alone.enroll().then(
  () => 'enrolled',
  (error: BirthmarkError) => error.code,
)
alone.close()

const line = connect(port, '127.0.0.1')
const link = streamLink(bytes => line.write(bytes), systemClock)
line.on('data', part => link.receive(new Uint8Array(part)))
const identity = createIdentity({ keys, store, server: { url }, trust, http: gatewayHttp(link, keys, bunHash, systemClock) })
await identity.enroll()
const first = pemChain(identity.chain())
const { state, generation, deviceId } = await identity.renew()
const runtime = process.versions.bun === undefined ? 'Node' : 'Bun'
process.stdout.write(
  JSON.stringify({
    runtime,
    refused,
    state,
    generation,
    deviceId,
    first,
    last: pemChain(identity.chain()),
    shown: JSON.stringify(keys),
  }),
)
identity.close()
process.exit(0)
