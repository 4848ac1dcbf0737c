// A key made in a PKCS #11 token, and a signature by it. Arguments: library, token, pin. Prints SPKI and signature in hex.
import { createRequire } from 'node:module'
import { type Pkcs11Binding, tokenKeys } from '@birthmark/device-sdk/node'

const [library, token, pin] = process.argv.slice(2)
const { PKCS11 } = createRequire(new URL('../../packages/pkcs11/package.json', import.meta.url))('pkcs11js') as {
  PKCS11: new () => Pkcs11Binding
}
const keys = tokenKeys({ pkcs11: new PKCS11(), library, token, pin })
const hex = (bytes: Uint8Array | null) => Buffer.from(bytes ?? []).toString('hex')
keys.generate('op-0', (failed, made) => {
  if (failed) throw failed
  keys.publicKey('op-0', (_, found) => {
    keys.sign('op-0', new Uint8Array([1, 2, 3]), (error, signature) => {
      if (error) throw error
      process.stdout.write(JSON.stringify({ made: hex(made), found: hex(found), signature: hex(signature) }))
    })
  })
})
