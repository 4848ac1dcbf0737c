import { constants, createPublicKey, generateKeyPairSync, sign } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { csrAssemble, csrInfo, parseCsr } from '../../core/csr.ts'
import { encodeName } from '../../core/distinguished-name.ts'
import { nodeVerify } from './crypto.ts'
import { type KeyType, memoryKeys } from './keys.ts'

const good = (spki: Uint8Array, algorithm: string, message: Uint8Array, signature: Uint8Array) => {
  let answers: boolean[] = []
  nodeVerify.verify(spki, algorithm, message, signature, answer => {
    answers = [...answers, answer]
  })
  expect(answers).toHaveLength(1)
  return answers[0]
}

describe('keys and verification', () => {
  for (const type of ['P-256', 'P-384', 'Ed25519', 'RSA-3072', 'ML-DSA-44', 'ML-DSA-65'] satisfies KeyType[]) {
    it(`${type}: a CSR made by the key store parses and verifies, and a changed one does not`, async () => {
      const keys = memoryKeys(type)
      const spki = await new Promise<Uint8Array>((resolve, reject) =>
        keys.generate('op-0', (e, key) => (key ? resolve(key) : reject(e))),
      )
      const info = csrInfo(encodeName([]), spki, [])
      const signature = await new Promise<Uint8Array>((resolve, reject) =>
        keys.sign('op-0', info, (e, made) => (made ? resolve(made) : reject(e))),
      )
      const csr = parseCsr(csrAssemble(info, keys.algorithm, signature))
      expect(csr.keyAlgorithm).toBe(type.replace('-3072', ''))
      expect(good(csr.spki, csr.signatureAlgorithm, csr.info, csr.signature)).toBe(true)
      const other = csr.info.slice()
      other[other.length - 1] ^= 1
      expect(good(csr.spki, csr.signatureAlgorithm, other, csr.signature)).toBe(false)
      expect(good(csr.spki, type === 'Ed25519' ? 'ecdsa-sha256' : 'ed25519', csr.info, csr.signature)).toBe(false)
    })
  }

  it('RSA-PSS holds the salt to the length of the hash; PKCS#1 is another algorithm', () => {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const spki = new Uint8Array(createPublicKey(privateKey).export({ type: 'spki', format: 'der' }))
    const message = new Uint8Array([1, 2, 3])
    const pss = (saltLength: number) =>
      sign('sha256', message, { key: privateKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength })
    expect(good(spki, 'rsa-pss-sha256', message, pss(32))).toBe(true)
    expect(good(spki, 'rsa-pss-sha256', message, pss(20))).toBe(false)
    expect(good(spki, 'rsa-pkcs1-sha256', message, pss(32))).toBe(false)
    expect(good(spki, 'rsa-pkcs1-sha256', message, sign('sha256', message, privateKey))).toBe(true)
  })

  it('an unknown name, a broken key, an empty signature are simply not good', () => {
    const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const spki = new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }))
    for (const algorithm of ['', 'none', 'ecdsa-md5', 'constructor', 'ecdsa-sha256'])
      for (const key of [spki, new Uint8Array(0), spki.subarray(1)])
        expect(good(key, algorithm, new Uint8Array(4), new Uint8Array(0))).toBe(false)
  })
})
