// What every store driver must do about notices that close no group (store/notice.ts).

import type { PlainNotice, Store } from '@birthmark/est-server'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { auditEntry, type Driver } from './contract.ts'

const octets = (octet: number) => new Uint8Array(32).fill(octet)
const plain = (seq: number, more: Partial<PlainNotice> = {}): PlainNotice => ({
  fleet: 'meters',
  seq,
  previousSha256: seq === 1 ? null : octets(seq - 1),
  notice: new Uint8Array([seq]),
  noticeSha256: octets(seq),
  at: 1_800_000_000 + seq,
  audit: auditEntry('notice_renewed'),
  ...more,
})

export function noticeContract(name: string, driverOf: () => Driver): void {
  describe(`${name}: notices that close no group`, () => {
    let driver: Driver
    let store: Store
    beforeEach(async () => {
      driver = driverOf()
      store = await driver.open()
    })
    afterEach(async () => {
      await store.close()
      await driver.remove()
    })

    it('follow one another, reach the outbox and are there after a restart', async () => {
      expect(await store.newestNotice('meters')).toBeNull()
      for (const seq of [1, 2]) expect(await store.recordNotice(plain(seq))).toBe('recorded')
      expect(await store.newestNotice('pumps')).toBeNull()
      await store.close()
      store = await driver.open()
      expect(await store.newestNotice('meters')).toMatchObject({ seq: 2, at: 1_800_000_002 })
      expect((await store.outboxPending('meters', 9)).map(({ seq }) => seq)).toEqual([1, 2])
      expect((await store.audit(0, 9)).map(({ kind }) => kind)).toEqual(['notice_renewed', 'notice_renewed'])
      expect(await store.rules('meters')).toEqual([])
    })

    it('[F44] are refused out of turn or after another than the newest, and leave nothing', async () => {
      await store.recordNotice(plain(1))
      for (const wrong of [plain(1), plain(3), plain(2, { previousSha256: null }), plain(2, { previousSha256: octets(9) })])
        expect(await store.recordNotice(wrong)).toBe('conflict')
      expect((await store.newestNotice('meters'))?.seq).toBe(1)
      expect(await store.audit(0, 9)).toHaveLength(1)
      expect(await store.recordNotice(plain(2))).toBe('recorded')
    })
  })
}
