// Who is held back by a campaign: denied for now, reversibly, until its window closes. Part of the store's contract: what store.ts promises of every
// driver holds here too.
//
// A hold is a set, not a row per device: putting a quarter of a million devices under quarantine is one small write, in force for every
// process of the store from its commit on. From then on no intent of a held device is recorded (`conflict` on `device`), and its facts say so.

import type { Bytes } from '@birthmark/device-sdk/core'
import { type NumberSet, numberSet, unpackNumbers } from './number-set.ts'

export type DeviceHold = 'quarantined'

export interface Hold {
  campaign: string
  since: number
  /** When the window closes, for people: it holds until it is lifted or carried out. */
  until: number | null
  /** Row keys, packed. */
  devices: Bytes
  /** Indices of the certificates that the devices have, packed: by these brokers know them. */
  certificates: Bytes
}

/** Of one device. */
export interface DeviceQuarantine {
  campaign: string
  since: number
  until: number | null
}

export interface QuarantineStore {
  /** Grows with every change of a hold, of whichever fleet. */
  holdsVersion(): Promise<number>
  /** All of the fleet. */
  holds(fleet: string): Promise<Hold[]>
  /** Null for a device that is in no quarantine, and for one that is not known. */
  quarantine(fleet: string, deviceId: string): Promise<DeviceQuarantine | null>
}

/** Of every campaign that holds something, for both drivers. */
export const holdsSql = `SELECT c.fleet, c.id AS campaign, c.held_since AS since, c.window_ends_at AS until, s.devices, s.certificates
  FROM campaigns c JOIN campaign_sets s ON s.fleet = c.fleet AND s.id = c.id WHERE c.state IN ('quarantined', 'committing')`

/** Holds of all fleets, for questions. */
export interface HoldsOfFleets {
  of(fleet: string, deviceKey: number): DeviceHold | null
  /** The campaign that has the device in quarantine. */
  campaignOf(fleet: string, deviceKey: number): string | null
}

export function holdsIn(holds: readonly (Pick<Hold, 'campaign' | 'devices'> & { fleet: string })[]): HoldsOfFleets {
  const sets: { fleet: string; campaign: string; devices: NumberSet }[] = holds.map(hold => ({
    ...{ fleet: hold.fleet, campaign: hold.campaign },
    devices: numberSet(unpackNumbers(hold.devices)),
  }))
  const campaignOf = (fleet: string, key: number) => sets.find(set => set.fleet === fleet && set.devices.has(key))?.campaign ?? null
  return { campaignOf, of: (fleet, key) => (campaignOf(fleet, key) === null ? null : 'quarantined') }
}
