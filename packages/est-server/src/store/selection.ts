// Devices by what they are called: groups, of which certificates speak, and labels, which are the registry's alone. Part of the store's
// contract: what store.ts promises of every driver holds here too. A driver looks up which of its groups and label values a term means
// (chosenNames), and asks for their devices: names are few, devices many, and versions are compared in one place for all drivers.

import type { Bytes } from '@birthmark/device-sdk/core'
import type { AuditEntry, DeviceRow } from './store.ts'
import { compareVersions } from './version-order.ts'

/** One condition on one name. A device may have several groups of a name: `in` and the comparisons ask whether one fits, `notin` whether none does. */
export type Term =
  | { name: string; test: 'in' | 'notin'; values: string[] }
  | { name: string; test: 'exists' | 'absent' }
  | { name: string; test: '<' | '<=' | '>' | '>='; value: string }

/** All of them together; none means every device. */
export type Selector = Term[]

/** Names that mean what the server knows of a device: its id, and how long ago it was last issued to (an age: `seen>30d`). */
export const ownNames = ['id', 'seen'] as const

/** Labels of one device. */
export const labelsPerDeviceMax = 16
/** Different values of labels of one fleet, as for groups: a label whose value is another for each device belongs elsewhere. */
export const labelValuesMax = 65_536
/** Devices that one call labels: some 50 ms of the writer. */
export const labelChangesMax = 1000

export interface LabelChange {
  id: string
  set: { [name: string]: string }
  unset: string[]
}

export interface LabelReport {
  changed: number
  unchanged: number
  refused: { id: string; reason: string }[]
}

export interface FreezeQuery {
  fleet: string
  selector: Selector
  /** Seconds since 1970: what `seen` is counted from, and whose certificates have not ended. */
  now: number
  /** Name of the label that says where a device is, who answers for it, and by which label and value a gateway is known. */
  radius: { site: string; owner: string; gateway: { name: string; value: string } }
}

export interface Affected {
  name: string
  selected: number
  /** Of the fleet. */
  devices: number
}

/** What stands where the frozen devices do. Lists hold the largest first, at most radiusRowsMax; `…Count` says how many there are. */
export interface BlastRadius {
  /** Never had a certificate, had one, of all in the fleet. */
  known: number
  enrolled: number
  fleetDevices: number
  /** Have none that has not ended: no notice can name them, and they cannot connect; what is held against them shows at enrollment. */
  withoutCertificate: number
  groups: Affected[]
  groupCount: number
  sites: Affected[]
  siteCount: number
  owners: Affected[]
  ownerCount: number
  /** Sites of which every gateway is selected, and the devices there. */
  soleGateways: { site: string; gateways: number; devices: number }[]
  soleGatewayCount: number
  /** By how long ago they were last issued to. */
  lastSeen: { hour: number; day: number; week: number; month: number; older: number; never: number }
}

export const radiusRowsMax = 100

export interface FrozenSelection {
  count: number
  /** Row keys, packed (number-set.ts). */
  devices: Bytes
  /** Indices of their certificates that have not ended and are not void, those being made included. */
  certificates: Bytes
  certificateCount: number
  /** Keys of those that have none of these, packed; as many as radius.withoutCertificate. */
  uncertified: Bytes
  /** Where issuance stood: certificatesSince goes on from here. */
  issuedThrough: number
  /** SHA-256 over the device ids in ascending order of their bytes, a line feed behind each. */
  idsSha256: Bytes
  /** Groups all of whose devices are selected, as gids. */
  wholeGroups: { gid: number; name: string; devices: number }[]
  radius: BlastRadius
}

export interface SelectionStore {
  /** In order of their ids, of what the selector finds now. */
  selected(query: { fleet: string; selector: Selector; now: number; after: string; limit: number }): Promise<DeviceRow[]>
  /** Everything the selector finds at one instant. Takes seconds for a million devices, none of them the caller's thread's. */
  freeze(query: FreezeQuery): Promise<FrozenSelection>
  /** Packed indices of certificates of these devices (packed keys) that are not void and were begun behind `issuedThrough`; and where that stands now. */
  certificatesSince(fleet: string, devices: Bytes, issuedThrough: number): Promise<{ certificates: Bytes; issuedThrough: number }>
  /** How many of these devices (packed keys) have no certificate that has not ended, those being made included. For those that had none just now: each of them is looked up. */
  withoutCertificate(devices: Bytes, now: number): Promise<number>
  /** Ids of these devices (packed keys), of those behind the key `after`; `next`: the key to go on after, null at the end. */
  deviceIds(devices: Bytes, after: number, limit: number): Promise<{ ids: string[]; next: number | null }>
  /** Labels devices, at most labelChangesMax; a row that cannot be is reported and the others are in. */
  labelDevices(fleet: string, changes: LabelChange[], audit: AuditEntry): Promise<LabelReport>
  /** Labels in use, with how many devices each value has. */
  labelValues(fleet: string): Promise<{ name: string; value: string; devices: number }[]>
}

/** A group's name or a label as name and value: `model=gw-2`; a plain name has the value ''. */
export function nameAndValue(group: string): { name: string; value: string } {
  const at = group.indexOf('=')
  return at < 0 ? { name: group, value: '' } : { name: group.slice(0, at), value: group.slice(at + 1) }
}

export interface NumberedName {
  number: number
  name: string
  value: string
}

function fits(term: Term, value: string): boolean {
  switch (term.test) {
    case 'in':
    case 'notin':
      return term.values.includes(value)
    case 'exists':
    case 'absent':
      return true
    default: {
      const order = compareVersions(value, term.value)
      if (term.test === '<') return order < 0
      if (term.test === '<=') return order <= 0
      return term.test === '>' ? order > 0 : order >= 0
    }
  }
}

/** The numbers of what a term is about, among names of its name; and whether having one of them counts for the term or against it. */
export function chosenNames(term: Term, names: readonly NumberedName[]): { numbers: number[]; wanted: boolean } {
  return {
    numbers: names.filter(one => one.name === term.name && fits(term, one.value)).map(one => one.number),
    wanted: term.test !== 'notin' && term.test !== 'absent',
  }
}

/** The bounds on the time of the last issuance that a term on `seen` sets, in seconds since 1970. */
export function seenBounds(term: Term, now: number): { from: number | null; to: number | null; never: boolean | null } {
  const none = { from: null, to: null, never: null }
  if (term.test === 'exists') return { ...none, never: false }
  if (term.test === 'absent') return { ...none, never: true }
  if (!('value' in term)) return none
  const at = now - ageSeconds(term.value)!
  switch (term.test) {
    case '<':
      return { from: at + 1, to: null, never: false }
    case '<=':
      return { from: at, to: null, never: false }
    case '>':
      return { from: null, to: at - 1, never: false }
    default:
      return { from: null, to: at, never: false }
  }
}

/** `90s`, `15m`, `12h`, `30d` in seconds; null for anything else. */
export function ageSeconds(text: string): number | null {
  const [, digits, unit] = /^(\d{1,6})([smhd])$/.exec(text) ?? []
  return digits === undefined ? null : Number(digits) * { s: 1, m: 60, h: 3600, d: 86_400 }[unit as 's' | 'm' | 'h' | 'd']
}
