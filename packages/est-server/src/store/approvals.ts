// Requests that wait for a person's word, and what was said to them. Part of the store's contract: what store.ts promises of every driver holds
// here too. A row is about one request content of one device at one epoch and never becomes another's: whoever decides by its id decides
// about what was shown under it. It leaves to others who has to wait, and who may decide.

import type { Bytes } from '@birthmark/device-sdk/core'
import type { AuditEntry } from './store.ts'

export type ApprovalState = 'waiting' | 'approved' | 'denied'

export interface ApprovalRequest {
  fleet: string
  deviceId: string
  contentSha256: Bytes
  /** The issuance it asks for: an approval of an earlier one does not serve a later. */
  epoch: number
  label: string | null
  operation: string
  spkiSha256: Bytes
  /** What the certificate would say, for whoever decides. */
  summary: string
  requestId: string
  /** Address it came from. */
  from: string
  at: number
  /** From then on the row counts for nothing, whatever was said. */
  expiresAt: number
  audit: AuditEntry
}

export interface ApprovalRecord extends Omit<ApprovalRequest, 'audit'> {
  /** Grows, and is never given again. */
  id: number
  state: ApprovalState
  decidedAt: number | null
  decidedBy: string
  reason: string
}

export interface ApprovalDecision {
  fleet: string
  id: number
  state: 'approved' | 'denied'
  by: string
  reason: string
  at: number
  /** Until when it stands. */
  expiresAt: number
  audit: AuditEntry
}

export interface ApprovalQuery {
  fleet: string
  state?: ApprovalState
  /** Id to go on after. */
  after?: number
  /** Rows that have expired by then are left out. */
  now: number
  /** At most pageRowsMax. */
  limit: number
}

export interface ApprovalStore {
  /** Of this content, expired or not; null for none. */
  approval(fleet: string, deviceId: string, contentSha256: Bytes): Promise<ApprovalRecord | null>
  approvalById(fleet: string, id: number): Promise<ApprovalRecord | null>
  /** In order of their ids. */
  approvals(query: ApprovalQuery): Promise<ApprovalRecord[]>
  /**
   * Makes a request wait. One of the same content and epoch that has not expired is returned as it stands, with nothing written. Otherwise it
   * takes the place of what the device had waiting: one at a time. `full`: `waitingMax` others of the fleet wait, and nothing was written.
   */
  awaitApproval(
    request: ApprovalRequest,
    waitingMax: number,
  ): Promise<{ kind: 'recorded'; approval: ApprovalRecord } | { kind: 'full' }>
  /** Null, with nothing written: unknown, or expired by `at`. What was decided before is decided anew. */
  decideApproval(decision: ApprovalDecision): Promise<ApprovalRecord | null>
}
