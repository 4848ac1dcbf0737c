// The part of the store's contract that campaigns and quarantine rest on (store/campaigns.ts, store/quarantine.ts).

import { createHash, randomBytes } from 'node:crypto'
import {
  type CampaignRecord,
  type CampaignState,
  type NewCampaign,
  packNumbers,
  type Store,
  unpackNumbers,
} from '@birthmark/est-server'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { auditEntry, type Driver, manifestEntry } from './contract.ts'

const fleet = 'meters'
const at = 1_800_000_000
const sha256 = (text: string) => new Uint8Array(createHash('sha256').update(text).digest())
const radius = { site: 'site', owner: 'owner', gateway: { name: 'role', value: 'gateway' } }

export function campaignsContract(name: string, driver: () => Driver): void {
  describe(`store contract, campaigns: ${name}`, () => {
    let d: Driver
    let store: Store
    const facts = (id: string) => store.enrollmentFacts(fleet, id, sha256(`key ${id}`), sha256('content'))
    const keyOf = async (id: string) => (await facts(id)).device!.key
    const plan = async (id: string, devices: string[], change: Partial<NewCampaign> = {}, plansMax = 10) => {
      const keys = (await Promise.all(devices.map(keyOf))).sort((a, b) => a - b)
      const campaign: NewCampaign = {
        ...{
          fleet,
          id,
          plan: `{"id":"${id}"}`,
          planSha256: sha256(id),
          plannedAt: at,
          expiresAt: at + 100,
          issuedThrough: 0,
          story: '{}',
        },
        ...{ devices: packNumbers(keys), certificates: packNumbers([7, 9]), uncertified: packNumbers([]) },
        audit: auditEntry('campaign_planned'),
        ...change,
      }
      return store.recordCampaign(campaign, plansMax)
    }
    const one = async (id: string): Promise<CampaignRecord> => (await store.campaigns({ fleet, id, limit: 1 }))[0]
    const move = async (id: string, state: CampaignState, change: object = {}) => {
      const { version, story } = await one(id)
      const audit = auditEntry('campaign_moved')
      return store.moveCampaign({ fleet, id, version, state, story, windowEndsAt: null, at: at + 1, audit, ...change })
    }
    const intent = async (id: string, change: object = {}) => {
      const { device } = await facts(id)
      return store.recordIntent({
        ...{ issuer: sha256('issuer').subarray(0, 20), serial: new Uint8Array(randomBytes(16)), fleet, device: device!.key },
        ...{
          deviceVersion: device!.version,
          idx: await store.reserveIdx(fleet),
          gids: device!.gids,
          spkiSha256: sha256(`key ${id}`),
        },
        ...{ contentSha256: sha256('content'), epoch: 0, notBefore: at, notAfter: at + 1000, secret: null, requestId: 'r' },
        ...{ tbs: sha256('tbs'), at, hold: device!.hold },
        ...change,
      })
    }

    beforeEach(async () => {
      d = driver()
      store = await d.open()
      const entries = ['a', 'b', 'c'].map(id => manifestEntry(id))
      await store.importManifest(fleet, entries, auditEntry('manifest_imported'))
    })
    afterEach(async () => {
      expect(await store.check()).toEqual([])
      await store.close()
      await d.remove()
    })

    it('keeps a plan and what it froze to the letter, also over a restart', async () => {
      expect(await plan('p1', ['a', 'c'])).toBe('recorded')
      expect(await plan('p1', ['b'])).toBe('known')
      await store.close()
      store = await d.open()
      expect(await one('p1')).toEqual({
        ...{ fleet, id: 'p1', state: 'planned', version: 1, plan: '{"id":"p1"}', planSha256: sha256('p1') },
        ...{ plannedAt: at, expiresAt: at + 100, windowEndsAt: null, issuedThrough: 0, story: '{}' },
      })
      const sets = await store.campaignSets(fleet, 'p1')
      expect([...unpackNumbers(sets!.devices)]).toEqual([await keyOf('a'), await keyOf('c')])
      expect(await store.campaignSets(fleet, 'nothing')).toBeNull()
    })

    it('holds so many plans, and forgets those that have expired', async () => {
      expect(await plan('p1', ['a'], {}, 2)).toBe('recorded')
      expect(await plan('p2', ['a'], {}, 2)).toBe('recorded')
      expect(await plan('p3', ['a'], {}, 2)).toBe('full')
      expect(await plan('p3', ['a'], { plannedAt: at + 100, expiresAt: at + 200 }, 2)).toBe('recorded')
      expect((await store.campaigns({ fleet, limit: 10 })).map(({ id }) => id)).toEqual(['p3'])
    })

    it('[F64] moves a campaign once: who has seen an earlier version is told so', async () => {
      await plan('p1', ['a'])
      expect(await move('p1', 'submitted', { version: 1 })).toBe('moved')
      expect(await move('p1', 'quarantined', { version: 1 })).toBe('conflict')
      expect((await one('p1')).state).toBe('submitted')
      const both = await Promise.all([move('p1', 'quarantined', { version: 2 }), move('p1', 'undone', { version: 2 })])
      expect(both.sort()).toEqual(['conflict', 'moved'])
    })

    it('denies the devices of a quarantine from its commit on, and lets them be when it is undone', async () => {
      await plan('p1', ['a', 'c'])
      const before = await store.holdsVersion()
      const decided = await facts('a')
      await move('p1', 'quarantined', { windowEndsAt: at + 60 })
      expect(await store.holdsVersion()).toBeGreaterThan(before)
      expect((await facts('a')).device?.hold).toBe('quarantined')
      expect((await facts('b')).device?.hold).toBeNull()
      expect(await store.quarantine(fleet, 'a')).toEqual({ campaign: 'p1', since: at + 1, until: at + 60 })
      expect(await store.quarantine(fleet, 'b')).toBeNull()
      expect((await store.device(fleet, 'c'))?.quarantinedBy).toBe('p1')
      // Decided before, recorded after: not taken.
      expect(await intent('a', { hold: decided.device!.hold })).toEqual({ kind: 'conflict', on: 'device' })
      expect(await intent('b')).toEqual({ kind: 'recorded' })
      await store.close()
      store = await d.open()
      expect((await facts('a')).device?.hold).toBe('quarantined')
      const [hold] = await store.holds(fleet)
      expect(hold).toMatchObject({ campaign: 'p1', since: at + 1, until: at + 60 })
      expect([...unpackNumbers(hold.certificates)]).toEqual([7, 9])
      await move('p1', 'undone')
      expect((await facts('a')).device?.hold).toBeNull()
      expect(await store.holds(fleet)).toEqual([])
      expect(await intent('a')).toEqual({ kind: 'recorded' })
    })

    it('holds the devices until the campaign has been carried out, and keeps what it froze', async () => {
      await plan('p1', ['a', 'c'])
      await move('p1', 'quarantined')
      await move('p1', 'committing', { certificates: packNumbers([7, 9, 11]) })
      expect((await facts('a')).device?.hold).toBe('quarantined')
      expect([...unpackNumbers((await store.holds(fleet))[0].certificates)]).toEqual([7, 9, 11])
      await move('p1', 'committed')
      expect((await facts('a')).device?.hold).toBeNull()
      expect([...unpackNumbers((await store.campaignSets(fleet, 'p1'))!.certificates)]).toEqual([7, 9, 11])
    })

    it('finds certificates that were begun since a selection was frozen', async () => {
      await intent('a')
      const frozen = await store.freeze({ fleet, selector: [], now: at, radius })
      expect(unpackNumbers(frozen.certificates).length).toBe(1)
      // One has a certificate that is being made.
      expect(frozen.radius).toMatchObject({ known: 3, withoutCertificate: 2 })
      expect(unpackNumbers(frozen.uncertified).length).toBe(2)
      expect(await store.withoutCertificate(frozen.uncertified, at)).toBe(2)
      await intent('b')
      const since = await store.certificatesSince(fleet, frozen.devices, frozen.issuedThrough)
      expect(unpackNumbers(since.certificates).length).toBe(1)
      expect(await store.withoutCertificate(frozen.uncertified, at)).toBe(1)
      const none = await store.certificatesSince(fleet, frozen.devices, since.issuedThrough)
      expect(unpackNumbers(none.certificates).length).toBe(0)
      // One that has ended is not among what is revoked.
      const later = await store.freeze({ fleet, selector: [], now: at + 5000, radius })
      expect(later.certificateCount).toBe(0)
      expect(later.radius.withoutCertificate).toBe(3)
      expect(await store.withoutCertificate(frozen.devices, at + 5000)).toBe(3)
    })
  })
}
