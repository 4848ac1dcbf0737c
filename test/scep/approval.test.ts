// Manual approval through SCEP: PENDING, polls, a person's yes or no, and what the client then hears.

import { COMMON_NAME, encodeName, hexOf, parseCertificate } from '@birthmark/device-sdk/core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { issuerAndSubject, scepMessage, selfSigned, signerOf } from '../support/scep-client.ts'
import { rsaKey, type ScepServer, startScepServer } from '../support/scep-server.ts'

let server: ScepServer
beforeAll(async () => {
  server = await startScepServer({ profile: { approval: 'first' } })
})
afterAll(() => server.stop())

async function waiting(id: string) {
  const key = rsaKey()
  const sent = server.request(id, await server.challenge(id), key)
  expect((await server.ask(sent.message, key.privateKey)).status).toBe('pending')
  const [row] = (await server.approvals.list({ state: 'waiting', limit: 100 })).filter(({ deviceId }) => deviceId === id)
  const poll = async () => {
    const { subject } = parseCertificate(server.issuing.certificate)
    const content = issuerAndSubject(subject, encodeName([{ oid: COMMON_NAME, value: id }]))
    const signer = signerOf(selfSigned(key, id), key.privateKey)
    const of = { messageType: '20', transactionId: sent.transactionId, ra: server.ra }
    return server.ask(scepMessage({ ...of, content, signer }).message, key.privateKey)
  }
  return { key, sent, row, poll }
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
})
