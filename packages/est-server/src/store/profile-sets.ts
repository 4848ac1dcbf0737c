// Which profiles a fleet is served by. Every server says at its start by which it answers; each set that was not seen before is a new
// generation, and a server of any but the newest issues nothing (FAULTS 38).

import type { Bytes } from '@birthmark/device-sdk/core'
import type { AuditEntry } from './store.ts'

export interface ProfileSet {
  fleet: string
  /** SHA-256 of the profiles (registrar/profile-set.ts). */
  hash: Bytes
  /** When, on which machine and by which version it was said first. */
  at: number
  host: string
  version: string
}

export interface ProfileGeneration extends ProfileSet {
  /** From 1, one more for each. */
  generation: number
}

export interface ProfileSetStore {
  /** Null while no server has said anything. */
  newestProfiles(fleet: string): Promise<ProfileGeneration | null>
  /**
   * Makes a set that the fleet has not had the newest generation, with its audit record. The newest one stays as it is. One that was
   * superseded becomes the newest again only where `again` says so: a server that merely restarts with an old file must not take the fleet
   * back to it. Answers the newest generation then, whose hash says whether it is this one.
   */
  announceProfiles(set: ProfileSet, again: boolean, audit: AuditEntry): Promise<ProfileGeneration>
}
