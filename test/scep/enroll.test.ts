// Enrolling by SCEP, from the bytes of a message to the certificate in the answer.

import { X509Certificate } from 'node:crypto'
import { COMMON_NAME, encodeName, encodeSequence, equalBytes, hexOf, parseCertificate } from '@birthmark/device-sdk/core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { issuerAndSerial, issuerAndSubject, scepCsr, scepMessage, selfSigned, signerOf } from '../support/scep-client.ts'
import { rsaKey, type ScepServer, startScepServer } from '../support/scep-server.ts'

let server: ScepServer
/** Stands for one: nobody here looks into it. */
const list = Buffer.from(encodeSequence([Buffer.from('revoked')]))
beforeAll(async () => {
  server = await startScepServer({
    profile: { scep: {} },
    scep: { crl: async ({ deviceId }) => (deviceId === 'router-10' ? list : null) },
    more: [
      { label: 'waits', approval: 'first' },
      { label: 'est-only', scep: null, admitSecrets: true },
    ],
  })
})
afterAll(() => server.stop())

async function enrolled(id: string) {
  const key = rsaKey()
  const sent = server.request(id, await server.challenge(id), key)
  const rep = await server.ask(sent.message, key.privateKey)
  expect(rep.status, JSON.stringify(rep.failInfoText)).toBe('success')
  return { key, sent, rep, certificate: rep.certificates[0] }
}

describe('PKCSReq', () => {
  it('[RFC 8894 3.3.1] a challenge gets the device that it was minted for its certificate', async () => {
    const { key, sent, rep, certificate } = await enrolled('router-1')
    expect(rep.transactionId).toBe(sent.transactionId)
    expect(hexOf(rep.recipientNonce)).toBe(hexOf(sent.senderNonce))
    expect(hexOf(parseCertificate(certificate).spki)).toBe(hexOf(key.spki))
    const read = new X509Certificate(certificate)
    expect(read.subject).toContain('CN=router-1')
    expect(read.verify(new X509Certificate(server.issuing.certificate).publicKey)).toBe(true)
    // The issuing CA comes with it.
    expect(hexOf(rep.certificates[1])).toBe(hexOf(server.issuing.certificate))
  })

  it('every cipher, hash, padding and key transport that is offered works, and is answered in kind', async () => {
    const forms = [
      { cipher: 'aes-128-cbc' },
      { cipher: 'aes-256-cbc', digest: 'sha512' },
      { cipher: 'aes-128-gcm', pss: true },
      { cipher: 'aes-256-gcm', digest: 'sha384', transport: { kind: 'oaep', digest: 'sha256' } },
      { cipher: 'aes-256-cbc', pss: true, digest: 'sha512', transport: { kind: 'oaep', digest: 'sha512' } },
    ] as const
    for (const [i, form] of forms.entries()) {
      const key = rsaKey()
      const id = `kinds-${i}`
      const sent = server.request(id, await server.challenge(id), key, form)
      const rep = await server.ask(sent.message, key.privateKey)
      expect([rep.status, rep.cipher], JSON.stringify(form)).toEqual(['success', form.cipher])
      expect(rep.signatureAlgorithm).toBe(`rsa-${'pss' in form ? 'pss' : 'pkcs1'}-${'digest' in form ? form.digest : 'sha256'}`)
    }
  })

  it('the organization and host name that a router cannot leave out are passed over, another name is not', async () => {
    const key = rsaKey()
    const subject = encodeName([
      { oid: '550406', value: 'US' },
      { oid: '55040a', value: 'Acme' },
      { oid: '2a864886f70d010902', value: 'router-2.acme.example' },
      { oid: COMMON_NAME, value: 'router-2' },
    ])
    const content = scepCsr(key, '', await server.challenge('router-2'), { subject })
    const rep = await server.ask(server.request('router-2', null, key, { content }).message, key.privateKey)
    expect(rep.status).toBe('success')
    expect(new X509Certificate(rep.certificates[0]).subject).not.toContain('Acme')
  })

  it('a label in the path names the profile, and a challenge of one is unknown to another', async () => {
    const challenge = await server.challenge('router-3', 'waits')
    const key = rsaKey()
    const wrong = await server.ask(server.request('router-3', challenge, key).message, key.privateKey)
    expect([wrong.status, wrong.failInfo]).toEqual(['failure', 2])
    const right = await server.ask(server.request('router-3', challenge, key).message, key.privateKey, '/scep/waits')
    expect(right.status).toBe('pending')
  })

  it('a profile that does not allow SCEP is not there', async () => {
    const rep = await server.ask(server.request('x', 'y').message, null, '/scep/est-only')
    expect([rep.status, rep.failInfo]).toEqual(['failure', 2])
    expect((await fetch(`${server.url}/scep/est-only?operation=GetCACaps`)).status).toBe(404)
  })

  it('an operation that is not offered is answered with those that are', async () => {
    const answer = async (operation: string) => {
      const response = await fetch(`${server.url}/scep?operation=${operation}`)
      return [response.status, await response.text()]
    }
    expect(await answer('GetCert')).toEqual([
      404,
      'operation_unknown: no SCEP operation "GetCert"\nNext: Use GetCACaps, GetCACert, GetNextCACert or PKIOperation.\n',
    ])
    expect(await answer('GetNextCACert')).toEqual([
      501,
      'operation_not_offered: no roll-over of the CA is under way\nNext: Use GetCACert.\n',
    ])
  })
})

