import { parseCertificate } from '@birthmark/device-sdk/core'
import { afterEach, describe, expect, it } from 'vitest'
import { isProven, proveToConsumers } from './consumer-proof.ts'
import { createOcspResponder } from './ocsp-responder.ts'
import { createRevocationLists } from './revocation-lists.ts'
import { issuerName } from './status-urls.ts'
import { csrFor, issuedBy, type Kernel, kernel, nameOf, testKey } from './testing/kernel.ts'

let k: Kernel
afterEach(() => k.remove())

async function consumers() {
  k = await kernel()
  const { store, clock } = k
  const log = { info() {}, warn() {}, error() {} }
  const issuer = { ...k.issuer, statusUrl: 'http://status.acme.example' }
  const common = { store, issuers: [issuer], clock, log }
  const lists = createRevocationLists({ ...common, lifetimeSeconds: 86_400, folder: k.folder })
  const ocsp = createOcspResponder({ ...common, lifetimeSeconds: 3600 })
  const parts = { ...common, lists, ocsp }
  return { parts, lists, ocsp, prove: (...indices: number[]) => proveToConsumers(parts, 'meters', Uint32Array.from(indices)) }
}
const enrolled = async (id: string, group: string) => {
  const device = await k.device(id, [group])
  return parseCertificate(issuedBy(await k.enroll(device.peer(), csrFor(testKey(), nameOf(id)))))
}

describe('what standard consumers are told', () => {
  it('is read off the list and the answer that they get: good before, revoked by number and date at once afterwards', async () => {
    const { prove } = await consumers()
    for (const id of ['a', 'b', 'c']) await enrolled(id, id === 'c' ? 'batch=2' : 'batch=1')
    const before = await prove(1, 2)
    expect(before).toMatchObject({ kind: 'seen', proof: { certificates: 2, listed: 0, lists: 1, read: 1, ocspRevoked: 0 } })
    expect(before.kind === 'seen' && isProven(before.proof)).toBe(false)
    k.clock.at += 7
    await k.revocation.revokeGroup({ group: 'batch=1', by: 'test' })
    const after = await prove(1, 2)
    const list = { issuer: issuerName(k.issuer.keyId), shard: 0, crlNumber: 2, thisUpdate: k.clock.at, certificates: 2, listed: 2 }
    expect(after).toEqual({
      kind: 'seen',
      proof: {
        ...{ at: k.clock.at, certificates: 2, listed: 2, lists: 1, read: 1, ocspRevoked: 1 },
        shown: [{ ...list, ocsp: 'revoked', ocspThisUpdate: k.clock.at }],
      },
    })
    expect(after.kind === 'seen' && isProven(after.proof)).toBe(true)
    // Who was not taken is not looked for, and is not on it.
    const other = await prove(3)
    expect(other).toMatchObject({ proof: { certificates: 1, listed: 0, shown: [{ crlNumber: 2, ocsp: 'good' }] } })
  })

  it('leaves out certificates that have ended', async () => {
    const { prove } = await consumers()
    const { notAfter } = await enrolled('a', 'batch=1')
    await k.revocation.revokeGroup({ group: 'batch=1', by: 'test' })
    k.clock.at = notAfter + 1
    expect(await prove(1)).toMatchObject({ kind: 'seen', proof: { certificates: 0, read: 0 } })
  })

  it('is not known where a list cannot be had, and can be asked again', async () => {
    const { parts, lists } = await consumers()
    await enrolled('a', 'batch=1')
    const away = async () => ({ kind: 'unavailable', retryAfterSeconds: 30, detail: 'issuer_failed' }) as const
    const prove = (given: Pick<typeof lists, 'shard'>) => proveToConsumers({ ...parts, lists: given }, 'meters', Uint32Array.of(1))
    expect(await prove({ shard: away })).toEqual({
      kind: 'unavailable',
      detail: expect.stringContaining('/meters/0: issuer_failed'),
    })
    expect(await prove(lists)).toMatchObject({ kind: 'seen' })
  })
})
