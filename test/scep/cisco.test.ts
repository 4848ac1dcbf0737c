// What is known of Cisco IOS as a client, replayed byte by byte over TCP: request lines and headers as captures of routers show them. No router
// was at hand, so that this is what was seen of them elsewhere, and no proof that one enrolls.

import {
  COMMON_NAME,
  encodeElement,
  encodeSequence,
  encodeSetOf,
  hexOf,
  parseCertificate,
  parseCertsOnly,
} from '@birthmark/device-sdk/core'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { sendRaw } from '../support/raw-tcp.ts'
import { issuerAndSubject, readCertRep, scepCsr, scepMessage, selfSigned, signerOf } from '../support/scep-client.ts'
import { rsaKey, type ScepServer, startScepServer } from '../support/scep-server.ts'

let server: ScepServer
beforeAll(async () => {
  server = await startScepServer({ issuer: 'RSA-2048', more: [{ label: 'routers', scep: { tripleDes: true }, approval: 'first' }] })
})
afterAll(() => server.stop())

const ios = 'User-Agent: Mozilla/4.0 (compatible; MSIE 5.0; Cisco PKI)\r\nHost: 10.0.0.6\r\n\r\n'
const ask = (path: string, query: string, headers = ios) => sendRaw(server.port, `GET ${path}?${query} HTTP/1.0\r\n${headers}`)

/** A router's subject: its full name as unstructuredName, which the certificate for the occasion lacks or has alone. */
function subjectOf(id: string) {
  const attribute = (oid: string, tag: number, text: string) =>
    encodeSetOf([encodeSequence([encodeElement(6, [Buffer.from(oid, 'hex')]), encodeElement(tag, [Buffer.from(text)])])])
  const unstructuredName = attribute('2a864886f70d010902', 0x16, `${id}.plant.example`)
  return encodeSequence([unstructuredName, attribute(COMMON_NAME, 0x13, id)])
}

function pkcsReq(id: string, challenge: string | null, more: { label?: string; cipher?: 'des-ede3-cbc' } = {}) {
  const key = rsaKey()
  const signer = signerOf(selfSigned(key, `${id}.plant.example`), key.privateKey)
  const content = scepCsr(key, id, challenge, { subject: subjectOf(id) })
  // The transaction id is the hash of the key in capitals.
  const transactionId = hexOf(key.spki.slice(-21, -5)).toUpperCase()
  const { message } = scepMessage({
    messageType: '19',
    content,
    ra: server.ra,
    signer,
    transactionId,
    ...(more.cipher && { cipher: more.cipher }),
  })
  return { key, signer, message, transactionId }
}

it('a bare host, /scep and a label get pkiclient.exe behind them; message is the trustpoint, empty, or absent', async () => {
  for (const path of ['/cgi-bin/pkiclient.exe', '/scep/pkiclient.exe', '/scep', '/scep/routers/pkiclient.exe', '/scep/routers'])
    for (const message of ['', '&message=', '&message=BIRTHMARK', '&message=10.0.0.6%20ra'])
      for (const headers of [ios, '\r\n', 'User-Agent: Cisco IOS\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n']) {
        const { status, body } = await ask(path, `operation=GetCACert${message}`, headers)
        expect([status, hexOf(parseCertsOnly(new Uint8Array(body))[0])], path + message).toEqual([200, hexOf(server.ra.der)])
        expect((await ask(path, `operation=GetCACaps${message}`, headers)).body.toString(), path + message).toContain('SHA-256')
      }
  expect((await ask('/scep/pkiclient.exe/routers', 'operation=GetCACert')).status).toBe(404)
})

it('PKIOperation by GET whatever GetCACaps says of POST, its base64 escaped with a line end, in lines, or not escaped at all', async () => {
  const forms: Record<string, (base64: string) => string> = {
    'escaped, with a line end behind': text => encodeURIComponent(`${text}\n`),
    'escaped in lower case': text => encodeURIComponent(text).replace(/%[0-9A-F]{2}/g, three => three.toLowerCase()),
    'in lines of 64': text => encodeURIComponent(text.replace(/.{64}/g, '$&\r\n')),
    'not escaped': text => text,
    'slashes and signs of equality alone escaped': text => text.replaceAll('/', '%2F').replaceAll('=', '%3D'),
  }
  for (const [i, [name, form]] of Object.entries(forms).entries()) {
    const id = `ios-${i}`
    const { key, message } = pkcsReq(id, await server.challenge(id))
    const base64 = Buffer.from(message).toString('base64')
    const { status, body } = await ask('/scep/pkiclient.exe', `operation=PKIOperation&message=${form(base64)}`)
    expect(status, name).toBe(200)
    const rep = readCertRep(new Uint8Array(body), server.ra.der, key.privateKey)
    expect([rep.status, rep.failInfoText], name).toEqual(['success', null])
    expect(hexOf(parseCertificate(rep.certificates[0]).spki), name).toBe(hexOf(key.spki))
  }
})

it('triple DES where the profile says so, PENDING, polls under the same transaction, and a renewal with a new key signed by the old certificate', async () => {
  const id = 'ios-waits'
  const { key, signer, message, transactionId } = pkcsReq(id, await server.challenge(id, 'routers'), { cipher: 'des-ede3-cbc' })
  const get = async (sent: Uint8Array) => {
    const text = encodeURIComponent(Buffer.from(sent).toString('base64'))
    const { body } = await ask('/scep/routers/pkiclient.exe', `operation=PKIOperation&message=${text}`)
    return readCertRep(new Uint8Array(body), server.ra.der, key.privateKey)
  }
  expect((await get(message)).status).toBe('pending')
  const content = issuerAndSubject(server.ra.issuer, subjectOf(id))
  const poll = () => scepMessage({ messageType: '20', content, ra: server.ra, signer, transactionId }).message
  expect((await get(poll())).status).toBe('pending')
  const [waiting] = await server.approvals.list({ state: 'waiting', limit: 1 })
  await server.approvals.decide({ id: waiting.id, approve: true, by: 'test', reason: '' })
  const issued = await get(poll())
  expect([issued.status, issued.cipher]).toEqual(['success', 'aes-128-cbc'])

  const next = rsaKey()
  const bySame = signerOf(issued.certificates[0], key.privateKey)
  const renewal = scepMessage({
    messageType: '19',
    content: scepCsr(next, id, null, { subject: subjectOf(id) }),
    ra: server.ra,
    signer: bySame,
  })
  const renewed = await get(renewal.message)
  expect([renewed.status, renewed.failInfoText]).toEqual(['success', null])
  expect(hexOf(parseCertificate(renewed.certificates[0]).spki)).toBe(hexOf(next.spki))
})
