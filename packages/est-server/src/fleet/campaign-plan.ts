// A campaign's plan: what is asked for, frozen, with what it stands for. Its hash is what people sign, and everybody can compute it from the file:
// SHA-256 over the JSON with keys in order and no spaces (RFC 8785; a plan holds whole numbers and texts only).

import { createHash } from 'node:crypto'
import { type Bytes, hexOf } from '@birthmark/device-sdk/core'
import { EstServerError } from '../errors.ts'
import type { BlastRadius } from '../store/selection.ts'

export const planFormat = 'birthmark-campaign-plan/1'

export interface CampaignPlan {
  format: typeof planFormat
  fleet: string
  /** As selectorText writes it; '' for every device. */
  select: string
  reason: string
  /** Seconds since 1970. */
  createdAt: number
  /** Nobody can submit or approve it from then on. */
  expiresAt: number
  /** How long it can be undone once it is in force. */
  windowSeconds: number
  /** `sha256`: over the ids in ascending order, a line feed behind each. */
  devices: { count: number; sha256: string }
  certificates: number
  /** Of those devices, connected to this server's broker when it was planned; null where that is another broker. */
  online: number | null
  /** A selection that is exactly a group is revoked by its name, in a few bytes; every other by its certificates. */
  rule: { kind: 'group'; group: string } | { kind: 'certificates' }
  approvalNeeded: boolean
  radius: BlastRadius
}

/** From which size on a second person has to approve. */
export interface ApprovalThreshold {
  /** More devices than this. */
  devices: number
  /** Or more than this part of the fleet, 0 to 1. */
  share: number
}

/** Below it one person is enough whatever the share: a tenth of a small fleet is a handful. */
export const alwaysOnePerson = 25

export function needsApproval(devices: number, fleetDevices: number, threshold: ApprovalThreshold | null): boolean {
  if (threshold === null) return false
  return devices > Math.min(threshold.devices, Math.max(alwaysOnePerson, Math.floor(threshold.share * fleetDevices)))
}

/** RFC 8785 for what a plan may hold. Throws a TypeError for anything else. */
export function canonicalJson(value: unknown): string {
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return JSON.stringify(value)
  if (typeof value === 'number' && Number.isSafeInteger(value)) return String(value)
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`
  if (typeof value !== 'object') throw new TypeError(`a plan holds no ${typeof value}`)
  const fields = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return `{${fields.map(([name, content]) => `${JSON.stringify(name)}:${canonicalJson(content)}`).join(',')}}`
}

export function planSha256(text: string): Bytes {
  return new Uint8Array(createHash('sha256').update(text).digest())
}

/** 64 bits of the hash: enough to name one plan of the few that stand, and short enough to be typed. */
export function campaignId(sha256: Bytes): string {
  return hexOf(sha256).slice(0, 16)
}

/** A plan as a file holds it. Throws `plan_changed` for a file that is no plan, or not the one it says. */
export function readPlanFile(text: string): { plan: CampaignPlan; text: string; sha256: Bytes; id: string } {
  const wrong = (what: string) => new EstServerError('plan_changed', what)
  let file: { plan?: CampaignPlan; sha256?: string }
  try {
    file = JSON.parse(text) as typeof file
  } catch {
    throw wrong('the file is no JSON')
  }
  if (typeof file !== 'object' || file === null || file.plan?.format !== planFormat)
    throw wrong('the file is no plan of a campaign')
  let canonical: string
  try {
    canonical = canonicalJson(file.plan)
  } catch (error) {
    throw wrong((error as Error).message)
  }
  const sha256 = planSha256(canonical)
  if (hexOf(sha256) !== file.sha256) throw wrong(`the file says that its plan is ${file.sha256}, and it is ${hexOf(sha256)}`)
  return { plan: file.plan, text: canonical, sha256, id: campaignId(sha256) }
}
