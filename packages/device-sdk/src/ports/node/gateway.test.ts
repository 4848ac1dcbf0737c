import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { createSecureContext, type SecureContext } from 'node:tls'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { COMMON_NAME, encodeName } from '../../core/distinguished-name.ts'
import { loopbackNames, neverExpires, startTestEst, type TestAuthority, type TestEst, testAuthority } from '../../testing/index.ts'
import { createGateway } from './gateway.ts'
import { createIdentity, memoryKeys, memoryStore, type NodeKeyStore, pemChain } from './index.ts'

let est: TestEst
beforeAll(async () => {
  est = await startTestEst()
})
afterAll(() => est.close())

/** As a TPM's keys are: what TLS gets is a context. */
function contextKeys(): NodeKeyStore {
  const keys = memoryKeys()
  const made = new Map<string, SecureContext>()
  return {
    ...keys,
    tlsKey: () => null,
    tlsContext(slot, options) {
      const of = JSON.stringify([slot, options])
      const context = made.get(of) ?? createSecureContext({ ...options, ...keys.tlsKey(slot) })
      made.set(of, context)
      return context
    },
  }
}

/** A server under `root` that tells who came; returns its URL and how to end it. */
async function served(root: TestAuthority): Promise<{ url: string; close(): void }> {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const leaf = root.issue({
    profile: 'server',
    subject: encodeName([{ oid: COMMON_NAME, value: 'server' }]),
    spki: new Uint8Array(publicKey.export({ type: 'spki', format: 'der' })),
    notBefore: 1577836800,
    notAfter: neverExpires,
    extensions: [loopbackNames()],
  })
  const key = privateKey.export({ type: 'pkcs8', format: 'pem' })
  const server = createServer(
    { key, cert: pemChain([leaf]), requestCert: true, ca: est.trust.operational },
    ({ socket }, response) =>
      response.end((socket as unknown as { getPeerCertificate(): { subject: { CN: string } } }).getPeerCertificate().subject.CN),
  )
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`, close: () => server.close() }
}

it.each([
  ['a PEM', memoryKeys],
  ['a context', contextKeys],
])('the anchors of the gateway judge its server, not those of its identity, with a key that TLS has as %s', async (form, store) => {
  const unit = { keys: store(), store: memoryStore() }
  const id = `gw-${form.at(-1)}`
  await est.bear(id, unit)
  const identity = createIdentity({ ...unit, server: { url: est.url }, trust: est.trust })
  await identity.enroll()
  const other = testAuthority('Other')
  const servers = { own: await served(est.authorities.server), other: await served(other) }
  const ask = (url: string, trust: string) =>
    createGateway({ identity, server: url, trust })
      .forward({ method: 'GET', path: '/.well-known/est/cacerts', headers: {}, body: null })
      .then(
        ({ body }) => Buffer.from(body).toString(),
        error => `${error.name} ${error.code}`,
      )
  expect(await ask(servers.other.url, other.pem)).toBe(id)
  expect(await ask(servers.own.url, other.pem)).toBe('BirthmarkError server_untrusted')
  expect(await ask(servers.own.url, est.trust.server)).toBe(id)
  expect(await ask(servers.own.url, est.trust.server + other.pem)).toBe(id)
  identity.close()
  for (const server of Object.values(servers)) server.close()
})

it('tlsOptions are for whom they are asked for, and a context serves one such trust as long as nothing changes', async () => {
  const unit = { keys: contextKeys(), store: memoryStore() }
  await est.bear('unit-1', unit)
  const identity = createIdentity({ ...unit, server: { url: est.url }, trust: est.trust })
  await identity.enroll()
  const other = testAuthority('Other').pem
  const [own, named, others] = [undefined, est.trust.server, other].map(trust => identity.tlsOptions({ trust }))
  expect([own.ca, others.ca]).toEqual([[est.trust.server], [other]])
  expect(named.secureContext).toBe(own.secureContext)
  expect(others.secureContext).not.toBe(own.secureContext)
  expect(JSON.stringify(others)).toContain('[private key]')
  expect(() => identity.tlsOptions({ trust: 'no certificate' })).toThrow(TypeError)
  identity.close()
  expect(identity.tlsOptions().ca).toEqual([est.trust.server])
})
