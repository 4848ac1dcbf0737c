// What every store driver must do about spent tokens (store/token.ts).

import type { SpentToken, Store } from '@birthmark/est-server'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Driver } from './contract.ts'

const octets = (octet: number) => new Uint8Array(32).fill(octet)
const at = 1_800_000_000
const token = (more: Partial<SpentToken> = {}): SpentToken => ({
  ...{ use: octets(1), fleet: 'meters', deviceId: 'unit-1', contentSha256: octets(2), expiresAt: at + 600, at },
  ...more,
})

export function tokenContract(name: string, driverOf: () => Driver): void {
  describe(`${name}: spent tokens`, () => {
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

    it('[F27] serves one content of one device, over a restart too', async () => {
      expect(await store.spendToken(token())).toBe(true)
      await store.close()
      store = await driver.open()
      expect(await store.spendToken(token())).toBe(true)
      expect(await store.spendToken(token({ contentSha256: octets(3) }))).toBe(false)
      expect(await store.spendToken(token({ deviceId: 'unit-2' }))).toBe(false)
      expect(await store.spendToken(token({ fleet: 'pumps' }))).toBe(false)
      expect(await store.spendToken(token({ use: octets(9), deviceId: 'unit-2' }))).toBe(true)
    })

    it('has one winner among many at once', async () => {
      const asked = Array.from({ length: 20 }, (_, i) => store.spendToken(token({ contentSha256: octets(i) })))
      expect((await Promise.all(asked)).filter(Boolean).length).toBe(1)
    })

    it('forgets a token some time after it expired, and none before', async () => {
      await store.spendToken(token())
      await store.spendToken(token({ use: octets(4), at: at + 600 }))
      expect(await store.spendToken(token({ contentSha256: octets(3), at: at + 600 }))).toBe(false)
      await store.spendToken(token({ use: octets(5), at: at + 601, expiresAt: at + 700 }))
      expect(await store.spendToken(token({ contentSha256: octets(3), at: at + 601 }))).toBe(true)
    })
  })
}
