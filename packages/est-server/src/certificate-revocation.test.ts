import { membershipOf, parseCertificate } from '@birthmark/device-sdk/core'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { sha256 } from './node-crypto.ts'
import type { ListCoder, NoticeInput, NoticeRule, RecordedRules } from './notice-input.ts'
import { createRevocation, type RevocationOptions } from './revocation.ts'
import { countNumbers } from './store/bit-blocks.ts'
import { csrFor, fleet, issuedBy, type Kernel, kernel, nameOf, peerWith, testKey } from './testing/kernel.ts'

let k: Kernel
let said: NoticeInput[]
let taken: RecordedRules[]

/** A range a certificate, two rules a notice. */
const coder: ListCoder = {
  rulesOf: indices => indices.map((start): NoticeRule => ({ kind: 'range', start, length: 1 })),
  byNotice: rules => rules.flatMap((_, i) => (i % 2 === 0 ? [rules.slice(i, i + 2)] : [])),
}
const signNotice = async (input: NoticeInput) => {
  said.push(input)
  return { notice: Buffer.from(`notice ${input.seq}`), sha256: sha256(Buffer.from(`signed part of ${input.seq}`)) }
}
const make = (more: Partial<RevocationOptions> = {}) =>
  createRevocation({
    ...{ store: k.store, fleet, signNotice, coder, clock: k.clock, log: { info() {}, warn() {}, error() {} } },
    onRecorded: what => taken.push(what),
    ...more,
  })

beforeEach(async () => {
  k = await kernel()
  said = []
  taken = []
})
afterEach(async () => {
  expect(await k.store.check()).toEqual([])
  await k.remove()
})

async function enroll(id: string) {
  const device = await k.device(id)
  const key = testKey()
  const certificate = issuedBy(await k.enroll(device.peer(), csrFor(key, nameOf(id))))
  return { ...device, key, certificate, idx: membershipOf(parseCertificate(certificate))!.idx }
}
const by = 'ops'

it('revokes devices by id: their certificates in a list, the devices closed, one record; the rest of the fleet goes on', async () => {
  const [a, b] = [await enroll('m-1'), await enroll('m-2')]
  const never = await k.device('m-3')
  const done = await make().revokeDevices({ devices: ['m-1', 'm-3', 'nobody'], reason: 1, by, campaign: 'c-7' })
  expect(done).toMatchObject({ seq: 1, certificates: 1, devices: 2, unknown: ['nobody'], again: false })
  expect(said).toMatchObject([
    { seq: 1, devices: 2, rules: [{ kind: 'range', start: a.idx, length: 1 }], floor: 0, followed: false },
  ])
  expect(taken.map(({ blocks }) => countNumbers(blocks))).toEqual([1])
  for (const device of [a, never])
    expect(await k.enroll(device.peer(), csrFor(testKey(), nameOf(device.id)))).toMatchObject({
      kind: 'refused',
      code: 'device_revoked',
    })
  const renewing = { operation: 'reenroll' as const }
  expect(await k.enroll(peerWith([a.certificate]), csrFor(testKey(), nameOf('m-1', 'm-1')), renewing)).toMatchObject({
    code: 'device_revoked',
  })
  expect(await k.enroll(peerWith([b.certificate]), csrFor(testKey(), nameOf('m-2', 'm-2')), renewing)).toMatchObject({
    kind: 'issued',
  })
  expect((await k.audit()).find(r => r.kind === 'certificates_revoked')).toMatchObject({
    by,
    detail: expect.stringMatching(/^1 certificates of 2 devices \(SHA-256 of their ids [0-9a-f]{64}\), notice 1, campaign c-7$/),
  })
})

it('what is revoked already is not said again, and a device that is admitted again gets a higher idx with a new key', async () => {
  const a = await enroll('m-1')
  const revocation = make()
  await revocation.revokeDevices({ devices: ['m-1'], by })
  expect(await revocation.revokeDevices({ devices: ['m-1'], indices: [a.idx], by })).toMatchObject({
    again: true,
    seq: 1,
    notices: [],
  })
  expect(said).toHaveLength(1)
  expect(await revocation.readmitDevice({ device: 'm-1', by, reason: 'reflashed' })).toBe(true)
  expect(await k.enroll(a.peer(), csrFor(a.key, nameOf('m-1')))).toMatchObject({ code: 'key_revoked' })
  const fresh = issuedBy(await k.enroll(a.peer(), csrFor(testKey(), nameOf('m-1'))))
  expect(membershipOf(parseCertificate(fresh))!.idx).toBeGreaterThan(a.idx)
  expect(
    await k.enroll(peerWith([a.certificate]), csrFor(testKey(), nameOf('m-1', 'm-1')), { operation: 'reenroll' }),
  ).toMatchObject({
    kind: 'refused',
  })
})

