// What a selection stands for, counted row by row as a driver reads it: groups, sites, owners, gateways that are the last of their site, and
// when devices were last issued to. A fleet of a million has few different combinations of groups and labels, so the names of a combination
// are looked up once.

import { createHash } from 'node:crypto'
import type { Bytes } from '@birthmark/device-sdk/core'
import { packNumbers } from './number-set.ts'
import {
  type Affected,
  type BlastRadius,
  type FreezeQuery,
  type FrozenSelection,
  type NumberedName,
  nameAndValue,
  radiusRowsMax,
} from './selection.ts'

export interface SelectedRow {
  key: number
  id: string
  /** Numbers of its groups and labels, as they stand in the row. */
  gids: string
  lids: string
  seenAt: number | null
  enrolled: boolean
}

export interface GroupTotal {
  gid: number
  name: string
  devices: number
}

export interface LabelTotal extends NumberedName {
  devices: number
}

/** What a device's groups, or its labels, say of it. */
interface Called {
  numbers: number[]
  sites: string[]
  owners: string[]
  isGateway: boolean
  count: number
}

const hour = 3600
const day = 24 * hour

export function createSelectionCount(query: FreezeQuery, groups: GroupTotal[], labels: LabelTotal[]) {
  const { radius: asked, now } = query
  const groupNames = new Map<number, { name: string; value: string }>(groups.map(group => [group.gid, nameAndValue(group.name)]))
  const labelNames = new Map<number, { name: string; value: string }>(labels.map(label => [label.number, label]))
  // Apart: a fleet has few different sets of groups and of labels, and as many pairs of them as devices.
  const calledByGroups = new Map<string, Called>()
  const calledByLabels = new Map<string, Called>()
  const bySite = new Map<string, number>()
  const byOwner = new Map<string, number>()
  const selectedGateways = new Map<string, number>()
  const keys: number[] = []
  const certificates: number[] = []
  const ids = createHash('sha256')
  let pending: string[] = []
  let enrolled = 0
  const uncertified: number[] = []
  const lastSeen = { hour: 0, day: 0, week: 0, month: 0, older: 0, never: 0 }

  function calledOf(known: Map<string, Called>, names: Map<number, { name: string; value: string }>, text: string): Called {
    let called = known.get(text)
    if (called === undefined) {
      const numbers = numbersOf(text)
      const own = numbers.flatMap(number => names.get(number) ?? [])
      const valuesOf = (wanted: string) => [...new Set(own.filter(one => one.name === wanted).map(one => one.value))]
      const isGateway = valuesOf(asked.gateway.name).includes(asked.gateway.value)
      called = { numbers, sites: valuesOf(asked.site), owners: valuesOf(asked.owner), isGateway, count: 0 }
      known.set(text, called)
    }
    return called
  }

  function sitesAndGateway(row: Pick<SelectedRow, 'gids' | 'lids'>) {
    const byGroups = calledOf(calledByGroups, groupNames, row.gids)
    const byLabels = calledOf(calledByLabels, labelNames, row.lids)
    return {
      ...{ byGroups, byLabels, sites: either(byGroups.sites, byLabels.sites), owners: either(byGroups.owners, byLabels.owners) },
      isGateway: byGroups.isGateway || byLabels.isGateway,
    }
  }

  function seen(at: number | null): void {
    const age = at === null ? null : now - at
    if (age === null) lastSeen.never++
    else if (age < hour) lastSeen.hour++
    else if (age < day) lastSeen.day++
    else if (age < 7 * day) lastSeen.week++
    else if (age < 30 * day) lastSeen.month++
    else lastSeen.older++
  }

  return {
    /** In ascending order of ids. */
    add(row: SelectedRow): void {
      keys.push(row.key)
      // Until it turns out to have one.
      uncertified.push(row.key)
      const { byGroups, sites, owners, isGateway } = sitesAndGateway(row)
      byGroups.count++
      for (const site of sites) increase(bySite, site)
      for (const owner of owners) increase(byOwner, owner)
      if (isGateway) for (const site of sites) increase(selectedGateways, site)
      seen(row.seenAt)
      if (row.enrolled) enrolled++
      pending.push(row.id)
      if (pending.length === 4096) flush()
    },
    /** Of the device that was added last. */
    addCertificate(idx: number): void {
      certificates.push(idx)
      if (uncertified.at(-1) === keys.at(-1)) uncertified.pop()
    },
    /** `gateways`: every gateway of the fleet's sites, as rows of the same kind. */
    finish(rest: {
      fleetDevices: number
      issuedThrough: number
      gateways: readonly Pick<SelectedRow, 'gids' | 'lids'>[]
    }): FrozenSelection {
      flush()
      const count = keys.length
      const devices = ascending(keys)
      const byGid = new Map<number, number>()
      for (const { numbers, count } of calledByGroups.values()) for (const gid of numbers) increase(byGid, gid, count)
      const affectedGroups = groups
        .filter(group => (byGid.get(group.gid) ?? 0) > 0)
        .map(group => ({ name: group.name, selected: byGid.get(group.gid) ?? 0, devices: group.devices }))
      const wholeGroups = groups.filter(group => group.devices > 0 && byGid.get(group.gid) === group.devices)
      const totals = totalsOf(groups, labels, [asked.site, asked.owner])
      const affected = (counts: Map<string, number>, name: string): Affected[] =>
        [...counts].map(([value, selected]) => ({ name: value, selected, devices: totals.get(`${name}=${value}`) ?? 0 }))
      const owners = affected(byOwner, asked.owner)
      const sites = affected(bySite, asked.site)
      const allGateways = new Map<string, number>()
      for (const row of rest.gateways) for (const site of sitesAndGateway(row).sites) increase(allGateways, site)
      const soleGateways = [...selectedGateways]
        .filter(([site, selected]) => selected >= (allGateways.get(site) ?? 0))
        .map(([site, gateways]) => ({ site, gateways, devices: totals.get(`${asked.site}=${site}`) ?? 0 }))
        .sort((a, b) => b.devices - a.devices)
      const radius: BlastRadius = {
        ...{ known: count - enrolled, enrolled, fleetDevices: rest.fleetDevices, withoutCertificate: uncertified.length, lastSeen },
        ...{ groups: largest(affectedGroups), groupCount: affectedGroups.length },
        ...{ sites: largest(sites), siteCount: sites.length, owners: largest(owners), ownerCount: owners.length },
        ...{ soleGateways: soleGateways.slice(0, radiusRowsMax), soleGatewayCount: soleGateways.length },
      }
      const packedCertificates = packNumbers(ascending(certificates))
      return {
        ...{ count, devices: packNumbers(devices), certificates: packedCertificates, certificateCount: certificates.length },
        uncertified: packNumbers(ascending(uncertified)),
        ...{ issuedThrough: rest.issuedThrough, idsSha256: new Uint8Array(ids.digest()), radius },
        wholeGroups: wholeGroups.map(({ gid, name, devices }) => ({ gid, name, devices })),
      }
    },
  }

  function flush(): void {
    if (pending.length > 0) ids.update(`${pending.join('\n')}\n`)
    pending = []
  }
}

