// The part of the store's contract that revocation lists rest on (store/crl.ts).

import { createHash, randomBytes } from 'node:crypto'
import type { Bytes } from '@birthmark/device-sdk/core'
import type { IssuanceIntent, Store } from '@birthmark/est-server'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { auditEntry, type Driver, manifestEntry } from './contract.ts'

const fleet = 'meters'
const at = 1_800_000_000
const sha256 = (text: string) => new Uint8Array(createHash('sha256').update(text).digest())
const issuer = sha256('issuer').subarray(0, 20)
const other = sha256('other issuer').subarray(0, 20)
const hex = (bytes: Bytes) => Buffer.from(bytes).toString('hex')

let contents = 0

/** An intent for a device, with whatever differs. */
async function intend(store: Store, id: string, change: Partial<IssuanceIntent> = {}): Promise<IssuanceIntent> {
  const content = sha256(`content ${contents++}`)
  const in_ = change.fleet ?? fleet
  const { device } = await store.enrollmentFacts(in_, id, content, content)
  if (device === null) throw new Error(`${id} is not known`)
  const intent: IssuanceIntent = {
    ...{ issuer, serial: new Uint8Array(randomBytes(16)), fleet: in_, device: device.key, deviceVersion: device.version },
    ...{ idx: await store.reserveIdx(in_), gids: device.gids, spkiSha256: content, contentSha256: content, epoch: 0 },
    ...{ notBefore: at - 300, notAfter: at + 86_400, secret: null, requestId: 'r', tbs: content, at },
    ...change,
  }
  expect(await store.recordIntent(intent)).toEqual({ kind: 'recorded' })
  return intent
}

async function issue(store: Store, id: string, change: Partial<IssuanceIntent> = {}): Promise<IssuanceIntent> {
  const intent = await intend(store, id, change)
  const audit = { ...auditEntry('certificate_issued', id), at }
  const record = { issuer: intent.issuer, serial: intent.serial, der: sha256('certificate'), at, audit }
  expect(await store.recordCertificate({ ...record, idxFloor: 0, supersedes: 0, supersedesSince: 0 })).toBe('recorded')
  return intent
}

async function revoke(store: Store, group: string, reason: number | null, when: number): Promise<number> {
  const draft = await store.draftRevocation(fleet, group, 64, at)
  if (draft === null) throw new Error(`no group ${group}`)
  const notice = Buffer.from(`notice ${draft.seq}`)
  const { gid, seq, previousSha256, idxNext: bound } = draft
  const what = { fleet, gid, bound, reason, seq, previousSha256, notice, noticeSha256: sha256(notice.toString()), at: when }
  expect(await store.recordRevocation({ ...what, audit: { ...auditEntry('group_revoked'), at: when } })).toBe('recorded')
  return bound
}