it('a long list takes several notices, each naming the one before, in one transaction', async () => {
  const indices: number[] = []
  for (let n = 1; n <= 5; n++) indices.push((await enroll(`m-${n}`)).idx)
  const done = await make().revokeDevices({ indices, by })
  expect(done).toMatchObject({ seq: 3, certificates: 5, devices: 0 })
  expect(said.map(({ seq, rules, followed, devices }) => [seq, rules.length, followed, devices])).toEqual([
    [1, 2, true, 5],
    [2, 2, true, 5],
    [3, 1, false, 5],
  ])
  expect((await k.store.outboxPending(fleet, 9)).map(({ seq }) => seq)).toEqual([1, 2, 3])
  expect(await make().renew('a timer')).toBe(4)
})

it('[F46] a certificate that a named device gets while its notice is signed is taken back with the others', async () => {
  const a = await enroll('m-1')
  let renewed: Uint8Array | null = null
  const done = await make({
    signNotice: async input => {
      if (renewed === null)
        renewed = issuedBy(
          await k.enroll(peerWith([a.certificate]), csrFor(testKey(), nameOf('m-1', 'm-1')), { operation: 'reenroll' }),
        )
      return signNotice(input)
    },
  }).revokeDevices({ devices: ['m-1'], by })
  const second = membershipOf(parseCertificate(renewed!))!.idx
  expect(done).toMatchObject({ seq: 1, certificates: 2 })
  expect(said.at(-1)?.rules.map(rule => rule.kind === 'range' && rule.start)).toEqual([a.idx, second])
})

it('a range and a floor reach what was given out and no further, and a floor never falls', async () => {
  const [a, b] = [await enroll('m-1'), await enroll('m-2')]
  const revocation = make()
  expect(await revocation.revokeRange({ start: a.idx, length: 1, by })).toMatchObject({ certificates: 1, again: false })
  expect(await revocation.revokeRange({ start: a.idx, length: 1, by })).toMatchObject({ again: true })
  await expect(revocation.revokeRange({ start: 9999, length: 5, by })).rejects.toMatchObject({ code: 'idx_unknown' })
  await expect(revocation.revokeDevices({ indices: [9999], by })).rejects.toMatchObject({ code: 'idx_unknown' })
  await expect(revocation.revokeDevices({ devices: ['nobody'], by })).rejects.toMatchObject({ code: 'device_unknown' })
  expect(await revocation.raiseFloor({ floor: 1_000_000, by })).toMatchObject({ again: false })
  expect(said.at(-1)).toMatchObject({ floor: b.idx + 1, rules: [] })
  expect(await revocation.raiseFloor({ floor: b.idx, by })).toMatchObject({ again: true })
  await revocation.renew('a timer')
  expect(said.at(-1)).toMatchObject({ floor: b.idx + 1 })
  const c = await enroll('m-3')
  expect(c.idx).toBeGreaterThan(b.idx)
})

it('an issuer is revoked once it no longer signs', async () => {
  await enroll('m-1')
  const revocation = make()
  const keyId = new Uint8Array(20).fill(7)
  const audit = { at: k.clock.at, kind: 'issuer_moved', requestId: '', fleet, device: '', by, code: '', detail: '' } as const
  const standings = [{ keyId, state: 'signing' as const, since: k.clock.at }]
  await k.store.recordIssuers({ expected: [], standings, unused: null, audit })
  await expect(revocation.revokeIssuer({ issuer: keyId, by })).rejects.toMatchObject({ code: 'issuer_signs' })
  const former = new Uint8Array(20).fill(8)
  expect(await revocation.revokeIssuer({ issuer: former, by })).toMatchObject({ seq: 1, again: false })
  expect(await revocation.revokeIssuer({ issuer: former, by })).toMatchObject({ again: true })
})

it('under a profile that readmits by birth, a device that was revoked by itself comes back by that alone, under a higher idx', async () => {
  await k.remove()
  k = await kernel({ profile: { readmission: 'birth' } })
  const a = await enroll('m-1')
  const never = await k.device('m-2')
  await make().revokeDevices({ devices: ['m-1', 'm-2'], by })
  const renewing = { operation: 'reenroll' as const }
  const renewal = await k.enroll(peerWith([a.certificate]), csrFor(testKey(), nameOf('m-1', 'm-1')), renewing)
  expect(renewal).toMatchObject({ code: 'device_revoked' })
  expect(await k.enroll(a.peer(), csrFor(a.key, nameOf('m-1')))).toMatchObject({ kind: 'refused' })
  for (const device of [a, never]) {
    const back = issuedBy(await k.enroll(device.peer(), csrFor(testKey(), nameOf(device.id))))
    expect(membershipOf(parseCertificate(back))?.idx).toBeGreaterThan(a.idx)
  }
  expect((await k.audit()).filter(({ kind }) => kind === 'device_readmitted').map(({ device }) => device)).toEqual(['m-1', 'm-2'])
})
