// The part of the store's contract that a roll-over rests on (store/issuers.ts).

import { createHash, randomBytes } from 'node:crypto'
import type { Bytes } from '@birthmark/device-sdk/core'
import type { IssuanceIntent, IssuerStanding, IssuerState, Store } from '@birthmark/est-server'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { auditEntry, type Driver, manifestEntry } from './contract.ts'

const fleet = 'meters'
const at = 1_800_000_000
const sha256 = (text: string) => new Uint8Array(createHash('sha256').update(text).digest())
const issuer = (name: string) => sha256(name).subarray(0, 20)
const standing = (name: string, state: IssuerState, since = at): IssuerStanding => ({ keyId: issuer(name), state, since })
const shown = (all: IssuerStanding[]) => all.map(({ keyId, state }) => [Buffer.from(keyId).toString('hex').slice(0, 8), state])
const sorted = (all: IssuerStanding[]) => all.toSorted((a, b) => a.since - b.since || Buffer.compare(a.keyId, b.keyId))

async function intentOf(store: Store, id: string, by: Bytes, change: Partial<IssuanceIntent> = {}): Promise<IssuanceIntent> {
  const content = sha256(randomBytes(8).toString('hex'))
  const { device } = await store.enrollmentFacts(fleet, id, content, content)
  if (device === null) throw new Error(`${id} is not known`)
  return {
    ...{ issuer: by, serial: new Uint8Array(randomBytes(16)), fleet, device: device.key, deviceVersion: device.version },
    ...{ idx: await store.reserveIdx(fleet), gids: device.gids, spkiSha256: content, contentSha256: content, epoch: 0 },
    ...{ notBefore: at - 300, notAfter: at + 86_400, secret: null, requestId: 'r', tbs: content, at },
    ...change,
  }
}

async function issue(store: Store, id: string, by: Bytes, change: Partial<IssuanceIntent> = {}): Promise<void> {
  const intent = await intentOf(store, id, by, change)
  expect(await store.recordIntent(intent)).toEqual({ kind: 'recorded' })
  const record = {
    issuer: intent.issuer,
    serial: intent.serial,
    der: sha256('certificate'),
    at,
    audit: auditEntry('certificate_issued', id),
  }
  expect(await store.recordCertificate({ ...record, idxFloor: 0, supersedes: 0, supersedesSince: 0 })).toBe('recorded')
}

