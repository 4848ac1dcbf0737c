// What a campaign leaves behind: a signed statement that says what was planned, who agreed, what was revoked by which notices, and how far it had
// come. It is checked without the server: with the notice key's public half, which every device has, and the people's.

import { verify } from 'node:crypto'
import { type Bytes, hexOf } from '@birthmark/device-sdk/core'
import type { ConsumerAnswer } from '../consumer-proof.ts'
import { type CampaignPlan, canonicalJson, planSha256 } from './campaign-plan.ts'
import { keyName, type Person, verifyWord, type Word } from './campaign-words.ts'

export const receiptFormat = 'birthmark-campaign-receipt/1'

export interface ReceiptBody {
  format: typeof receiptFormat
  id: string
  planSha256: string
  plan: CampaignPlan
  words: Word[]
  /** Public keys of those who signed, base64 DER. */
  people: { name: string; spki: string }[]
  at: { submitted: number; quarantined: number; committed: number }
  /** SHA-256 as a notice is known by; `notice` itself in base64, or '' where there is no room for all. */
  notices: { seq: number; sha256: string; notice: string }[]
  /** `withoutCertificate`: of the devices, those that no notice can name; they are refused at enrollment. */
  revoked: { devices: number; certificates: number; withoutCertificate: number }
  /** At `asOf`. Devices with a certificate that have been told no since; the others of them are blocked and have not been heard of. */
  progress: { asOf: number; sessionsCut: number | null; told: number; blockedNotAcked: number }
  /** What CRLs and OCSP answers said about its certificates when they were asked. */
  standardConsumers: { kind: 'not offered' } | { kind: 'waiting' } | ConsumerAnswer
  /** Where the audit record stood when it was carried out: everything before is covered by that hash. */
  audit: { n: number; hash: string }
}

export interface Receipt {
  body: ReceiptBody
  /** ECDSA P-256 with SHA-256 in DER by the notice key, base64, over receiptBytes. */
  signature: string
}

/** No COSE structure begins like this, so a receipt is never taken for a notice. */
export function receiptBytes(body: ReceiptBody): Bytes {
  return new TextEncoder().encode(`birthmark receipt 1\n${canonicalJson(body)}`)
}

/**
 * What is wrong with a receipt, empty for a sound one. `noticeKeys`: DER SubjectPublicKeyInfo. `people`: whom the reader knows; null takes those that
 * the receipt names at their word, which proves that somebody with these keys agreed. Notices are the caller's to verify.
 */
export function receiptProblems(receipt: Receipt, noticeKeys: readonly Bytes[], people: readonly Person[] | null): string[] {
  const { body, signature } = receipt
  if (body?.format !== receiptFormat) return ['it is no receipt of a campaign']
  const problems: string[] = []
  const bytes = receiptBytes(body)
  const signed = noticeKeys.some(key => isSignedBy(key, bytes, signature))
  if (!signed) problems.push('no notice key that is known here signed it')
  const sha256 = planSha256(canonicalJson(body.plan))
  if (hexOf(sha256) !== body.planSha256) problems.push('the plan is not the one that its hash names')
  const known = people ?? body.people.map(({ name, spki }) => ({ name, spki: new Uint8Array(Buffer.from(spki, 'base64')) }))
  for (const word of body.words) {
    if (word.key === null) continue
    const person = known.find(one => one.name === word.by && keyName(one.spki) === word.key)
    if (!person) problems.push(`${word.by}, who said ${word.what}, is not known here`)
    else if (!verifyWord(person.spki, word.signature ?? '', word.what, body.plan.fleet, sha256, word.by))
      problems.push(`${word.by} did not sign "${word.what}" for this plan`)
  }
  const submitted = body.words.find(word => word.what === 'submit')
  const approved = body.words.find(word => word.what === 'approve')
  if (
    body.plan.approvalNeeded &&
    (!approved || approved.key === null || approved.key === submitted?.key || approved.by === submitted?.by)
  )
    problems.push('it needed a second person, and none approved it')
  return problems
}

/** False for a key of another kind, and for a signature that is none. */
function isSignedBy(spki: Bytes, bytes: Bytes, signature: string): boolean {
  try {
    return verify('sha256', bytes, { key: Buffer.from(spki), format: 'der', type: 'spki' }, Buffer.from(signature, 'base64'))
  } catch {
    return false
  }
}
