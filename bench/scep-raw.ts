// The limit that a SCEP enrollment is held against: the RSA-2048 work that no server can leave out. Verify the message and the CSR with a key seen
// once, decrypt the content key, sign the certificate, encrypt the answer, sign it.

import {
  constants,
  createPublicKey,
  generateKeyPairSync,
  privateDecrypt,
  publicEncrypt,
  randomBytes,
  sign,
  verify,
} from 'node:crypto'

export function createScepRaw(): (times: number) => number {
  const ra = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const ca = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const contentKey = publicEncrypt({ key: ra.publicKey, padding: constants.RSA_PKCS1_PADDING }, randomBytes(16))
  const toBeSigned = randomBytes(400)
  const clients = Array.from({ length: 16 }, () => {
    const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    return { spki: publicKey.export({ format: 'pem', type: 'spki' }), signature: sign('sha256', toBeSigned, privateKey) }
  })
  const one = (i: number) => {
    const { spki, signature } = clients[i % clients.length]
    const key = createPublicKey(spki)
    for (let n = 0; n < 2; n++)
      if (!verify('sha256', toBeSigned, key, signature)) throw new Error('a good signature does not verify')
    privateDecrypt({ key: ra.privateKey, padding: constants.RSA_PKCS1_PADDING }, contentKey)
    sign('sha256', toBeSigned, ca.privateKey)
    publicEncrypt({ key, padding: constants.RSA_PKCS1_PADDING }, contentKey.subarray(0, 16))
    sign('sha256', toBeSigned, ra.privateKey)
  }
  /** µs of CPU an enrollment. */
  return times => {
    const start = process.cpuUsage()
    for (let i = 0; i < times; i++) one(i)
    const { user, system } = process.cpuUsage(start)
    return (user + system) / times
  }
}