export type SelectionCount = ReturnType<typeof createSelectionCount>

function increase<Name>(counts: Map<Name, number>, name: Name, by = 1): void {
  counts.set(name, (counts.get(name) ?? 0) + by)
}

/** Both say it rarely; then each name counts once. */
function either(a: string[], b: string[]): string[] {
  if (a.length === 0) return b
  return b.length === 0 ? a : [...new Set([...a, ...b])]
}

/** Devices of the fleet that have these names, by `name=value`, over groups and labels. */
function totalsOf(groups: GroupTotal[], labels: LabelTotal[], names: string[]): Map<string, number> {
  const totals = new Map<string, number>()
  const values = [...groups.map(group => ({ ...nameAndValue(group.name), devices: group.devices })), ...labels]
  for (const { name, value, devices } of values) if (names.includes(name)) increase(totals, `${name}=${value}`, devices)
  return totals
}

/** `[1,2]` as SQLite keeps it, `{1,2}` as PostgreSQL writes it. */
function numbersOf(text: string): number[] {
  return text.length <= 2 ? [] : text.slice(1, -1).split(',').map(Number)
}

function ascending(numbers: number[]): Uint32Array {
  return Uint32Array.from(numbers).sort()
}

function largest(rows: Affected[]): Affected[] {
  return rows.sort((a, b) => b.selected - a.selected || (a.name < b.name ? -1 : 1)).slice(0, radiusRowsMax)
}

/** For a receipt: what a list of ids in ascending order hashes to. */
export function idsSha256(ids: Iterable<string>): Bytes {
  const hash = createHash('sha256')
  for (const id of ids) hash.update(`${id}\n`)
  return new Uint8Array(hash.digest())
}
