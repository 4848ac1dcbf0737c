// The part of the store's contract that a restore rests on (store/numbers.ts).

import { createHash, randomBytes } from 'node:crypto'
import { blocksOf, chainStart, type IssuanceIntent, type Store } from '@birthmark/est-server'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { auditEntry, type Driver, manifestEntry } from './contract.ts'

const fleet = 'meters'
const at = 1_800_000_000
const sha256 = (text: string) => new Uint8Array(createHash('sha256').update(text).digest())
const issuer = sha256('issuer').subarray(0, 20)

async function intend(store: Store, id: string): Promise<IssuanceIntent> {
  const content = new Uint8Array(randomBytes(32))
  const device = (await store.enrollmentFacts(fleet, id, content, content)).device!
  const intent: IssuanceIntent = {
    ...{ issuer, serial: new Uint8Array(randomBytes(16)), fleet, device: device.key, deviceVersion: device.version },
    ...{ idx: await store.reserveIdx(fleet), gids: device.gids, spkiSha256: content, contentSha256: content, epoch: 0 },
    ...{ notBefore: at - 300, notAfter: at + 86_400, secret: null, requestId: 'r', tbs: content, at },
  }
  expect(await store.recordIntent(intent)).toEqual({ kind: 'recorded' })
  return intent
}