describe('RenewalReq', () => {
  it('[RFC 8894 2.3] is authorized by the certificate, with a new key and without a challenge', async () => {
    const { key, certificate } = await enrolled('router-4')
    const next = rsaKey()
    const sent = scepMessage({
      ...{ messageType: '17', content: scepCsr(next, 'router-4', null), ra: server.ra },
      signer: signerOf(certificate, key.privateKey),
    })
    const rep = await server.ask(sent.message, key.privateKey)
    expect(rep.status, JSON.stringify(rep.failInfoText)).toBe('success')
    expect(equalBytes(parseCertificate(rep.certificates[0]).spki, next.spki)).toBe(true)
  })

  it('a certificate made for the occasion renews nothing', async () => {
    await enrolled('router-5')
    const key = rsaKey()
    const sent = scepMessage({
      ...{ messageType: '17', content: scepCsr(key, 'router-5', null), ra: server.ra },
      signer: signerOf(selfSigned(key, 'router-5'), key.privateKey),
    })
    const rep = await server.ask(sent.message, key.privateKey)
    expect([rep.status, rep.failInfo]).toEqual(['failure', 1])
  })
})

describe('CertPoll', () => {
  it('[RFC 8894 3.3.3] is answered pending to whoever asked, and badCertId to anybody else', async () => {
    const id = 'router-6'
    const key = rsaKey()
    const sent = server.request(id, await server.challenge(id, 'waits'), key)
    expect((await server.ask(sent.message, key.privateKey, '/scep/waits')).status).toBe('pending')
    const { subject } = parseCertificate(server.issuing.certificate)
    const poll = (by: typeof key) =>
      scepMessage({
        ...{ messageType: '20', transactionId: sent.transactionId, ra: server.ra },
        content: issuerAndSubject(subject, encodeName([{ oid: COMMON_NAME, value: id }])),
        signer: signerOf(selfSigned(by, id), by.privateKey),
      }).message
    expect((await server.ask(poll(key), key.privateKey, '/scep/waits')).status).toBe('pending')
    const other = rsaKey()
    expect((await server.ask(poll(other), other.privateKey, '/scep/waits')).failInfo).toBe(4)
    expect((await server.ask(poll(key), key.privateKey)).failInfo).toBe(4)
  })

  it('a client that lost the answer to its request may poll for it', async () => {
    const { key, sent, certificate } = await enrolled('router-7')
    const { subject } = parseCertificate(server.issuing.certificate)
    const poll = scepMessage({
      ...{ messageType: '20', transactionId: sent.transactionId, ra: server.ra },
      content: issuerAndSubject(subject, encodeName([{ oid: COMMON_NAME, value: 'router-7' }])),
      signer: signerOf(selfSigned(key, 'router-7'), key.privateKey),
    })
    const rep = await server.ask(poll.message, key.privateKey)
    expect(hexOf(rep.certificates[0])).toBe(hexOf(certificate))
  })
})

describe('GetCert', () => {
  it('[RFC 8894 3.3.4] gives a certificate to its holder and to devices of the fleet, and badCertId to strangers', async () => {
    const a = await enrolled('router-8')
    const b = await enrolled('router-9')
    const { issuer, serial } = parseCertificate(a.certificate)
    const ask = async (certificate: Uint8Array, key: typeof a.key, wanted = serial) => {
      const signer = signerOf(certificate, key.privateKey)
      const { message } = scepMessage({ messageType: '21', content: issuerAndSerial(issuer, wanted), ra: server.ra, signer })
      return server.ask(message, key.privateKey)
    }
    for (const [certificate, key] of [
      [a.certificate, a.key],
      [selfSigned(a.key, 'router-8'), a.key],
      [b.certificate, b.key],
    ] as const)
      expect(hexOf((await ask(certificate, key)).certificates[0])).toBe(hexOf(a.certificate))
    const stranger = rsaKey()
    expect((await ask(selfSigned(stranger, 'router-8'), stranger)).failInfo).toBe(4)
    expect((await ask(a.certificate, a.key, Uint8Array.of(1, 2, 3))).failInfo).toBe(4)
  })
})

describe('GetCRL', () => {
  it('[RFC 8894 3.3.4] gives the list of a certificate to devices of the fleet; badCertId where there is none, and to strangers', async () => {
    const a = await enrolled('router-10')
    const b = await enrolled('router-11')
    const { issuer, serial } = parseCertificate(a.certificate)
    const ask = async (certificate: Uint8Array, key: typeof a.key, wanted = serial) => {
      const signer = signerOf(certificate, key.privateKey)
      const { message } = scepMessage({ messageType: '22', content: issuerAndSerial(issuer, wanted), ra: server.ra, signer })
      return server.ask(message, key.privateKey)
    }
    for (const [certificate, key] of [
      [a.certificate, a.key],
      [b.certificate, b.key],
    ] as const) {
      const { status, content } = await ask(certificate, key)
      expect([status, Buffer.from(content ?? []).includes(list)]).toEqual(['success', true])
    }
    const refused = async (...given: Parameters<typeof ask>) => {
      const { failInfo, failInfoText } = await ask(...given)
      return [failInfo, failInfoText]
    }
    const { serial: unlisted } = parseCertificate(b.certificate)
    expect(await refused(a.certificate, a.key, unlisted)).toEqual([4, 'there is no revocation list for this certificate'])
    const none = [4, 'no such certificate, or it is none of yours']
    const stranger = rsaKey()
    expect(await refused(a.certificate, a.key, Uint8Array.of(1, 2, 3))).toEqual(none)
    expect(await refused(selfSigned(stranger, 'router-10'), stranger)).toEqual(none)
  })
})
