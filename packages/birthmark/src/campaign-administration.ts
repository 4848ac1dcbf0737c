// What an operator can ask about many devices at once: labels, selections, campaigns, and who is to confirm them. Shapes only, shared by the socket, its client and the
// commands; docs/campaigns.md says what each is for.

import {
  type CampaignPlan,
  type CampaignState,
  type ConsumerAnswer,
  labelChangesMax,
  type Receipt,
  type Word,
} from '@birthmark/est-server'
import { z } from 'zod'
import type { DevicePage } from './administration.ts'

/** How far a campaign has come. Times are seconds since 1970, null for not yet. */
export interface CampaignStages {
  planned: number
  submitted: number | null
  /**
   * Denied at every process of this server: enrollment, renewal, the embedded broker. `devices` have a certificate; those that have none, or none any
   * more, are counted apart here and below: there is nothing to block and nothing to name in a notice, and enrollment refuses them.
   */
  blocked: { at: number; devices: number; withoutCertificate: number; online: number | null; sessionsCut: number | null } | null
  revoked: { at: number; seq: number; certificates: number } | null
  /** Notices of the campaign that the broker has not confirmed; null before there are any. */
  undelivered: number | null
  /**
   * Relying parties that have said that the notice is in force there, of those that the configuration names and those that have said so of any notice
   * since the server started, or whose word the broker keeps. `missing`: up to 20 of the others by name.
   */
  relyingParties: { confirmed: number; of: number; missing: string[] } | null
  /** Devices with a certificate that came back since and were told no; the others are blocked and have not been heard of. */
  told: number
  blockedNotAcked: number
  /** What lists and OCSP answers say about its certificates, asked once it is carried out. */
  standardConsumers: ConsumerStage
}

/** `waiting`: it is not carried out, or they are being asked. `unavailable`: a list cannot be had now. That, and what isProven denies, is asked again. */
export type ConsumerStage = { kind: 'not offered' } | { kind: 'waiting' } | ConsumerAnswer

/** Somebody who confirms notices. */
export interface RelyingPartyView {
  name: string
  /** The configuration names it. */
  configured: boolean
  /** The newest notice that it has in force, and since when (seconds since 1970); null where it has said nothing. */
  seq: number | null
  appliedAt: number | null
}

export interface CampaignView {
  id: string
  state: CampaignState
  planSha256: string
  plan: CampaignPlan
  windowEndsAt: number | null
  words: Word[]
  stages: CampaignStages
  undone: string | null
}

const Id = z.string().regex(/^[0-9a-f]{16}$/, 'is the 16 digits that birthmark revoke list shows')
const By = z.string().min(1).max(64)
const Reason = z.string().min(1).max(200)
const Signature = z.string().max(200).nullable().default(null)
const Hash = z.string().regex(/^[0-9a-f]{64}$/, 'is the plan’s SHA-256')

export const CampaignPlanInput = z.strictObject({
  select: z.string().max(4096),
  reason: Reason,
  windowSeconds: z.int().min(0).nullable().default(null),
  by: By,
})
export const CampaignWordInput = z.strictObject({ id: Id, planSha256: Hash, by: By, signature: Signature })
export const CampaignUndoInput = CampaignWordInput.extend({ reason: Reason })
export const CampaignIdInput = z.strictObject({ id: Id })
export const CampaignDevicesInput = z.strictObject({ id: Id, after: z.coerce.number().int().min(-1).default(-1) })
export const CampaignListInput = z.strictObject({ limit: z.coerce.number().int().min(1).max(100).default(20) })
export const SelectionInput = z.strictObject({
  select: z.string().max(4096),
  after: z.string().max(64).default(''),
  limit: z.coerce.number().int().min(1).max(1000).default(100),
})
export const RelyingPartyInput = z.strictObject({ name: z.string().min(1).max(64) })
const LabelName = z.string().min(1).max(63)
export const LabelsInput = z.strictObject({
  changes: z
    .array(
      z.strictObject({
        id: z.string().min(1).max(64),
        set: z.record(LabelName, z.string().min(1).max(64)).default({}),
        unset: z.array(LabelName).max(64).default([]),
      }),
    )
    .min(1)
    .max(labelChangesMax),
})

export interface CampaignAdministration {
  planCampaign(request: z.infer<typeof CampaignPlanInput>): Promise<CampaignView>
  submitCampaign(request: z.infer<typeof CampaignWordInput>): Promise<CampaignView>
  approveCampaign(request: z.infer<typeof CampaignWordInput>): Promise<CampaignView>
  undoCampaign(request: z.infer<typeof CampaignUndoInput>): Promise<CampaignView>
  campaign(request: z.infer<typeof CampaignIdInput>): Promise<CampaignView>
  campaigns(request: z.infer<typeof CampaignListInput>): Promise<{ campaigns: CampaignView[] }>
  /** Ids of what it has frozen; `next` to go on after, null at the end. */
  campaignDevices(request: z.infer<typeof CampaignDevicesInput>): Promise<{ ids: string[]; next: number | null }>
  /** Refused before it was carried out. */
  campaignReceipt(request: z.infer<typeof CampaignIdInput>): Promise<Receipt>
  selectDevices(request: z.infer<typeof SelectionInput>): Promise<DevicePage>
  labelDevices(
    request: z.infer<typeof LabelsInput>,
  ): Promise<{ changed: number; unchanged: number; refused: { id: string; reason: string }[] }>
  /** `newest`: the number of the newest notice, 0 for none. */
  relyingParties(): Promise<{ newest: number; relyingParties: RelyingPartyView[] }>
  /** Takes back what a retired relying party has said, so that it is waited for no more. Refuses for one that the configuration names. */
  forgetRelyingParty(request: z.infer<typeof RelyingPartyInput>): Promise<{ name: string }>
  labels(): Promise<{ labels: { name: string; value: string; devices: number }[] }>
}
