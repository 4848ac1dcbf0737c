// The part of the store's contract that approval by hand rests on (store/approvals.ts).

import { createHash } from 'node:crypto'
import type { ApprovalRequest, Store } from '@birthmark/est-server'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { auditEntry, type Driver, intentFor, manifestEntry } from './contract.ts'

const fleet = 'meters'
const at = 1_800_000_000
const sha256 = (text: string) => new Uint8Array(createHash('sha256').update(text).digest())

function asked(deviceId: string, content: string, change: Partial<ApprovalRequest> = {}): ApprovalRequest {
  return {
    ...{ fleet, deviceId, contentSha256: sha256(content), epoch: 0, label: null, operation: 'enroll', spkiSha256: sha256('key') },
    ...{
      summary: 'CN=m-1',
      requestId: 'r-1',
      from: '192.0.2.1',
      at,
      expiresAt: at + 1000,
      audit: auditEntry('approval_asked', deviceId),
    },
    ...change,
  }
}

export function approvalsContract(name: string, driver: () => Driver): void {
  describe(`store contract, approvals: ${name}`, () => {
    let d: Driver
    let store: Store
    const ask = async (request: ApprovalRequest, waitingMax = 100) => {
      const outcome = await store.awaitApproval(request, waitingMax)
      if (outcome.kind === 'full') throw new Error('full')
      return outcome.approval
    }
    const decide = (id: number, state: 'approved' | 'denied', when = at + 1) =>
      store.decideApproval({
        ...{ fleet, id, state, by: 'alice', reason: 'because', at: when, expiresAt: when + 1000 },
        audit: auditEntry(state === 'approved' ? 'approval_granted' : 'approval_denied', 'm-1'),
      })
    const kinds = async () => (await store.audit(0, 1000)).map(record => record.kind)
    const waiting = async (now = at) => (await store.approvals({ fleet, state: 'waiting', now, limit: 100 })).map(a => a.deviceId)

    beforeEach(async () => {
      d = driver()
      store = await d.open()
    })
    afterEach(async () => {
      expect(await store.check()).toEqual([])
      await store.close()
      await d.remove()
    })

    it('keeps what was asked, to the letter, also over a restart', async () => {
      const request = asked('m-1', 'a', { label: 'sensors', epoch: 3 })
      const { audit, ...rest } = request
      const made = await ask(request)
      expect(made).toEqual({ ...rest, id: made.id, state: 'waiting', decidedAt: null, decidedBy: '', reason: '' })
      expect(await kinds()).toEqual(['approval_asked'])
      await store.close()
      store = await d.open()
      expect(await store.approval(fleet, 'm-1', sha256('a'))).toEqual(made)
      expect(await store.approvalById(fleet, made.id)).toEqual(made)
      expect(await store.approvalById('other', made.id)).toBeNull()
      expect(await store.approval(fleet, 'm-2', sha256('a'))).toBeNull()
      expect(await store.lastTime()).toBe(request.audit.at)
    })

    it('asking again writes nothing, fifty times at once', async () => {
      const made = await Promise.all(Array.from({ length: 50 }, (_, i) => ask(asked('m-1', 'a', { requestId: `r-${i}` }))))
      expect(new Set(made.map(({ id }) => id)).size).toBe(1)
      expect(await kinds()).toEqual(['approval_asked'])
    })

    it('is decided by id: who, why and until when, and anew if need be', async () => {
      const { id } = await ask(asked('m-1', 'a'))
      expect(await decide(id, 'denied')).toMatchObject({
        state: 'denied',
        decidedBy: 'alice',
        reason: 'because',
        decidedAt: at + 1,
      })
      expect(await decide(id, 'approved')).toMatchObject({ state: 'approved', expiresAt: at + 1001 })
      expect(await ask(asked('m-1', 'a'))).toMatchObject({ id, state: 'approved' })
      expect(await waiting()).toEqual([])
      expect(await decide(id + 1, 'approved')).toBeNull()
      expect(await kinds()).toEqual(['approval_asked', 'approval_denied', 'approval_granted'])
    })

    it('an approval of one issuance does not serve the next, which is asked anew under another id', async () => {
      const first = await ask(asked('m-1', 'a'))
      await decide(first.id, 'approved')
      const second = await ask(asked('m-1', 'a', { epoch: 1 }))
      expect(second).toMatchObject({ state: 'waiting', epoch: 1 })
      expect(second.id).toBeGreaterThan(first.id)
      expect(await decide(first.id, 'approved')).toBeNull()
    })

    it('a device has one request waiting; what was decided of it stays', async () => {
      const denied = await ask(asked('m-1', 'a'))
      await decide(denied.id, 'denied')
      const replaced = await ask(asked('m-1', 'b'))
      await ask(asked('m-1', 'c'))
      expect(await waiting()).toEqual(['m-1'])
      expect(await decide(replaced.id, 'approved')).toBeNull()
      expect(await store.approval(fleet, 'm-1', sha256('a'))).toMatchObject({ state: 'denied' })
    })

    it('what has expired counts for nothing: not listed, not decided, asked anew', async () => {
      const { id } = await ask(asked('m-1', 'a'))
      expect(await waiting(at + 999)).toEqual(['m-1'])
      expect(await waiting(at + 1000)).toEqual([])
      expect(await decide(id, 'approved', at + 1000)).toBeNull()
      const again = await ask(asked('m-1', 'a', { at: at + 1000, expiresAt: at + 2000 }))
      expect(again.id).toBeGreaterThan(id)
      // Cleared away by whoever asks next.
      await ask(asked('m-2', 'x', { at: at + 2000, expiresAt: at + 3000 }))
      expect(await store.approval(fleet, 'm-1', sha256('a'))).toBeNull()
    })

    it('only so many wait, in each fleet; a device that waits already may ask otherwise', async () => {
      await ask(asked('m-1', 'a'), 2)
      await ask(asked('m-2', 'a'), 2)
      expect(await store.awaitApproval(asked('m-3', 'a'), 2)).toEqual({ kind: 'full' })
      expect(await ask(asked('m-2', 'b'), 2)).toMatchObject({ state: 'waiting' })
      expect(await ask(asked('m-3', 'a', { fleet: 'other' }), 2)).toMatchObject({ state: 'waiting' })
      // Expired ones do not count.
      expect(await ask(asked('m-3', 'a', { at: at + 1000, expiresAt: at + 2000 }), 2)).toMatchObject({ state: 'waiting' })
    })

    it('of two servers, neither records an intent whose approval the other took back; only one of its content and issuance, while it stands', async () => {
      await store.importManifest(fleet, [manifestEntry('m-1')], auditEntry('manifest_imported'))
      const other = await d.open()
      const { id } = await ask(asked('m-1', 'a'))
      const intent = async (by: Store, change: object = {}) =>
        by.recordIntent(await intentFor(by, 'm-1', { contentSha256: sha256('a'), at: at + 2, consent: id, ...change }))
      const refused = { kind: 'conflict', on: 'consent' }
      expect(await intent(store)).toEqual(refused)
      await decide(id, 'approved')
      const drawn = await intentFor(other, 'm-1', { contentSha256: sha256('a'), at: at + 2, consent: id })
      for (const change of [{ contentSha256: sha256('b') }, { epoch: 1 }, { at: at + 1001 }, { consent: id + 1 }])
        expect(await intent(store, change), JSON.stringify(change)).toEqual(refused)
      await decide(id, 'denied', at + 2)
      expect(await other.recordIntent(drawn)).toEqual(refused)
      expect(await intent(store)).toEqual(refused)
      await decide(id, 'approved', at + 2)
      expect(await other.recordIntent(drawn)).toEqual({ kind: 'recorded' })
      await other.close()
    })

    it('is listed page by page, by state', async () => {
      for (let i = 1; i <= 5; i++) await ask(asked(`m-${i}`, 'a'))
      const first = await store.approvals({ fleet, now: at, limit: 2 })
      expect(first.map(a => a.deviceId)).toEqual(['m-1', 'm-2'])
      await decide(first[1].id, 'approved')
      const rest = await store.approvals({ fleet, state: 'waiting', after: first[0].id, now: at, limit: 100 })
      expect(rest.map(a => a.deviceId)).toEqual(['m-3', 'm-4', 'm-5'])
      expect(await store.approvals({ fleet: 'other', now: at, limit: 100 })).toEqual([])
    })
  })
}
