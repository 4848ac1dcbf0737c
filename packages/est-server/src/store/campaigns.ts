// Campaigns: a frozen selection of devices on its way to being revoked. Part of the store's contract: what store.ts promises of every driver
// holds here too. The store keeps what was frozen, the state, and the story so far as text; it moves a campaign only from the version that the
// caller has seen, so that nothing is carried out twice. What follows in which order is fleet/campaign.ts's business.

import type { Bytes } from '@birthmark/device-sdk/core'
import type { DeviceHold } from './quarantine.ts'
import type { AuditEntry } from './store.ts'

/**
 * `planned`: frozen, and nobody has asked for it. `submitted`: waits for a second person. `quarantined`: its devices are denied, and it can be
 * undone. `committing`: it cannot any more, and is being carried out. `committed`: revoked. `undone`: given up before that. `expired`: nobody approved in time.
 */
export type CampaignState = 'planned' | 'submitted' | 'quarantined' | 'committing' | 'committed' | 'undone' | 'expired'

/** Of plan and story: with a hundred affected groups, sites and owners each, a plan has some 30 KB. */
export const campaignTextMax = 262_144

export interface CampaignRecord {
  fleet: string
  /** The start of its plan's hash. */
  id: string
  state: CampaignState
  /** Grows with every move. */
  version: number
  /** As it was hashed. */
  plan: string
  planSha256: Bytes
  plannedAt: number
  /** In `planned` and `submitted`: from then on it counts for nothing. */
  expiresAt: number
  /** In `quarantined`: when the window closes. */
  windowEndsAt: number | null
  /** What had been issued when it was frozen, as `freeze` gives it. */
  issuedThrough: number
  /** Who said what and what became of it, JSON. */
  story: string
}

/** Packed numbers (number-set.ts). */
export interface FrozenSets {
  /** As Hold's. */
  devices: Bytes
  certificates: Bytes
  /** Those of the devices that had no certificate when they were frozen. */
  uncertified: Bytes
}

export interface NewCampaign extends Omit<CampaignRecord, 'version' | 'state' | 'windowEndsAt'>, FrozenSets {
  audit: AuditEntry
}

export interface CampaignMove {
  fleet: string
  id: string
  /** That the caller has seen. */
  version: number
  state: CampaignState
  story: string
  windowEndsAt: number | null
  /** In the place of what was frozen, where given. */
  devices?: Bytes
  certificates?: Bytes
  issuedThrough?: number
  /** Seconds since 1970. */
  at: number
  /** None for what is not worth a record: progress. */
  audit: AuditEntry | null
}

export interface CampaignQuery {
  fleet: string
  states?: CampaignState[]
  id?: string
  /** The newest first, at most pageRowsMax. */
  limit: number
}

export interface CampaignStore {
  campaigns(query: CampaignQuery): Promise<CampaignRecord[]>
  /** What it has frozen; null for an unknown one. */
  campaignSets(fleet: string, id: string): Promise<FrozenSets | null>
  /** Forgets plans of the fleet that have expired. `known`: it is there already. `full`: `plansMax` others are planned. Neither wrote anything else. */
  recordCampaign(campaign: NewCampaign, plansMax: number): Promise<'recorded' | 'known' | 'full'>
  /** `conflict`: it is at another version, or unknown; nothing was written. A hold begins, changes or ends with the state. */
  moveCampaign(move: CampaignMove): Promise<'moved' | 'conflict'>
}

/** What a campaign in this state makes of its devices. */
export function holdOf(state: CampaignState): DeviceHold | null {
  return state === 'quarantined' || state === 'committing' ? 'quarantined' : null
}

export function requireText(...texts: string[]): void {
  for (const text of texts)
    if (text.length > campaignTextMax)
      throw new TypeError(`a campaign's text has ${text.length} characters, more than ${campaignTextMax}`)
}
