// For the factory line: has the board's TPM make the birth key and prints the request that the line certifies.
//
//   node --openssl-config=openssl.cnf tpm-birth-key.ts KEYS SERIAL >SERIAL.csr
//
// KEYS/birth.key is the key, wrapped: it opens in this TPM alone, and is what the service is given as birth.key.pem.
import { csrAssemble, csrInfo, encodeName, encodePem, SERIAL_NUMBER } from '@birthmark/device-sdk/core'
import { tpmKeys } from '@birthmark/device-sdk/node'

const [folder, serial] = process.argv.slice(2)
const keys = tpmKeys(folder)
keys.generate('birth', (failed, spki) => {
  if (!spki) throw failed
  const info = csrInfo(encodeName([{ oid: SERIAL_NUMBER, value: serial }]), spki, [])
  keys.sign('birth', info, (error, signature) => {
    if (!signature) throw error
    process.stdout.write(encodePem('CERTIFICATE REQUEST', csrAssemble(info, keys.algorithm, signature)))
  })
})
