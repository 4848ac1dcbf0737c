// Manual approval through SCEP: PENDING, polls, a person's yes or no, and what the client then hears.

import { COMMON_NAME, encodeName, hexOf, parseCertificate } from '@birthmark/device-sdk/core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { issuerAndSubject, scepCsr, scepMessage, selfSigned, signerOf } from '../support/scep-client.ts'
import { rsaKey, type ScepServer, startScepServer } from '../support/scep-server.ts'

let server: ScepServer
beforeAll(async () => {
  server = await startScepServer({ profile: { approval: 'first' }, more: [{ label: 'each', approval: 'every' }] })
})
afterAll(() => server.stop())

async function waiting(id: string) {
  const key = rsaKey()
  const challenge = await server.challenge(id)
  const sent = server.request(id, challenge, key)
  expect((await server.ask(sent.message, key.privateKey)).status).toBe('pending')
  const [row] = (await server.approvals.list({ state: 'waiting', limit: 100 })).filter(({ deviceId }) => deviceId === id)
  const poll = async () => {
    const { subject } = parseCertificate(server.issuing.certificate)
    const content = issuerAndSubject(subject, encodeName([{ oid: COMMON_NAME, value: id }]))
    const signer = signerOf(selfSigned(key, id), key.privateKey)
    const of = { messageType: '20', transactionId: sent.transactionId, ra: server.ra }
    return server.ask(scepMessage({ ...of, content, signer }).message, key.privateKey)
  }
  return { key, sent, row, poll, challenge }
}

describe('CertPoll', () => {
  it('[RFC 8894 2.2] waits until a person says yes, then gives the certificate, to each further poll and to the request itself', async () => {
    const { key, sent, row, poll } = await waiting('router-1')
    expect((await poll()).status).toBe('pending')
    const before = server.signatures()
    await server.approvals.decide({ id: row.id, approve: true, by: 'ann', reason: '' })
    const rep = await poll()
    expect(rep.status).toBe('success')
    const { spki, subject } = parseCertificate(rep.certificates[0])
    expect([hexOf(spki), Buffer.from(subject).includes('router-1')]).toEqual([hexOf(key.spki), true])
    for (const again of [await poll(), await server.ask(sent.message, key.privateKey)])
      expect(hexOf(again.certificates[0])).toBe(hexOf(rep.certificates[0]))
    expect(server.signatures() - before).toBe(1)
  })

  it('hears a signed FAILURE with the reason once a person said no', async () => {
    const { row, poll } = await waiting('router-2')
    await server.approvals.decide({ id: row.id, approve: false, by: 'ann', reason: 'not on the list' })
    const rep = await poll()
    expect([rep.status, rep.failInfo, rep.failInfoText]).toEqual(['failure', 2, expect.stringContaining('not on the list')])
  })

  it('a renewal that waits, with a new key and a challenge that nobody looks at, is answered to the old certificate', async () => {
    const path = '/scep/each'
    const decide = async () => {
      const [row] = await server.approvals.list({ state: 'waiting', limit: 1 })
      await server.approvals.decide({ id: row.id, approve: true, by: 'ann', reason: '' })
    }
    const key = rsaKey()
    const first = server.request('router-4', await server.challenge('router-4', 'each'), key)
    expect((await server.ask(first.message, key.privateKey, path)).status).toBe('pending')
    await decide()
    const [certificate] = (await server.ask(first.message, key.privateKey, path)).certificates
    const next = rsaKey()
    const signer = signerOf(certificate, key.privateKey)
    const renewal = scepMessage({ messageType: '17', content: scepCsr(next, 'router-4', 'NOTMINTED'), ra: server.ra, signer })
    expect((await server.ask(renewal.message, key.privateKey, path)).status).toBe('pending')
    await decide()
    const { subject } = parseCertificate(server.issuing.certificate)
    const content = issuerAndSubject(subject, encodeName([{ oid: COMMON_NAME, value: 'router-4' }]))
    const poll = scepMessage({ messageType: '20', content, ra: server.ra, signer, transactionId: renewal.transactionId })
    const rep = await server.ask(poll.message, key.privateKey, path)
    expect([rep.status, rep.failInfoText]).toEqual(['success', null])
    expect(hexOf(parseCertificate(rep.certificates[0]).spki)).toBe(hexOf(next.spki))
    expect(server.holds('NOTMINTED')).toBe(false)
  })
})

it('[F42] a challenge is in no file and no line of the log: minted, wrong, waiting for a person, or spent', async () => {
  const minted = await server.challenge('router-5')
  const wrong = 'NOT-THE-ONE-THAT-WAS-MINTED'
  const key = rsaKey()
  expect((await server.ask(server.request('router-5', wrong, key).message, key.privateKey)).failInfo).toBe(2)
  const { row, poll, challenge, sent } = await waiting('router-6')
  for (const text of [minted, wrong, challenge]) expect(server.holds(text)).toBe(false)
  await server.approvals.decide({ id: row.id, approve: true, by: 'ann', reason: '' })
  expect((await poll()).status).toBe('success')
  expect(server.holds(challenge)).toBe(false)
  // What is looked for would be found: it is in the files that the transaction is in.
  expect(server.holds(sent.transactionId)).toBe(true)
})