export function crlContract(name: string, driver: () => Driver): void {
  describe(`store contract, revocation lists: ${name}`, () => {
    let d: Driver
    let store: Store
    const reopen = async () => {
      await store.close()
      store = await d.open()
    }
    beforeEach(async () => {
      d = driver()
      store = await d.open()
      const entries = [
        manifestEntry('a'),
        manifestEntry('b'),
        manifestEntry('c', ['batch=2']),
        manifestEntry('d', ['batch=1', 'batch=2']),
      ]
      await store.importManifest(fleet, entries, { ...auditEntry('manifest_imported'), at })
    })
    afterEach(async () => {
      expect(await store.check()).toEqual([])
      await store.close()
      await d.remove()
    })

    /** As sets of hex serials by groups, since neither runs nor serials have an order. */
    const serials = async (from: number, to: number, since = 0, by = issuer) => {
      const runs = await store.serials({ issuer: by, fleet, from, to, since })
      return Object.fromEntries(
        runs.map(({ gids, serialBytes, serials }) => {
          const all = Array.from({ length: serials.length / serialBytes }, (_, i) =>
            hex(serials.subarray(i * serialBytes, (i + 1) * serialBytes)),
          )
          return [gids.join(), all.toSorted()]
        }),
      )
    }

    it('gives the serials of a range by the groups of their certificates, and those about to be signed', async () => {
      const a = await issue(store, 'a')
      const b = await issue(store, 'b')
      const c = await intend(store, 'c')
      const both = await issue(store, 'd')
      const of = (...intents: IssuanceIntent[]) => intents.map(i => hex(i.serial)).toSorted()
      expect(await serials(0, 4096)).toEqual({ 1: of(a, b), 2: of(c), '1,2': of(both) })
      expect(await serials(b.idx, both.idx)).toEqual({ 1: of(b), 2: of(c) })
      expect(await serials(4096, 8192)).toEqual({})
      await store.voidIntent(issuer, c.serial, { ...auditEntry('intent_voided', 'c'), at })
      expect(await serials(0, 4096)).toEqual({ 1: of(a, b), '1,2': of(both) })
      await reopen()
      expect(await serials(0, 4096)).toEqual({ 1: of(a, b), '1,2': of(both) })
    })

    it('leaves out what has ended, and what another issuer signed', async () => {
      const ended = await issue(store, 'a', { notAfter: at + 10 })
      const theirs = await issue(store, 'b', { issuer: other })
      expect(await serials(0, 4096, at + 10)).toEqual({ 1: [hex(ended.serial)] })
      expect(await serials(0, 4096, at + 11)).toEqual({})
      expect(await serials(0, 4096, 0, other)).toEqual({ 1: [hex(theirs.serial)] })
    })

    it('knows fleets and their last idx', async () => {
      expect([await store.fleets(), await store.lastIdx(fleet)]).toEqual([[], 0])
      const { idx } = await issue(store, 'a')
      await store.importManifest('pumps', [manifestEntry('p')], { ...auditEntry('manifest_imported'), at })
      await issue(store, 'p', { fleet: 'pumps' })
      expect([await store.fleets(), await store.lastIdx(fleet)]).toEqual([[fleet, 'pumps'], idx])
    })

    it('counts revocations in each fleet and in all, and dates their rules', async () => {
      await issue(store, 'a')
      expect([await store.revocations(fleet), await store.revocations(null), await store.datedRules(fleet)]).toEqual([0, 0, []])
      const first = await revoke(store, 'batch=2', null, at + 5)
      const second = await revoke(store, 'batch=1', 1, at + 9)
      await reopen()
      expect([await store.revocations(fleet), await store.revocations('pumps'), await store.revocations(null)]).toEqual([2, 0, 2])
      expect(await store.datedRules(fleet)).toEqual([
        { gid: 1, bound: second, reason: 1, at: at + 9 },
        { gid: 2, bound: first, reason: null, at: at + 5 },
      ])
    })

    it('finds a certificate by its serial, and none that was only meant, is another issuer’s, or never was', async () => {
      const a = await issue(store, 'a')
      const open = await intend(store, 'b')
      await revoke(store, 'batch=2', null, at)
      expect(await store.standing(issuer, a.serial)).toEqual({ fleet, idx: a.idx, gids: [1], revocations: 1 })
      expect(await store.standing(issuer, open.serial)).toBeNull()
      expect(await store.standing(other, a.serial)).toBeNull()
      expect(await store.standing(issuer, sha256('never').subarray(0, 16))).toBeNull()
    })

    it('[F44] spends each CRL number once, also across restarts, and never goes back', async () => {
      expect([await store.reserveCrlNumber(issuer, at), await store.reserveCrlNumber(issuer, at)]).toEqual([1, 2])
      await reopen()
      expect([await store.reserveCrlNumber(issuer, at + 7), await store.reserveCrlNumber(other, at)]).toEqual([3, 1])
      expect(await store.lastTime()).toBe(at + 7)
      const many = await Promise.all(Array.from({ length: 50 }, () => store.reserveCrlNumber(issuer, at)))
      expect(many.toSorted((x, y) => x - y)).toEqual(Array.from({ length: 50 }, (_, i) => i + 4))
    })

    it('[F45] goes on above the mark that a restored store is given', async () => {
      await store.reserveCrlNumber(issuer, at)
      await store.raiseCrlNumber(issuer, 1000)
      await store.raiseCrlNumber(issuer, 10)
      await store.raiseCrlNumber(other, 5)
      await reopen()
      expect([await store.reserveCrlNumber(issuer, at), await store.reserveCrlNumber(other, at)]).toEqual([1001, 6])
      const numbers = (await store.crlNumbers()).map(n => [hex(n.issuer), n.number] as const)
      expect(new Map(numbers)).toEqual(
        new Map([
          [hex(issuer), 1001],
          [hex(other), 6],
        ]),
      )
    })

    it('[F44] keeps the newest list of each kind, and refuses an older one and one without a number', async () => {
      const list = (number: number, more: object = {}) => ({
        ...{ issuer, list: 'meters/0', number, revocations: 3, thisUpdate: at, nextUpdate: at + 60, der: sha256(`list ${number}`) },
        ...more,
      })
      for (let i = 0; i < 4; i++) await store.reserveCrlNumber(issuer, at)
      expect(await store.recordCrl(list(5))).toBe('conflict')
      expect(await store.crlHead(issuer, 'meters/0')).toBeNull()
      expect(await store.recordCrl(list(3))).toBe('recorded')
      expect([await store.recordCrl(list(2)), await store.recordCrl(list(3))]).toEqual(['conflict', 'conflict'])
      expect(await store.recordCrl(list(2, { list: 'meters/1' }))).toBe('recorded')
      expect(await store.recordCrl(list(4, { nextUpdate: at + 120 }))).toBe('recorded')
      await reopen()
      expect(await store.recordCrl(list(1))).toBe('conflict')
      const head = { number: 4, revocations: 3, thisUpdate: at, nextUpdate: at + 120 }
      expect(await store.crlHead(issuer, 'meters/0')).toEqual(head)
      const whole = await store.crl(issuer, 'meters/0')
      expect(whole && { ...whole, issuer: hex(whole.issuer), der: hex(whole.der) }).toEqual({
        ...{ ...head, issuer: hex(issuer), list: 'meters/0' },
        der: hex(sha256('list 4')),
      })
      expect([await store.crl(other, 'meters/0'), await store.crl(issuer, '')]).toEqual([null, null])
    })
  })
}
