// Approval by hand, from the waiting device's side: its request is put before a person and answered `pending`; the same request posted again is
// the poll. Asking twice changes nothing. What is bounded: how many of a fleet wait, one a device, and how long a word is remembered.

import type { Bytes } from '@birthmark/device-sdk/core'
import { nameText } from '@birthmark/device-sdk/core'
import type { EnrollmentOutcome, EnrollmentRequest } from './enrollment-request.ts'
import type { Note } from './issue-certificate.ts'
import { type CertificateNames, namesText, subjectName } from './registrar/name-template.ts'
import type { EnrollmentProfile } from './registrar/profile.ts'
import type { Store } from './store/store.ts'
import { UnavailableError } from './unavailability.ts'

/** More than anybody looks through by hand; rows of less than a kilobyte. */
export const approvalsWaitingMax = 10_000
/** A month: longer than a holiday. An approval that is not collected by then was for a device that nobody has switched on. */
export const approvalSecondsMax = 30 * 86_400

/** Seconds between two polls: short while somebody may be at the desk, a quarter of the wait so far later on. */
const pollSecondsMin = 30
const pollSecondsMax = 900

export interface Waiting {
  request: EnrollmentRequest
  profile: EnrollmentProfile
  deviceId: string
  keyAlgorithm: string
  spkiSha256: Bytes
  contentSha256: Bytes
  epoch: number
  names: CertificateNames
  at: number
  note: Note
}

/** Throws UnavailableError when too many wait. */
export async function awaitApproval(store: Pick<Store, 'awaitApproval'>, w: Waiting): Promise<EnrollmentOutcome> {
  const { profile, deviceId, contentSha256, epoch, at, names, spkiSha256 } = w
  const { operation, requestId, peer } = w.request
  const also = namesText(names.alternativeNames)
  const summary = `${nameText(subjectName(names, deviceId))}${also ? `, ${also}` : ''}; ${w.keyAlgorithm} key`.slice(0, 1024)
  const detail = `${operation}, key ${Buffer.from(spkiSha256).toString('hex', 0, 8)}: waits for a person`
  const asked = await store.awaitApproval(
    {
      ...{ fleet: profile.fleet, deviceId, contentSha256, epoch, label: profile.label, operation, spkiSha256, summary },
      ...{ requestId, from: peer.address, at, expiresAt: at + approvalSecondsMax, audit: w.note('approval_asked', detail) },
    },
    approvalsWaitingMax,
  )
  if (asked.kind === 'full') throw new UnavailableError('busy', 3600, `${approvalsWaitingMax} requests wait for a person already`)
  const waited = Math.max(0, at - asked.approval.at)
  return { kind: 'pending', retryAfterSeconds: Math.min(pollSecondsMax, Math.max(pollSecondsMin, Math.floor(waited / 4))) }
}
