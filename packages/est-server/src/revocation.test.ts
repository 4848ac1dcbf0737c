import { hexOf, membershipOf, parseCertificate } from '@birthmark/device-sdk/core'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { sha256 } from './node-crypto.ts'
import type { NoticeInput } from './notice-input.ts'
import { createRevocation } from './revocation.ts'
import { csrFor, fleet, issuedBy, type Kernel, kernel, nameOf, testKey } from './testing/kernel.ts'

let k: Kernel
let said: NoticeInput[]
const signNotice = async (input: NoticeInput) => {
  said.push(input)
  return { notice: Buffer.from(`notice ${input.seq}`), sha256: sha256(Buffer.from(`signed part of ${input.seq}`)) }
}
const make = (more: object = {}) =>
  createRevocation({ store: k.store, fleet, signNotice, clock: k.clock, log: { info() {}, warn() {}, error() {} }, ...more })
beforeEach(async () => {
  k = await kernel()
  said = []
})
afterEach(async () => {
  expect(await k.store.check()).toEqual([])
  await k.remove()
})

const enroll = async (id: string, group: string) => {
  const d = await k.device(id, [group])
  return membershipOf(parseCertificate(issuedBy(await k.enroll(d.peer(), csrFor(testKey(), nameOf(id))))))!.idx
}

it('one notice closes a group at the next idx: all that was issued lies below, and nothing is issued any more', async () => {
  const last = await enroll('a-1', 'batch=a')
  await enroll('b-1', 'batch=b')
  const never = await k.device('a-2', ['batch=a'])
  const done = await make().revokeGroup({ group: 'batch=a', reason: 1, by: 'ops' })
  expect(done).toMatchObject({ seq: 1, gid: 1, bound: last + 2, devices: 2, again: false })
  expect(said).toEqual([
    {
      fleet,
      seq: 1,
      previousSha256: null,
      issuedAt: k.clock.at,
      devices: 2,
      rules: [{ kind: 'group', gid: 1, bound: last + 2, reason: 1 }],
      floor: 0,
      followed: false,
    },
  ])
  expect(await k.enroll(never.peer(), csrFor(testKey(), nameOf('a-2')))).toMatchObject({ kind: 'refused', code: 'group_revoked' })
  expect(await enroll('b-2', 'batch=b')).toBeGreaterThanOrEqual(done.bound)
  expect((await k.audit()).find(r => r.kind === 'group_revoked')).toMatchObject({
    by: 'ops',
    detail: expect.stringContaining('2 devices'),
  })
})

it('a renewal names the notice before, repeats what stands, closes nothing and waits for its turn', async () => {
  await enroll('a-1', 'batch=a')
  const revocation = make()
  expect(await revocation.renew('a timer')).toBe(1)
  const [done, renewed] = await Promise.all([revocation.revokeGroup({ group: 'batch=a', by: 'ops' }), revocation.renew('a timer')])
  expect([done.seq, renewed]).toEqual([2, 3])
  expect(said.map(({ seq, devices, rules }) => [seq, devices, rules.length])).toEqual([
    [1, 0, 0],
    [2, 1, 1],
    [3, 0, 1],
  ])
  expect(hexOf(said[2].previousSha256 ?? new Uint8Array(0))).toBe(hexOf(sha256(Buffer.from('signed part of 2'))))
  expect((await k.store.outboxPending(fleet, 9)).map(({ seq }) => seq)).toEqual([1, 2, 3])
  // One that another process signed first: drafted again after it.
  let meddled = false
  const late = make({
    signNotice: async (input: NoticeInput) => {
      if (!meddled) {
        meddled = true
        await make().renew('another server')
      }
      return signNotice(input)
    },
  })
  expect(await late.renew('a timer')).toBe(5)
})

it('said twice is said once: the second answer is the first notice', async () => {
  await enroll('a-1', 'batch=a')
  const first = await make().revokeGroup({ group: 'batch=a', by: 'ops' })
  const second = await make().revokeGroup({ group: 'batch=a', by: 'someone else' })
  expect({ ...second, notice: hexOf(second.notice) }).toEqual({ ...first, notice: hexOf(first.notice), again: true })
  expect(said).toHaveLength(1)
  await expect(make().revokeGroup({ group: 'nobody', by: 'ops' })).rejects.toMatchObject({ code: 'group_unknown' })
})

