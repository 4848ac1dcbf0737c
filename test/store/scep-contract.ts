// What every store driver must do about SCEP's transactions (store/scep.ts).

import type { ScepTransaction, Store } from '@birthmark/est-server'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Driver } from './contract.ts'

const octets = (octet: number) => new Uint8Array(32).fill(octet)
const at = 1_800_000_000
const transaction = (more: Partial<ScepTransaction> = {}): ScepTransaction => ({
  ...{ fleet: 'routers', label: '', id: 'A1', spkiSha256: octets(1), signerSpkiSha256: octets(2) },
  ...{ csr: octets(3), challenge: octets(4), signer: null, at },
  ...more,
})

export function scepContract(name: string, driverOf: () => Driver): void {
  describe(`${name}: SCEP transactions`, () => {
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
    const read = (id = 'A1', label = '', fleet = 'routers') => store.scepTransaction(fleet, label, id)

    it('[F32] an id stands for one key under its fleet and label, over a restart too', async () => {
      expect(await read()).toBe(null)
      expect(await store.recordScepTransaction(transaction())).toBe('recorded')
      await store.close()
      store = await driver.open()
      expect(await read()).toEqual(transaction())
      expect(await store.recordScepTransaction(transaction({ spkiSha256: octets(9) }))).toBe('conflict')
      expect(await read()).toEqual(transaction())
      for (const elsewhere of [{ label: 'printers' }, { fleet: 'meters' }, { id: 'a1' }])
        expect(await store.recordScepTransaction(transaction({ ...elsewhere, spkiSha256: octets(9) }))).toBe('recorded')
    })

    it('a repeated request brings the challenge or certificate that counts now', async () => {
      await store.recordScepTransaction(transaction())
      const again = transaction({ challenge: null, signer: octets(7), signerSpkiSha256: octets(8), csr: octets(6) })
      expect(await store.recordScepTransaction(again)).toBe('recorded')
      expect(await read()).toEqual(again)
    })

    it('has one winner among many at once', async () => {
      const asked = Array.from({ length: 20 }, (_, i) => store.recordScepTransaction(transaction({ spkiSha256: octets(i) })))
      expect((await Promise.all(asked)).filter(outcome => outcome === 'recorded')).toHaveLength(1)
    })

    it('forgets what is older than a month, little by little', async () => {
      const old = ['B1', 'B2', 'B3']
      for (const id of old) await store.recordScepTransaction(transaction({ id }))
      await store.recordScepTransaction(transaction({ id: 'C0', at: at + 31 * 86_400 }))
      expect((await Promise.all(old.map(id => read(id)))).filter(Boolean)).toHaveLength(3)
      for (const id of ['C1', 'C2']) await store.recordScepTransaction(transaction({ id, at: at + 31 * 86_400 + 1 }))
      expect(await Promise.all(old.map(id => read(id)))).toEqual([null, null, null])
      expect(await read('C0')).not.toBe(null)
    })
  })
}
