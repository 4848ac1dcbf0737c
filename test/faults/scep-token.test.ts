// SCEP with the RA's key in a token: SoftHSM decrypts the requests and signs the answers.

import { openPkcs11Ra } from '@birthmark/pkcs11'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { rsaKey, type ScepServer, startScepServer } from '../support/scep-server.ts'
import { type SoftToken, softToken } from '../support/soft-token.ts'

let token: SoftToken
let server: ScepServer
const quiet = () => {}
const log = { info: quiet, warn: quiet, error: quiet }
beforeAll(async () => {
  token = softToken()
  server = await startScepServer({
    async ra(software, { certificate, key }) {
      await software.close()
      token.importKey(key, 'scep', '02')
      const where = { library: token.library, token: { label: token.label }, key: { label: 'scep' }, pin: { file: token.pinFile } }
      return openPkcs11Ra({ certificate, ...where, limits: { retryMs: 50, retryMsMax: 100, signMs: 1500 }, log })
    },
  })
})
afterAll(async () => {
  await server.stop()
  token.remove()
})

/** The encrypted key is the only octet string of 256 octets. */
function bentKey(envelope: Uint8Array): Uint8Array {
  const out = envelope.slice()
  out[Buffer.from(envelope).indexOf(Buffer.from('04820100', 'hex')) + 100] ^= 0x55
  return out
}

async function enroll(id: string, form: object = {}) {
  const key = rsaKey()
  return server.ask(server.request(id, await server.challenge(id), key, form).message, key.privateKey)
}

it('decrypts with RSAES-PKCS1-v1_5 and signs with PKCS#1 and PSS', async () => {
  for (const [i, form] of [{}, { cipher: 'aes-256-gcm', pss: true }, { digest: 'sha512' }].entries()) {
    const rep = await enroll(`hsm-${i}`, form)
    expect([rep.status, rep.certificates.length], JSON.stringify(form)).toEqual(['success', 2])
  }
})

it('[F33] bent padding, a key of another length, a wrong challenge and an unknown mechanism look alike, and cost the token no session', async () => {
  const logins = token.logins()
  const bodies: number[] = []
  const key = rsaKey()
  const wrong = server.request('hsm-x', 'WRONG', key)
  const bent = server.request('hsm-x', 'WRONG', key, { bend: bentKey }).message
  for (const message of [wrong.message, bent]) {
    const { body } = await server.post(message)
    const rep = await server.ask(message, key.privateKey)
    expect([rep.status, rep.failInfo, rep.failInfoText]).toEqual(['failure', 2, null])
    bodies.push(body.length)
  }
  expect(new Set(bodies).size).toBe(1)
  // SoftHSM has OAEP with SHA-1 alone.
  expect((await enroll('hsm-oaep', { transport: { kind: 'oaep', digest: 'sha256' } })).failInfo).toBe(2)
  expect((await enroll('hsm-after')).status).toBe('success')
  expect(token.logins()).toBe(logins)
})

it('[F40] a token that stalls or is gone is 503 over HTTP, since not even a refusal can be signed; it comes back by itself', async () => {
  const key = rsaKey()
  const { message } = server.request('hsm-away', await server.challenge('hsm-away'), key)
  token.plan('stall')
  expect(server.service.unready()).toBeNull()
  expect((await server.post(message)).status).toBe(503)
  // It is tried again soon; until that has come to something it is away.
  for (let i = 0; i < 10; i++) {
    expect(server.service.unready()).toMatch(/no answer within/)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
  token.plan('')
  for (let i = 0; ; i++) {
    const { status } = await server.post(message)
    if (status === 200) break
    if (i > 100) throw new Error('it does not come back')
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  expect((await server.ask(message, key.privateKey)).status).toBe('success')
  expect(server.service.unready()).toBeNull()
})

it('[F41] a signature of the token that does not verify is not sent', async () => {
  token.plan('flip')
  const key = rsaKey()
  const { status } = await server.post(server.request('hsm-flip', 'WRONG', key).message)
  token.plan('')
  expect(status).toBe(503)
})
