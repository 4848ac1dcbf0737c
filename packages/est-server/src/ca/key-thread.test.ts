import { generateKeyPairSync, randomBytes, verify } from 'node:crypto'
import { testAuthority } from '@birthmark/device-sdk/testing'
import { expect, test } from 'vitest'
import { softwareIssuer } from './issuer-key.ts'
import { keyThread } from './key-thread.ts'

test('what fails in a batch fails alone, and a key that was closed signs no more', async () => {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const thread = keyThread({
    name: 'test',
    privateKeyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    nice: 0,
  })
  const messages = Array.from({ length: 40 }, () => randomBytes(300))
  const [signatures, other] = await Promise.all([
    Promise.all(messages.map(message => thread.sign('rsa-pkcs1-sha256', message))),
    thread.sign('ecdsa-sha256', messages[0]).catch((error: { code: string }) => error.code),
  ])
  expect(signatures.every((signature, i) => verify('sha256', messages[i], publicKey, signature))).toBe(true)
  expect(other).toBe('issuer_failed')
  const late = thread.sign('rsa-pkcs1-sha256', messages[0])
  const closed = thread.close()
  await expect(late).rejects.toMatchObject({ code: 'issuer_failed' })
  await closed
  await expect(thread.sign('rsa-pkcs1-sha256', messages[0])).rejects.toMatchObject({ code: 'issuer_failed' })
})

test('an RSA issuer signs alike whether its caller is patient or not', async () => {
  const { certificate, privateKeyPem } = testAuthority('Root').subordinate('RSA CA', 'RSA-2048')
  const issuer = softwareIssuer({ certificate, privateKeyPem })
  const tbs = randomBytes(500)
  const [prompt, patient] = await Promise.all([issuer.sign(tbs), issuer.sign(tbs, true)])
  expect(Buffer.compare(prompt, patient)).toBe(0)
  expect(issuer.verify(tbs, patient)).toBe(true)
  await issuer.close?.()
})
