// Challenges that the owner's system answers for: asked of a webhook, bound to the device, spent once.

import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createOutbound, createWebhook } from '@birthmark/est-server'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { rsaKey, type ScepServer, startScepServer } from '../support/scep-server.ts'

let owner: Server
let server: ScepServer
let asked: Record<string, unknown>[] = []
let answer: () => { status: number; body: string }
const said = (body: object) => () => ({ status: 200, body: JSON.stringify(body) })

beforeAll(async () => {
  owner = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', part => parts.push(part))
    request.on('end', () => {
      asked.push(JSON.parse(Buffer.concat(parts).toString()))
      const { status, body } = answer()
      response.writeHead(status).end(body)
    })
  })
  await new Promise<void>(resolve => owner.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(owner.address() as AddressInfo).port}/challenge`
  const quiet = () => {}
  const clock = { now: () => Date.now() / 1000 }
  const webhook = createWebhook({ outbound: createOutbound(), clock, log: { info: quiet, warn: quiet, error: quiet } })
  const rule = { url, secret: new Uint8Array(32).fill(7), allowLoopback: true }
  server = await startScepServer({ profile: { scep: { webhook: rule } }, scep: { webhook } })
})
afterAll(async () => {
  await server.stop()
  await new Promise(resolve => owner.close(resolve))
})
beforeEach(() => {
  asked = []
})

it('a yes admits the device, and the same request gets the same certificate without another question', async () => {
  answer = said({ allow: true })
  const key = rsaKey()
  const { message } = server.request('mdm-1', 'OWNERS-WORD', key)
  const [first, second] = [await server.ask(message, key.privateKey), await server.ask(message, key.privateKey)]
  expect([first.status, second.status]).toEqual(['success', 'success'])
  expect(second.certificates[0]).toEqual(first.certificates[0])
  expect(asked).toEqual([
    expect.objectContaining({ device: 'mdm-1', challenge: 'OWNERS-WORD', identity: 'challenge', label: null, version: 1 }),
  ])
  // The owner may give it to more devices than one.
  expect(server.holds('OWNERS-WORD')).toBe(false)
})

it('a no, and a challenge of nobody, are the one badRequest that everybody gets', async () => {
  answer = said({ allow: false, reason: 'the owner knows why' })
  const key = rsaKey()
  const rep = await server.ask(server.request('mdm-2', 'GUESS', key).message, key.privateKey)
  expect([rep.status, rep.failInfo, rep.failInfoText]).toEqual(['failure', 2, null])
})

it('[F33] bent content asks the owner as well, about a device that there is not', async () => {
  answer = said({ allow: false })
  const key = rsaKey()
  const rep = await server.ask(server.request('mdm-3', null, key, { content: new Uint8Array(400) }).message, key.privateKey)
  expect([rep.failInfo, rep.failInfoText]).toEqual([2, null])
  expect(asked).toMatchObject([{ device: 'decoy' }])
})

it('silence and nonsense are a refusal that says so, and nothing is signed', async () => {
  const before = server.signatures()
  for (const nonsense of [
    { status: 500, body: '' },
    { status: 200, body: 'yes' },
  ]) {
    answer = () => nonsense
    const key = rsaKey()
    const rep = await server.ask(server.request('mdm-4', 'LATER', key).message, key.privateKey)
    expect([rep.failInfo, rep.failInfoText]).toEqual([2, "the owner's system gave no answer"])
  }
  expect(server.signatures()).toBe(before)
})

it('a challenge that was minted here is not asked about', async () => {
  const key = rsaKey()
  const rep = await server.ask(server.request('mdm-5', await server.challenge('mdm-5'), key).message, key.privateKey)
  expect([rep.status, asked.length]).toEqual(['success', 0])
})