export function issuersContract(name: string, driver: () => Driver): void {
  describe(`store contract, issuers: ${name}`, () => {
    let d: Driver
    let store: Store
    beforeEach(async () => {
      d = driver()
      store = await d.open()
      const entries = Array.from({ length: 7 }, (_, i) => manifestEntry(`m-${i}`))
      await store.importManifest(fleet, entries, auditEntry('manifest_imported'))
    })
    afterEach(async () => {
      expect(await store.check()).toEqual([])
      await store.close()
      await d.remove()
    })
    const change = async (standings: IssuerStanding[], unused: Bytes | null = null, expected?: IssuerStanding[]) =>
      store.recordIssuers({
        expected: expected ?? (await store.issuerStandings()),
        ...{ standings, unused, audit: { ...auditEntry('issuer_moved'), detail: 'a move' } },
      })

    it('names nobody at first, and takes the intents of any issuer', async () => {
      expect(await store.issuerStandings()).toEqual([])
      await issue(store, 'm-0', issuer('old'))
      await issue(store, 'm-1', issuer('new'))
    })

    it('keeps standings with their audit record over a restart, in order', async () => {
      const all = [standing('old', 'signing'), standing('new', 'next', at + 1), standing('older', 'retired', at - 1)]
      expect(await change(all)).toBe('recorded')
      expect((await store.audit(0, 100)).at(-1)).toMatchObject({ kind: 'issuer_moved', detail: 'a move' })
      await store.close()
      store = await d.open()
      expect(shown(await store.issuerStandings())).toEqual(shown(sorted(all)))
    })

    it('refuses a change that was decided on other standings, and writes nothing then', async () => {
      await change([standing('old', 'signing')])
      const before = await store.issuerStandings()
      expect(await change([standing('new', 'signing')], null, [])).toBe('conflict')
      expect(await change([standing('new', 'signing')], null, [{ ...before[0], since: at + 5 }])).toBe('conflict')
      expect(await store.issuerStandings()).toEqual(before)
      expect(await store.audit(0, 100)).toHaveLength(2)
    })

    it('of two that move at once one wins', async () => {
      const other = await d.open()
      await change([standing('old', 'signing')])
      const expected = await store.issuerStandings()
      const audit = auditEntry('issuer_moved')
      const moves = [store, other].map((one, i) =>
        one.recordIssuers({ expected, standings: [...expected, standing(`new ${i}`, 'next')], unused: null, audit }),
      )
      expect((await Promise.all(moves)).toSorted()).toEqual(['conflict', 'recorded'])
      await other.close()
    })

    it('lets no issuer record an intent but the one that signs, from the commit of the move on and through every connection', async () => {
      const other = await d.open()
      await change([standing('old', 'signing'), standing('new', 'next')])
      await issue(store, 'm-0', issuer('old'))
      expect(await store.recordIntent(await intentOf(store, 'm-1', issuer('new')))).toEqual({ kind: 'conflict', on: 'issuer' })
      const drawn = await intentOf(other, 'm-2', issuer('old'))
      await change([standing('old', 'previous'), standing('new', 'signing')])
      expect(await other.recordIntent(drawn)).toEqual({ kind: 'conflict', on: 'issuer' })
      await issue(other, 'm-2', issuer('new'))
      // Signed already, and recorded under the issuer of its intent.
      expect((await store.device(fleet, 'm-0'))?.certificate).not.toBe(null)
      await other.close()
    })

    it('an intent that was recorded before the move becomes a certificate after it', async () => {
      await change([standing('old', 'signing'), standing('new', 'next')])
      const intent = await intentOf(store, 'm-0', issuer('old'))
      await store.recordIntent(intent)
      await change([standing('old', 'previous'), standing('new', 'signing')])
      const record = {
        issuer: intent.issuer,
        serial: intent.serial,
        der: sha256('c'),
        at,
        audit: auditEntry('certificate_issued', 'm-0'),
      }
      expect(await store.recordCertificate({ ...record, idxFloor: 0, supersedes: 0, supersedesSince: 0 })).toBe('recorded')
    })

    it('takes a step back only while the issuer has recorded nothing, not even an intent', async () => {
      await change([standing('old', 'previous'), standing('new', 'signing')])
      const back = [standing('old', 'signing'), standing('new', 'next')]
      expect(await change(back, issuer('new'))).toBe('recorded')
      await change([standing('old', 'previous'), standing('new', 'signing')])
      const intent = await intentOf(store, 'm-0', issuer('new'))
      await store.recordIntent(intent)
      expect(await change(back, issuer('new'))).toBe('used')
      expect(shown(await store.issuerStandings()).flat()).toContain('previous')
      await store.voidIntent(intent.issuer, intent.serial, auditEntry('intent_voided'))
      expect(await change(back, issuer('new'))).toBe('used')
    })

    it('counts, in pages, the devices whose last certificate is of an issuer and lives', async () => {
      for (const id of ['m-0', 'm-1', 'm-2']) await issue(store, id, issuer('old'))
      await issue(store, 'm-3', issuer('old'), { notBefore: at - 20, notAfter: at - 10 })
      await issue(store, 'm-1', issuer('new'))
      const pages: number[] = []
      let devices = 0
      for (let after: number | null = 0; after !== null; ) {
        const page = await store.issuerDevices({ issuer: issuer('old'), now: at, after, rows: 3 })
        pages.push(page.devices)
        devices += page.devices
        after = page.next
      }
      expect(devices).toBe(2)
      expect(pages).toHaveLength(3)
      expect(await store.issuerDevices({ issuer: issuer('nobody'), now: at, after: 0, rows: 100 })).toEqual({
        devices: 0,
        next: null,
      })
    })
  })
}