export function numbersContract(name: string, driver: () => Driver): void {
  describe(`[F45] store contract, numbers: ${name}`, () => {
    let d: Driver
    let store: Store
    const reopen = async () => {
      await store.close()
      store = await d.open()
    }
    const of = async () => (await store.numbers([fleet])).fleets[0]
    beforeEach(async () => {
      d = driver()
      store = await d.open()
    })
    afterEach(async () => {
      expect(await store.check()).toEqual([])
      await store.close()
      await d.remove()
    })

    it('says what was given out, and where the audit chain ends', async () => {
      expect(await store.numbers([fleet])).toMatchObject({ audit: { n: 0 }, fleets: [{ fleet, idx: 1, gid: 0, seq: 0 }], crls: [] })
      expect(Buffer.from((await store.numbers([])).audit.hash)).toEqual(Buffer.from(chainStart))
      await store.importManifest(fleet, [manifestEntry('a')], auditEntry('manifest_imported'))
      const { idx } = await intend(store, 'a')
      await store.reserveCrlNumber(issuer, at)
      const numbers = await store.numbers([fleet, 'other'])
      expect(numbers.fleets[0].idx).toBeGreaterThan(idx)
      expect(numbers).toMatchObject({
        audit: { n: 1 },
        fleets: [
          { fleet, gid: 1, seq: 0 },
          { fleet: 'other', idx: 1 },
        ],
        crls: [{ number: 1 }],
      })
      const [last] = await store.audit(0, 1)
      expect(Buffer.from(numbers.audit.hash)).toEqual(Buffer.from(last.hash))
    })

    it('goes on above what it was raised to, and is not lowered', async () => {
      await store.importManifest(fleet, [manifestEntry('a')], auditEntry('manifest_imported'))
      await intend(store, 'a')
      const raise = (idx: number, gid: number, number: number) =>
        store.raiseNumbers({ fleets: [{ fleet, idx, gid }], crls: [{ issuer, number }], audit: auditEntry('store_restored') })
      await raise(5000, 40, 700)
      await raise(300, 4, 7)
      await reopen()
      expect((await intend(store, 'a')).idx).toBeGreaterThanOrEqual(5000)
      expect(await store.reserveCrlNumber(issuer, at)).toBe(701)
      await store.importManifest(fleet, [manifestEntry('b', ['fresh'])], auditEntry('manifest_imported'))
      expect((await store.groups(fleet)).map(g => [g.gid, g.devices])).toEqual([
        [1, 1],
        [40, 0],
        [41, 1],
      ])
      expect((await store.audit(0, 100)).filter(r => r.kind === 'store_restored')).toHaveLength(2)
    })

    it('takes a published notice that it lost: its groups are closed again, the chain goes on behind it, nothing is sent twice', async () => {
      await store.importManifest(fleet, [manifestEntry('a'), manifestEntry('b', ['batch=2'])], auditEntry('manifest_imported'))
      await store.raiseNumbers({ fleets: [], crls: [], audit: auditEntry('store_restored') })
      const lost = {
        ...{ fleet, seq: 7, notice: sha256('notice'), sha256: sha256('signed'), previousSha256: sha256('sixth'), at },
        rules: [
          { kind: 'group' as const, gid: 1, bound: 900, reason: 1 },
          { kind: 'group' as const, gid: 9, bound: 50 },
        ],
        ...{ certificates: blocksOf([12, 5000]), floor: 9, issuer: sha256('ended').subarray(0, 20) },
        audit: auditEntry('notice_adopted'),
      }
      await store.reserveIdx(fleet)
      expect(await store.adoptNotice(lost)).toBe('adopted')
      // What it revokes beforehand is nobody's.
      expect(await store.reserveIdx(fleet)).toBeGreaterThanOrEqual(900)
      expect(await store.adoptNotice(lost)).toBe('known')
      expect(await store.adoptNotice({ ...lost, seq: 3 })).toBe('taken')
      await reopen()
      expect(await store.isClosed(fleet, [1])).toBe(true)
      expect((await store.rules(fleet)).map(r => [r.gid, r.bound]).sort()).toEqual([
        [1, 900],
        [9, 50],
      ])
      expect(await store.standingSets(fleet)).toMatchObject({
        floor: 9,
        blocks: [{ block: 0 }, { block: 1 }],
        issuers: [{ length: 20 }],
      })
      expect((await store.datedSets(fleet, 0)).map(({ kind, blocks }) => [kind, blocks.length])).toEqual([
        ['floor', 0],
        ['issuer', 0],
        ['list', 2],
      ])
      expect(await store.outboxPending(fleet, 10)).toEqual([])
      expect(await of()).toMatchObject({ seq: 7, gid: 9 })
      expect((await of()).idx).toBeGreaterThanOrEqual(900)
      const draft = await store.draftRevocation(fleet, 'batch=2', 10, at)
      expect(draft).toMatchObject({ seq: 8 })
      expect(Buffer.from(draft!.previousSha256!)).toEqual(Buffer.from(lost.sha256))
    })

    it('does not call a notice known for its number: what another has in its place is taken, and nothing is written of it', async () => {
      await store.raiseNumbers({ fleets: [], crls: [], audit: auditEntry('store_restored') })
      const notice = (seq: number, name: string, before: string | null) => ({
        ...{
          fleet,
          seq,
          notice: sha256(`bytes of ${name}`),
          sha256: sha256(name),
          previousSha256: before === null ? null : sha256(before),
          at,
        },
        rules: [{ kind: 'group' as const, gid: seq, bound: 10 }],
        ...{ certificates: [], floor: 0, issuer: null, audit: auditEntry('notice_adopted') },
      })
      expect(await store.adoptNotice(notice(1, 'first', null))).toBe('adopted')
      expect(await store.adoptNotice(notice(3, 'third', 'second'))).toBe('adopted')
      await reopen()
      // Spent twice, passed over, and behind another.
      expect(await store.adoptNotice(notice(3, 'another third', 'second'))).toBe('taken')
      expect(await store.adoptNotice(notice(2, 'second', 'first'))).toBe('taken')
      expect(await store.adoptNotice(notice(4, 'fourth', 'another third'))).toBe('taken')
      expect(await store.adoptNotice(notice(3, 'third', 'second'))).toBe('known')
      expect((await store.rules(fleet)).map(r => r.gid).sort()).toEqual([1, 3])
      expect(await store.audit(0, 10)).toHaveLength(3)
      expect(await store.adoptNotice(notice(4, 'fourth', 'third'))).toBe('adopted')
    })
  })
}
