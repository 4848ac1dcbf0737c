// The part of the store's contract by which servers with older profiles stop (store/profile-sets.ts).

import { createHash, randomBytes } from 'node:crypto'
import type { IssuanceIntent, ProfileSet, Store } from '@birthmark/est-server'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { auditEntry, type Driver, manifestEntry } from './contract.ts'

const fleet = 'meters'
const at = 1_800_000_000
const sha256 = (text: string) => new Uint8Array(createHash('sha256').update(text).digest())
const setOf = (name: string, change: Partial<ProfileSet> = {}): ProfileSet => ({
  ...{ fleet, hash: sha256(name), at, host: `host of ${name}`, version: '1.2.3' },
  ...change,
})
const said = { ...auditEntry('profiles_changed'), detail: 'profiles' }

async function intentOf(store: Store, id: string, profiles?: string, intentFleet = fleet): Promise<IssuanceIntent> {
  const content = sha256(randomBytes(8).toString('hex'))
  const { device } = await store.enrollmentFacts(intentFleet, id, content, content)
  if (device === null) throw new Error(`${id} is not known`)
  return {
    ...{ issuer: sha256('issuer').subarray(0, 20), serial: new Uint8Array(randomBytes(16)), fleet: intentFleet },
    ...{ device: device.key, deviceVersion: device.version, idx: await store.reserveIdx(intentFleet), gids: device.gids },
    ...{ spkiSha256: content, contentSha256: content, epoch: 0, notBefore: at - 300, notAfter: at + 86_400, secret: null },
    ...{ requestId: 'r', tbs: content, at },
    ...(profiles !== undefined && { profiles: sha256(profiles) }),
  }
}

export function profileSetsContract(name: string, driver: () => Driver): void {
  describe(`store contract, profile sets: ${name}`, () => {
    let d: Driver
    let store: Store
    let other: Store
    beforeEach(async () => {
      d = driver()
      store = await d.open()
      other = await d.open()
      await store.importManifest(fleet, [manifestEntry('m-0'), manifestEntry('m-1')], auditEntry('manifest_imported'))
    })
    afterEach(async () => {
      expect(await store.check()).toEqual([])
      await other.close()
      await store.close()
      await d.remove()
    })
    const announce = (by: Store, name: string, again = false) => by.announceProfiles(setOf(name), again, said)

    it('names nobody at first, and takes intents of any profiles', async () => {
      expect(await store.newestProfiles(fleet)).toBe(null)
      expect(await store.recordIntent(await intentOf(store, 'm-0', 'whichever'))).toEqual({ kind: 'recorded' })
    })

    it('counts a generation for each set that is new, with one audit record, and keeps where it came from over a restart', async () => {
      expect(await announce(store, 'old')).toEqual({ ...setOf('old'), generation: 1 })
      const again = setOf('old', { host: 'another', at: at + 9 })
      expect(await other.announceProfiles(again, false, said)).toMatchObject({ generation: 1, host: 'host of old', at })
      expect(await announce(other, 'new')).toMatchObject({ generation: 2, host: 'host of new', version: '1.2.3' })
      await store.close()
      store = await d.open()
      const newest = await store.newestProfiles(fleet)
      expect(newest).toMatchObject({ fleet, generation: 2, host: 'host of new', version: '1.2.3', at })
      expect(Buffer.from(newest!.hash).equals(sha256('new'))).toBe(true)
      expect((await store.audit(0, 100)).filter(({ kind }) => kind === 'profiles_changed')).toHaveLength(2)
      expect(await store.newestProfiles('another fleet')).toBe(null)
    })

    it('[F38] a server that restarts with an older set does not take the fleet back, unless it says so', async () => {
      await announce(store, 'old')
      await announce(other, 'new')
      expect(await announce(store, 'old')).toMatchObject({ generation: 2, host: 'host of new' })
      expect(await announce(store, 'old', true)).toMatchObject({ generation: 3, host: 'host of old' })
      expect(await announce(other, 'new')).toMatchObject({ generation: 3, host: 'host of old' })
      expect(await announce(other, 'old', true)).toMatchObject({ generation: 3 })
    })

    it('[F38] of two nodes with different profiles the older records no intent, from the commit of the newer on', async () => {
      await announce(store, 'old')
      expect(await store.recordIntent(await intentOf(store, 'm-0', 'old'))).toEqual({ kind: 'recorded' })
      const drawn = await intentOf(store, 'm-1', 'old')
      await announce(other, 'new')
      // Through the connection that knew better a moment ago, and through the other.
      expect(await store.recordIntent(drawn)).toEqual({ kind: 'conflict', on: 'profiles' })
      expect(await other.recordIntent(await intentOf(other, 'm-1', 'old'))).toEqual({ kind: 'conflict', on: 'profiles' })
      expect(await other.recordIntent(await intentOf(other, 'm-1', 'new'))).toEqual({ kind: 'recorded' })
      // Who says nothing is not asked, and other fleets are none of it.
      expect(await other.recordIntent(await intentOf(other, 'm-0'))).toEqual({ kind: 'recorded' })
      await store.importManifest('pumps', [{ ...manifestEntry('p-0') }], { ...auditEntry('manifest_imported'), fleet: 'pumps' })
      expect(await store.recordIntent(await intentOf(store, 'p-0', 'old', 'pumps'))).toEqual({ kind: 'recorded' })
    })

    it('[F38] intents and a newer set at the same time: none of the older lands behind it', async () => {
      await announce(store, 'old')
      const intents = await Promise.all(['m-0', 'm-1'].map(id => intentOf(store, id, 'old')))
      const results = await Promise.all([store.recordIntent(intents[0]), announce(other, 'new'), store.recordIntent(intents[1])])
      for (const result of [results[0], results[2]]) if (result.kind === 'conflict') expect(result.on).toBe('profiles')
      expect(await store.recordIntent(await intentOf(store, 'm-0', 'old'))).toEqual({ kind: 'conflict', on: 'profiles' })
    })

    it('two that announce at once agree on one newest', async () => {
      await Promise.all([announce(store, 'a'), announce(other, 'b')])
      expect((await store.newestProfiles(fleet))?.generation).toBe(2)
      expect(await store.newestProfiles(fleet)).toEqual(await other.newestProfiles(fleet))
    })
  })
}