it('each notice names the one before, by the identity that the signer gave it, and repeats the standing rules', async () => {
  const groups = ['a', 'b', 'c']
  for (const g of groups) await k.device(`${g}-1`, [g])
  const revocation = make()
  // At once: they take turns.
  const done = await Promise.all(groups.map(group => revocation.revokeGroup({ group, by: 'ops' })))
  expect(done.map(d => d.seq)).toEqual([1, 2, 3])
  expect(said[2].previousSha256 && hexOf(said[2].previousSha256)).toBe(hexOf(sha256(Buffer.from('signed part of 2'))))
  expect(said[2].rules.map(r => r.kind === 'group' && r.gid)).toEqual([3, 2, 1])
  expect((await revocation.rules()).map(r => r.gid)).toEqual([3, 2, 1])
  expect((await revocation.outbox.pending(10)).map(n => n.seq)).toEqual([1, 2, 3])
  await revocation.outbox.delivered(1)
  expect((await revocation.outbox.pending(10)).map(n => n.seq)).toEqual([2, 3])
})

it('two processes revoke at once: both succeed, the chain holds', async () => {
  for (const g of ['a', 'b']) await k.device(`${g}-1`, [g])
  const other = await kernel({ of: k })
  const there = createRevocation({
    store: other.store,
    fleet,
    signNotice,
    clock: k.clock,
    log: { info() {}, warn() {}, error() {} },
  })
  const done = await Promise.all([make().revokeGroup({ group: 'a', by: '1' }), there.revokeGroup({ group: 'b', by: '2' })])
  expect(done.map(d => d.seq).sort()).toEqual([1, 2])
  await other.close()
})

it('a certificate that is recorded while the notice is being signed does not slip past the bound', async () => {
  const d = await k.device('a-1', ['a'])
  await k.device('a-2', ['a'])
  let signings = 0
  const slow = async (input: NoticeInput) => {
    // The first two signings are overtaken.
    if (signings++ < 2) await k.enroll(d.peer(), csrFor(testKey(), nameOf('a-1')))
    return signNotice(input)
  }
  const done = await make({ signNotice: slow }).revokeGroup({ group: 'a', by: 'ops' })
  expect(signings).toBe(2)
  expect(done.bound).toBeGreaterThan(2)
  expect(done).toMatchObject({ seq: 1, again: false })
})

it('[F36] [F46] a crash before the record leaves nothing; after it, everything, and the outbox has the notice', async () => {
  await enroll('a-1', 'a')
  const crash = (at: string) =>
    make({
      failpoint: (name: string) => {
        if (name === at) throw new Error('crash')
      },
    })
  await expect(crash('notice-signed').revokeGroup({ group: 'a', by: 'ops' })).rejects.toThrow('crash')
  expect(await k.store.isClosed(fleet, [1])).toBe(false)
  expect(await k.store.outboxPending(fleet, 10)).toEqual([])
  await expect(crash('revocation-recorded').revokeGroup({ group: 'a', by: 'ops' })).rejects.toThrow('crash')
  const later = await kernel({ of: k })
  expect(await later.store.isClosed(fleet, [1])).toBe(true)
  expect((await later.store.outboxPending(fleet, 10)).map(n => n.seq)).toEqual([1])
  expect(await make().revokeGroup({ group: 'a', by: 'ops' })).toMatchObject({ seq: 1, again: true })
  await later.close()
})

it('a signer that fails revokes nothing and says so', async () => {
  await enroll('a-1', 'a')
  const dead = make({ signNotice: () => Promise.reject(new Error('token removed')) })
  await expect(dead.revokeGroup({ group: 'a', by: 'ops' })).rejects.toThrow('token removed')
  expect(await k.store.isClosed(fleet, [1])).toBe(false)
})

it('refuses to revoke by a group that living certificates of its devices do not name', async () => {
  await enroll('a-1', 'batch=a')
  const now = k.clock.at
  const join = async () => {
    const device = await k.registry.device('a-1')
    const { birthSpkiSha256 } = (await k.store.enrollmentFacts(fleet, 'a-1', new Uint8Array(32), new Uint8Array(32))).device!
    const entry = { serial: device!.id, spkiSha256: hexOf(birthSpkiSha256!), groups: ['recall'], keyOrigin: 'device' as const }
    return k.registry.importManifest([entry], 'ops')
  }
  expect(await join()).toMatchObject({ updated: 0, refusedCount: 1 })
  await expect(make().revokeGroup({ group: 'recall', by: 'ops' })).rejects.toMatchObject({ code: 'group_unknown' })
  // The clock is years ahead while the manifest is read: the certificate seems to have ended.
  k.clock.at = now + 400 * 86_400
  expect(await join()).toMatchObject({ updated: 1 })
  k.clock.at = now
  await expect(make().revokeGroup({ group: 'recall', by: 'ops' })).rejects.toMatchObject({ code: 'group_not_covered' })
  expect(said).toEqual([])
  expect(await make().revokeGroup({ group: 'batch=a', by: 'ops' })).toMatchObject({ seq: 1 })
  expect(await make().revokeGroup({ group: 'recall', by: 'ops' })).toMatchObject({ seq: 2, devices: 1 })
})
