import { parseCertificate } from '@birthmark/device-sdk/core'
import { testAuthority } from '@birthmark/device-sdk/testing'
import { afterEach, describe, expect, it } from 'vitest'
import { softwareIssuer } from './ca/issuer-key.ts'
import { type ConsumerAnswer, isProven, proveToConsumers } from './consumer-proof.ts'
import { createOcspResponder } from './ocsp-responder.ts'
import { createRevocationLists } from './revocation-lists.ts'
import { issuerName } from './status-urls.ts'
import { csrFor, issuedBy, type Kernel, kernel, nameOf, testKey } from './testing/kernel.ts'

let k: Kernel
afterEach(() => k.remove())

const own = () => ({ ...k.issuer, statusUrl: 'http://status.acme.example' })
const foreign = () => ({ ...softwareIssuer(testAuthority('Other')), statusUrl: 'http://status.acme.example' })
const seenAndProven = (answer: ConsumerAnswer) => answer.kind === 'seen' && isProven(answer.proof)

async function consumers() {
  k = await kernel()
  return consumersOf(own())
}

/** Whose keys this server has, not who issued. */
function consumersOf(...issuers: ReturnType<typeof own>[]) {
  const { store, clock } = k
  const log = { info() {}, warn() {}, error() {} }
  const common = { store, issuers, clock, log }
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
    expect(seenAndProven(before)).toBe(false)
    k.clock.at += 7
    await k.revocation.revokeGroup({ group: 'batch=1', by: 'test' })
    const after = await prove(1, 2)
    const list = { issuer: issuerName(k.issuer.keyId), shard: 0, crlNumber: 2, thisUpdate: k.clock.at, certificates: 2, listed: 2 }
    expect(after).toEqual({
      kind: 'seen',
      proof: {
        ...{ at: k.clock.at, live: 2, unlisted: 0, certificates: 2, listed: 2, lists: 1, read: 1, ocspRevoked: 1 },
        shown: [{ ...list, ocsp: 'revoked', ocspThisUpdate: k.clock.at }],
      },
    })
    expect(seenAndProven(after)).toBe(true)
    // Who was not taken is not looked for, and is not on it.
    const other = await prove(3)
    expect(other).toMatchObject({ proof: { certificates: 1, listed: 0, shown: [{ crlNumber: 2, ocsp: 'good' }] } })
  })

  it('leaves out certificates that have ended', async () => {
    const { prove } = await consumers()
    const { notAfter } = await enrolled('a', 'batch=1')
    await k.revocation.revokeGroup({ group: 'batch=1', by: 'test' })
    k.clock.at = notAfter + 1
    const none = await prove(1)
    expect(none).toMatchObject({ kind: 'seen', proof: { live: 0, unlisted: 0, certificates: 0, lists: 0, read: 0 } })
    expect(seenAndProven(none)).toBe(true)
  })

  it('is not proven of a certificate that has not ended and is on no list here: its issuer is not among those that this server has', async () => {
    const { prove } = await consumers()
    await enrolled('a', 'batch=1')
    await k.revocation.revokeGroup({ group: 'batch=1', by: 'test' })
    expect(seenAndProven(await prove(1))).toBe(true)
    const blind = await consumersOf(foreign()).prove(1)
    expect(blind).toMatchObject({ kind: 'seen', proof: { live: 1, unlisted: 1, certificates: 0, lists: 0, read: 0 } })
    expect(seenAndProven(blind)).toBe(false)
  })

  it('counts a certificate of an unknown issuer beside those on the lists, and a list for each issuer and shard', async () => {
    const { prove } = await consumers()
    await enrolled('a', 'batch=1')
    const next = foreign()
    const rolledOver = await kernel({ of: k, issuer: () => next })
    const b = await rolledOver.device('b', ['batch=1'])
    issuedBy(await rolledOver.enroll(b.peer(), csrFor(testKey(), nameOf('b'))))
    await k.revocation.revokeGroup({ group: 'batch=1', by: 'test' })
    const some = await prove(1, 2)
    expect(some).toMatchObject({ proof: { live: 2, unlisted: 1, certificates: 1, listed: 1, lists: 1, read: 1, ocspRevoked: 1 } })
    expect(seenAndProven(some)).toBe(false)
    const all = await consumersOf(own(), next).prove(1, 2)
    expect(all).toMatchObject({ proof: { live: 2, unlisted: 0, certificates: 2, listed: 2, lists: 2, read: 2, ocspRevoked: 2 } })
    expect(seenAndProven(all)).toBe(true)
    await rolledOver.close()
  })

  it('of many lists 64 are read, and it says of how many', async () => {
    const { parts } = await consumers()
    await enrolled('a', 'batch=1')
    const shards = 70
    const two = [own(), foreign()]
    // Of each issuer one certificate in each shard.
    const placed = two.flatMap(({ keyId }, i) =>
      Array.from({ length: shards }, (_, shard) => ({ idx: shard * 4096 + i, issuer: keyId })),
    )
    const within = ({ idx }: { idx: number }, { from, to }: { from: number; to: number }) => idx >= from && idx < to
    const store: typeof parts.store = {
      ...parts.store,
      placedIssuers: async query => placed.filter(one => within(one, query)),
      placedSerials: async query =>
        placed
          .filter(one => within(one, query) && one.issuer === query.issuer)
          .map(({ idx }) => ({ idx, gids: [], serial: Uint8Array.of(1, idx >> 12, idx & 1) })),
    }
    const indices = Uint32Array.from(placed.map(({ idx }) => idx)).sort()
    const { parts: ofTwo, lists } = consumersOf(...two)
    // Nothing was issued beyond the first shard; any list does.
    const anyList = { shard: (issuer: string, fleet: string) => lists.shard(issuer, fleet, 0) }
    const answer = await proveToConsumers({ ...ofTwo, store, lists: anyList }, 'meters', indices)
    expect(answer).toMatchObject({ proof: { live: 140, unlisted: 0, certificates: 64, listed: 0, lists: 140, read: 64 } })
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
