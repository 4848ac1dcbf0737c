import { equalBytes, hexOf, parseCertificate } from '@birthmark/device-sdk/core'
import { type TestAuthority, testAuthority } from '@birthmark/device-sdk/testing'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { readIssuerCertificate } from './ca/issuer-certificate.ts'
import { softwareIssuer } from './ca/issuer-key.ts'
import { createIssuerSet } from './issuer-set.ts'
import { openRollOver, type RollOver } from './roll-over.ts'
import { csrFor, fleet, issuedBy, type Kernel, kernel, nameOf, peerWith, type TestDevice, testKey } from './testing/kernel.ts'

const root = testAuthority('Operational root')
const old = root.subordinate('Operational CA 1')
const next = root.subordinate('Operational CA 2', 'P-384')
const chain = [root.certificate]
const read = (ca: TestAuthority) => readIssuerCertificate({ certificate: ca.certificate, chain })
const signer = (ca: TestAuthority) => softwareIssuer({ certificate: ca.certificate, chain, privateKeyPem: ca.privateKeyPem })
const issuerOf = (der: Uint8Array) =>
  [old, next].findIndex(ca => equalBytes(parseCertificate(ca.certificate).subject, parseCertificate(der).issuer)) + 1

let k: Kernel
const kernels: Kernel[] = []

/** A process of the server, on the store of the first. */
async function server(main = old, following: TestAuthority | null = next, previous: TestAuthority[] = []) {
  let rollOver: RollOver | null = null
  const keys = [main, ...(following ? [following] : [])].map(signer)
  const made = await kernel({
    ...(kernels.length > 0 ? { of: k } : {}),
    async issuers(store, clock, log) {
      const certificates = { main: read(main), next: following && read(following), previous: previous.map(read) }
      rollOver = await openRollOver({ store, fleet, ...certificates, clock, log })
      return createIssuerSet(rollOver, keys)
    },
  })
  kernels.push(made)
  return { k: made, rollOver: rollOver as unknown as RollOver }
}
beforeEach(() => {
  kernels.length = 0
})
afterEach(async () => {
  expect(await k.store.check()).toEqual([])
  for (const other of kernels.slice(1)) await other.close()
  await k.remove()
})

const enroll = async (on: Kernel, device: TestDevice, key = testKey()) => {
  const outcome = await on.enroll(device.peer(), csrFor(key, nameOf(device.id)))
  return { key, certificate: issuedBy(outcome), outcome }
}
const renew = (on: Kernel, certificate: Uint8Array, key = testKey()) =>
  on.enroll(peerWith([certificate]), csrFor(key, parseCertificate(certificate).subject), { operation: 'reenroll' })
const states = (rollOver: RollOver) => rollOver.standings().map(({ state }) => state)

it('goes from one issuer to the next while devices enroll and renew', async () => {
  const s = await server()
  k = s.k
  const { rollOver } = s
  const caCertificates = () => k.enrollment.caCertificates(null).map(hexOf)
  const devices = await Promise.all(['m-1', 'm-2', 'm-3'].map(id => k.device(id)))
  const first = await enroll(k, devices[0])
  expect(issuerOf(first.certificate)).toBe(1)
  expect(caCertificates()).toEqual([old, root].map(ca => hexOf(ca.certificate)))

  // Prepared: everybody is told of both, the old one signs.
  await rollOver.move('prepare', 'an operator')
  expect(caCertificates()).toEqual([old, root, next].map(ca => hexOf(ca.certificate)))
  expect(issuerOf((await enroll(k, devices[1])).certificate)).toBe(1)

  // Switched: the new one signs, whoever asks; what the old one signed renews.
  await rollOver.move('switch', 'an operator')
  expect(states(rollOver)).toEqual(expect.arrayContaining(['previous', 'signing']))
  expect(caCertificates()[0]).toBe(hexOf(next.certificate))
  expect(issuerOf((await enroll(k, devices[2])).certificate)).toBe(2)
  const again = await enroll(k, devices[0], first.key)
  expect(again.outcome).toMatchObject({ again: true, chain: [old.certificate].map(Buffer.from).map(b => new Uint8Array(b)) })
  const renewed = await renew(k, first.certificate)
  expect(issuerOf(issuedBy(renewed))).toBe(2)
  expect(renewed).toMatchObject({ chain: [new Uint8Array(next.certificate)] })

  // m-2 has not renewed.
  await expect(rollOver.move('retire', 'an operator')).rejects.toThrow(/1 devices still hold its certificates/)
  expect((await rollOver.report()).map(({ state, devices: held }) => [state, held])).toEqual(
    expect.arrayContaining([
      ['previous', 1],
      ['signing', 2],
    ]),
  )
  const lagging = await k.store.enrollmentFacts(fleet, 'm-2', new Uint8Array(32), new Uint8Array(32))
  const late = lagging.latest!.der
  await rollOver.move('retire', 'an operator', { force: true })
  expect(await renew(k, late)).toMatchObject({ kind: 'unauthenticated' })
  expect(caCertificates()).toEqual([next, root].map(ca => hexOf(ca.certificate)))
  // Its birth certificate lets it start again.
  expect(issuerOf((await enroll(k, devices[1])).certificate)).toBe(2)
  expect((await k.audit()).filter(({ kind }) => kind === 'issuer_moved').map(({ by }) => by)).toEqual([
    'configuration',
    'an operator',
    'an operator',
    'an operator',
  ])
})

