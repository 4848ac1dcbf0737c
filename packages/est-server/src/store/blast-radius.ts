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

interface Combination {
  gids: number[]
  sites: string[]
  owners: string[]
  isGateway: boolean
  count: number
}

const hour = 3600
const day = 24 * hour

export function createSelectionCount(query: FreezeQuery, groups: GroupTotal[], labels: LabelTotal[]) {
  const { radius: asked, now } = query
  const groupNames = new Map(groups.map(group => [group.gid, nameAndValue(group.name)]))
  const labelNames = new Map(labels.map(label => [label.number, label]))
  const combinations = new Map<string, Combination>()
  const keys: number[] = []
  const certificates: number[] = []
  const ids = createHash('sha256')
  let pending: string[] = []
  let enrolled = 0
  const lastSeen = { hour: 0, day: 0, week: 0, month: 0, older: 0, never: 0 }

  function combinationOf(gidsText: string, lidsText: string): Combination {
    const name = `${gidsText} ${lidsText}`
    let known = combinations.get(name)
    if (known === undefined) {
      const gids = numbersOf(gidsText)
      const names = [
        ...gids.flatMap(gid => groupNames.get(gid) ?? []),
        ...numbersOf(lidsText).flatMap(lid => labelNames.get(lid) ?? []),
      ]
      const valuesOf = (wanted: string) => [...new Set(names.filter(one => one.name === wanted).map(one => one.value))]
      known = {
        gids,
        sites: valuesOf(asked.site),
        owners: valuesOf(asked.owner),
        isGateway: valuesOf(asked.gateway.name).includes(asked.gateway.value),
        count: 0,
      }
      combinations.set(name, known)
    }
    return known
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

  /** How many of the counted devices each name has. */
  function tally(namesOf: (combination: Combination) => readonly (string | number)[]): Map<string | number, number> {
    const counts = new Map<string | number, number>()
    for (const one of combinations.values()) for (const name of namesOf(one)) counts.set(name, (counts.get(name) ?? 0) + one.count)
    return counts
  }

  /** Of the fleet, by name and value, over groups and labels. */
  function totalOf(name: string, value: string): number {
    const group = groups.find(one => one.name === (value === '' ? name : `${name}=${value}`))
    const label = labels.find(one => one.name === name && one.value === value)
    return (group?.devices ?? 0) + (label?.devices ?? 0)
  }

  return {
    /** In ascending order of ids. */
    add(row: SelectedRow): void {
      keys.push(row.key)
      combinationOf(row.gids, row.lids).count++
      seen(row.seenAt)
      if (row.enrolled) enrolled++
      pending.push(row.id)
      if (pending.length === 4096) flush()
    },
    /** Of one of the devices. */
    addCertificate: (idx: number) => void certificates.push(idx),
    /** `gateways`: every gateway of the fleet's sites, as rows of the same kind. */
    finish(rest: {
      fleetDevices: number
      issuedThrough: number
      gateways: readonly Pick<SelectedRow, 'gids' | 'lids'>[]
    }): FrozenSelection {
      flush()
      const count = keys.length
      const devices = ascending(keys)
      const byGid = tally(one => one.gids)
      const affectedGroups = groups
        .filter(group => byGid.has(group.gid))
        .map(group => ({ name: group.name, selected: byGid.get(group.gid) ?? 0, devices: group.devices }))
      const wholeGroups = groups.filter(group => group.devices > 0 && byGid.get(group.gid) === group.devices)
      const bySite = tally(one => one.sites)
      const affected = (counts: Map<string | number, number>, name: string): Affected[] =>
        [...counts].map(([value, selected]) => ({ name: String(value), selected, devices: totalOf(name, String(value)) }))
      const owners = affected(
        tally(one => one.owners),
        asked.owner,
      )
      const sites = affected(bySite, asked.site)
      const selectedGateways = tally(one => (one.isGateway ? one.sites : []))
      // Read before the counts of the combinations are added to: these rows are not selected.
      const allGateways = new Map<string, number>()
      for (const row of rest.gateways)
        for (const site of combinationOf(row.gids, row.lids).sites) allGateways.set(site, (allGateways.get(site) ?? 0) + 1)
      const soleGateways = [...selectedGateways]
        .filter(([site, selected]) => selected >= (allGateways.get(String(site)) ?? 0))
        .map(([site, gateways]) => ({ site: String(site), gateways, devices: totalOf(asked.site, String(site)) }))
        .sort((a, b) => b.devices - a.devices)
      const radius: BlastRadius = {
        ...{ known: count - enrolled, enrolled, fleetDevices: rest.fleetDevices, lastSeen },
        ...{ groups: largest(affectedGroups), groupCount: affectedGroups.length },
        ...{ sites: largest(sites), siteCount: sites.length, owners: largest(owners), ownerCount: owners.length },
        ...{ soleGateways: soleGateways.slice(0, radiusRowsMax), soleGatewayCount: soleGateways.length },
      }
      const packedCertificates = packNumbers(ascending(certificates))
      return {
        ...{ count, devices: packNumbers(devices), certificates: packedCertificates, certificateCount: certificates.length },
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
