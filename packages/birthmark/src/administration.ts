// What an operator at this machine can ask of a running server: shapes only, shared by the socket, its client and the commands.

import type { ManifestFile } from '@birthmark/factory-line'
import type { CampaignAdministration } from './campaign-administration.ts'
import type { StatusPlace } from './certificate-status.ts'
import type { ManifestProgress } from './manifest-upload.ts'
import type { ProfileAdministration } from './profile-administration.ts'
import type { RevocationReason } from './revocation-reason.ts'
import type { SingleRevocations } from './single-revocation.ts'

export interface DeviceView {
  id: string
  state: 'known' | 'enrolled' | 'revoked'
  groups: string[]
  labels: { [name: string]: string }
  /** The campaign that holds it in quarantine. */
  quarantinedBy: string | null
  keyOrigin: string
  certificate: { serial: string; idx: number; notBefore: number; notAfter: number } | null
  seenAt: number | null
}

export interface DevicePage {
  devices: DeviceView[]
  /** Where the next page starts (`after`), null at the end. */
  next: string | null
}

export interface DeviceFilter {
  id?: string
  group?: string
  state?: 'known' | 'enrolled' | 'revoked'
  after?: string
  limit: number
}

export interface ServerStatus {
  fleet: string
  development: boolean
  est: string
  mqtt: string
  /** Devices connected to the embedded broker; null with an external one. */
  sessions: number | null
  /** Notices that the broker has not confirmed yet. */
  undelivered: number
  pid: number
  /** The processes that answer devices, of how many there should be; and why none does, or null. */
  workers: { serving: number; of: number; pids: number[] }
  unready: string | null
  /** Where certificates say that their status is found; null for nowhere. */
  certificateStatus: StatusPlace | null
}

export interface ManifestOutcome {
  digest: string
  units: number
  added: number
  updated: number
  unchanged: number
  refused: { serial: string; reason: string }[]
}

export interface MintedSecret {
  device: string
  secret: string
  expiresAt: number
}

export interface MintedChallenges {
  minted: { device: string; challenge: string; expiresAt: number }[]
  refused: { device: string; reason: string }[]
}

/** What a revocation would do, and the digest that lets exactly this be carried out. */
export interface RevocationPlan {
  group: string
  devices: number
  /** Certificates of the group below this idx are revoked. */
  bound: number
  /** Closed before; carrying it out changes nothing. */
  closed: boolean
  digest: string
}

export interface RevocationReceipt {
  group: string
  seq: number
  devices: number
  noticeBytes: number
  /** Live sessions cut by the embedded broker; null with an external one. */
  sessionsCut: number | null
  connectionsClosed: number
  /** The notice itself, base64. */
  notice: string
}

/** An issuing CA. */
export interface IssuerView {
  /** Key id, hex. */
  issuer: string
  state: 'next' | 'signing' | 'previous' | 'retired'
  since: number
  /** Devices whose last certificate is of it and has not ended. */
  devices: number
  /** Null when the configuration does not have it. */
  certificate: { subject: string; keyAlgorithm: string; notBefore: number; notAfter: number } | null
}

export interface IssuerMove {
  step: 'prepare' | 'switch' | 'undo' | 'retire'
  /** Which one to retire. */
  issuer?: string
  force: boolean
  /** Only says what would be done, or why it cannot be. */
  rehearse: boolean
}

/** Seconds since 1970; `lastRecord` −1 for an empty store. */
export interface ClockView {
  now: number
  lastRecord: number
  /** The clock stands too far before the last record: nothing is issued. */
  halted: boolean
}

export interface Administration extends ProfileAdministration, CampaignAdministration, SingleRevocations {
  status(): Promise<ServerStatus>
  devices(filter: DeviceFilter): Promise<DevicePage>
  /** `file` must stay as it is until the promise settles. */
  importManifest(file: ManifestFile, onProgress?: (progress: ManifestProgress) => void): Promise<ManifestOutcome>
  mintSecret(request: { device: string; groups: string[]; minutes: number }): Promise<MintedSecret>
  /** `label`: of the profile, null for the one without. */
  mintChallenges(request: {
    label: string | null
    rows: { device: string; groups: string[] }[]
    minutes: number
  }): Promise<MintedChallenges>
  planRevocation(group: string): Promise<RevocationPlan>
  /** Refuses when the plan no longer has this digest. */
  revoke(request: {
    group: string
    digest: string
    reason: string
    code?: RevocationReason | undefined
  }): Promise<RevocationReceipt>
  clock(): Promise<ClockView>
  /** Takes the present time as right although a later record exists. */
  acceptClock(request: { reason: string }): Promise<ClockView>
  /** Refuses for an unknown device. */
  trustDevice(request: { device: string; reason: string }): Promise<{ device: string }>
  issuers(): Promise<{ issuers: IssuerView[] }>
  moveIssuers(move: IssuerMove): Promise<{ moved: string; issuers: IssuerView[] }>
}
