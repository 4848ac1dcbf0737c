// The part of the store's contract that finding devices by what they are called rests on (store/selection.ts). The oracle is the selector
// applied to each device in memory.

import { createHash } from 'node:crypto'
import {
  labelsPerDeviceMax,
  matchesSelector,
  parseSelector,
  type Selectable,
  type Selector,
  type Store,
  selectorText,
  type Term,
  unpackNumbers,
} from '@birthmark/est-server'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { auditEntry, type Driver, manifestEntry } from './contract.ts'

const fleet = 'meters'
const now = 1_800_000_000
const radius = { site: 'site', owner: 'owner', gateway: { name: 'role', value: 'gateway' } }

const models = ['gw-2', 'gw-3']
const batches = ['2026-W41', '2026-W42', '2026-W43']
const versions = ['2.2', '2.3-rc1', '2.3', '2.10', 'v2.3.0']

const term: fc.Arbitrary<Term> = fc.oneof(
  fc.record({
    name: fc.constantFrom('model', 'batch', 'firmware', 'site', 'nothing', 'id'),
    test: fc.constantFrom('in' as const, 'notin' as const),
    values: fc.array(fc.constantFrom(...models, ...batches, ...versions, 'fra', '', 'd3', 'd7', 'no such'), {
      minLength: 1,
      maxLength: 3,
    }),
  }),
  fc.record({
    name: fc.constantFrom('model', 'batch', 'firmware', 'site', 'pilot', 'nothing', 'seen'),
    test: fc.constantFrom('exists' as const, 'absent' as const),
  }),
  fc.record({
    name: fc.constantFrom('firmware', 'batch', 'nothing'),
    test: fc.constantFrom('<' as const, '<=' as const, '>' as const, '>=' as const),
    value: fc.constantFrom(...versions, ...batches),
  }),
)

export function selectionContract(name: string, driver: () => Driver): void {
  describe(`store contract, selection: ${name}`, () => {
    let d: Driver
    let store: Store
    const devices: Selectable[] = Array.from({ length: 24 }, (_, i) => ({
      id: `d${i}`,
      groups: [
        `model=${models[i % 2]}`,
        `batch=${batches[i % 3]}`,
        ...(i % 5 === 0 ? ['pilot'] : []),
        ...(i % 8 === 0 ? ['role=gateway'] : []),
      ],
      labels: {
        ...(i % 4 === 3 ? {} : { firmware: versions[i % 5] }),
        ...(i % 6 === 5 ? {} : { site: i < 12 ? 'fra' : 'muc' }),
        owner: i % 2 ? 'alice' : 'bob',
      },
      seenAt: null,
    }))
    const find = async (selector: Selector, limit = 1000) =>
      (await store.selected({ fleet, selector, now, after: '', limit })).map(row => row.id)
    const label = (changes: Parameters<Store['labelDevices']>[1]) =>
      store.labelDevices(fleet, changes, auditEntry('devices_labelled'))

    beforeEach(async () => {
      d = driver()
      store = await d.open()
      await store.importManifest(
        fleet,
        devices.map(device => manifestEntry(device.id, [...device.groups])),
        auditEntry('manifest_imported'),
      )
      await label(devices.map(device => ({ id: device.id, set: { ...device.labels }, unset: [] })))
    })
    afterEach(async () => {
      expect(await store.check()).toEqual([])
      await store.close()
      await d.remove()
    })

    it('finds what the selector finds device by device, in the order of ids', async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(term, { maxLength: 4 }), async terms => {
          const wanted = devices.filter(device => matchesSelector(terms, device, now)).map(device => device.id)
          expect(await find(terms)).toEqual(wanted.sort())
        }),
        { numRuns: 150 },
      )
    })

    it('freezes the same devices that it lists, and hashes their ids as a list of them hashes', async () => {
      for (const text of ['', 'model=gw-2,firmware<2.3', 'batch in (2026-W41,2026-W43),!pilot', 'nothing']) {
        const selector = parseSelector(text)
        expect(parseSelector(selectorText(selector))).toEqual(selector)
        const ids = await find(selector)
        const frozen = await store.freeze({ fleet, selector, now, radius })
        expect(frozen.count).toBe(ids.length)
        const listed = await store.deviceIds(frozen.devices, -1, 1000)
        expect(listed.ids.sort()).toEqual(ids)
        const hash = createHash('sha256').update(ids.map(id => `${id}\n`).join(''))
        expect(Buffer.from(frozen.idsSha256).toString('hex')).toBe(hash.digest('hex'))
      }
    })

    it('says which groups, sites and owners a selection touches, and which sites lose their last gateway', async () => {
      const frozen = await store.freeze({ fleet, selector: parseSelector('model=gw-2'), now, radius })
      expect(frozen.radius).toMatchObject({ known: 12, enrolled: 0, fleetDevices: 24, lastSeen: { never: 12 } })
      expect(frozen.wholeGroups.map(group => group.name).sort()).toEqual(['model=gw-2', 'role=gateway'])
      expect(frozen.radius.groups).toContainEqual({ name: 'batch=2026-W41', selected: 4, devices: 8 })
      expect(frozen.radius.owners).toEqual([{ name: 'bob', selected: 12, devices: 12 }])
      expect(frozen.radius.sites.map(site => site.name).sort()).toEqual(['fra', 'muc'])
      // Gateways are d0, d8 (fra) and d16 (muc), all of model gw-2.
      expect(frozen.radius.soleGateways.map(({ site, gateways }) => [site, gateways]).sort()).toEqual([
        ['fra', 2],
        ['muc', 1],
      ])
      const spared = await store.freeze({ fleet, selector: parseSelector('model=gw-2,id!=d8'), now, radius })
      expect(spared.radius.soleGateways.map(({ site }) => site)).toEqual(['muc'])
    })

    it('replaces and takes labels, refuses what cannot be, and keeps them over a restart', async () => {
      expect(await label([{ id: 'd0', set: { firmware: '3.0' }, unset: ['site', 'never set'] }])).toEqual({
        ...{ changed: 1, unchanged: 0, refused: [] },
      })
      expect(await label([{ id: 'd0', set: { firmware: '3.0' }, unset: [] }])).toMatchObject({ changed: 0, unchanged: 1 })
      const many = Object.fromEntries(Array.from({ length: labelsPerDeviceMax }, (_, i) => [`l${i}`, 'x']))
      const refused = await label([
        { id: 'd0', set: many, unset: [] },
        { id: 'nobody', set: { a: 'b' }, unset: [] },
      ])
      expect(refused.refused.map(row => row.id)).toEqual(['d0', 'nobody'])
      await store.close()
      store = await d.open()
      expect((await store.device(fleet, 'd0'))?.labels).toEqual({ firmware: '3.0', owner: 'bob' })
      expect(await find(parseSelector('firmware>=3'))).toEqual(['d0'])
      expect(await store.labelValues(fleet)).toContainEqual({ name: 'firmware', value: '3.0', devices: 1 })
    })

    it('pages through what it finds', async () => {
      const first = await find(parseSelector('owner=bob'), 5)
      const rest = await store.selected({ fleet, selector: parseSelector('owner=bob'), now, after: first[4], limit: 1000 })
      expect([...first, ...rest.map(row => row.id)]).toEqual(await find(parseSelector('owner=bob')))
    })

    it('gives packed keys in ascending order', async () => {
      const keys = unpackNumbers((await store.freeze({ fleet, selector: [], now, radius })).devices)
      expect([...keys]).toEqual([...keys].sort((a, b) => a - b))
    })
  })
}