it('a second process issues with the new issuer from the switch on, before it was told', async () => {
  const a = await server()
  k = a.k
  const b = await server()
  const devices = await Promise.all(['m-1', 'm-2'].map(id => k.device(id)))
  expect(issuerOf((await enroll(b.k, devices[0])).certificate)).toBe(1)
  await a.rollOver.move('prepare', 'an operator')
  await a.rollOver.move('switch', 'an operator')
  expect(states(b.rollOver)).toEqual(['signing'])
  expect(issuerOf((await enroll(b.k, devices[1])).certificate)).toBe(2)
  expect(states(b.rollOver)).toContain('previous')
  expect(b.k.signatures()).toBe(0)
})

it('a process without the new key issues nothing after the switch, and says so', async () => {
  const a = await server()
  k = a.k
  const b = await server(old, null)
  await a.rollOver.move('prepare', 'an operator')
  await a.rollOver.move('switch', 'an operator')
  const device = await k.device('m-1')
  const asked = () => b.k.enroll(device.peer(), csrFor(testKey(), nameOf('m-1')))
  expect(await asked()).toMatchObject({ kind: 'unavailable', code: 'issuer_unavailable' })
  expect(await asked()).toMatchObject({ kind: 'unavailable', code: 'issuer_unavailable' })
  expect(await k.store.openIntents(10)).toEqual([])
})

it('goes back a step while nothing was signed, and forward only from then on', async () => {
  const s = await server()
  k = s.k
  const { rollOver } = s
  await expect(rollOver.move('undo', 'an operator')).rejects.toThrow(/no step to undo/)
  await expect(rollOver.move('switch', 'an operator')).rejects.toThrow(/no issuer is prepared/)
  await expect(rollOver.move('switch', 'an operator', { rehearse: true })).rejects.toThrow(/no issuer is prepared/)
  expect(await rollOver.move('prepare', 'an operator', { rehearse: true })).toMatch(/is next$/)
  expect(states(rollOver)).toEqual(['signing'])
  await rollOver.move('prepare', 'an operator')
  await expect(rollOver.move('prepare', 'an operator')).rejects.toThrow(/names no issuer that is not known/)
  await rollOver.move('undo', 'an operator')
  expect(states(rollOver)).toEqual(['signing'])
  await rollOver.move('prepare', 'an operator')
  await rollOver.move('switch', 'an operator')
  await rollOver.move('undo', 'an operator')
  expect(states(rollOver).toSorted()).toEqual(['next', 'signing'])
  const device = await k.device('m-1')
  expect(issuerOf((await enroll(k, device)).certificate)).toBe(1)
  await rollOver.move('switch', 'an operator')
  await enroll(k, await k.device('m-2'))
  await expect(rollOver.move('undo', 'an operator')).rejects.toThrow(/forward only/)
})

it('starts with a configuration that was tidied after the switch, and with no other', async () => {
  const s = await server()
  k = s.k
  await s.rollOver.move('prepare', 'an operator')
  await s.rollOver.move('switch', 'an operator')
  const tidied = await server(next, null, [old])
  expect(states(tidied.rollOver).toSorted()).toEqual(['previous', 'signing'])
  expect(issuerOf((await enroll(tidied.k, await k.device('m-1'))).certificate)).toBe(2)
  await expect(server(old, null)).rejects.toThrow(/the configuration has no key of it/)
  await expect(server(root.subordinate('Somebody else'), null)).rejects.toThrow(/the configuration has no key of it/)
})

it('lets a new key take over without preparation when the configuration says that the old one is previous', async () => {
  const s = await server(old, null)
  k = s.k
  const { certificate } = await enroll(k, await k.device('m-1'))
  const lost = await server(next, null, [old])
  expect(states(lost.rollOver).toSorted()).toEqual(['previous', 'signing'])
  expect(issuerOf(issuedBy(await renew(lost.k, certificate)))).toBe(2)
})
