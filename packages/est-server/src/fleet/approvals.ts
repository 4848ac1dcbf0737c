// Approval by hand, from the deciding person's side. Who it is comes from the caller; what is decided about is the row that was shown, whose
// content never changes.

import { EstServerError } from '../errors.ts'
import { approvalSecondsMax } from '../manual-approval.ts'
import type { Clock } from '../ports.ts'
import type { ApprovalRecord, ApprovalState } from '../store/approvals.ts'
import type { Store } from '../store/store.ts'

export interface Approvals {
  /** In order of asking, those that still count. `after`: id to go on after. */
  list(query: { state?: ApprovalState; after?: number; limit: number }): Promise<ApprovalRecord[]>
  /**
   * Says yes or no; what was said before is replaced, and a certificate that was issued stays issued. `reason` is told to the device.
   * Throws `approval_unknown` for an id that is not there or has expired.
   */
  decide(decision: { id: number; approve: boolean; by: string; reason: string }): Promise<ApprovalRecord>
}

const charsMax = 200

export function createApprovals({
  store,
  fleet,
  clock,
}: {
  store: Pick<Store, 'approvals' | 'approvalById' | 'decideApproval'>
  fleet: string
  clock: Clock
}): Approvals {
  return {
    list: query => store.approvals({ ...query, fleet, now: Math.floor(clock.now()) }),
    async decide({ id, approve, by, reason }) {
      const at = Math.floor(clock.now())
      const shown = await store.approvalById(fleet, id)
      const unknown = () => new EstServerError('approval_unknown', `no request ${id} waits in fleet ${fleet}`)
      if (shown === null) throw unknown()
      const because = reason.slice(0, charsMax)
      const decided = await store.decideApproval({
        ...{ fleet, id, state: approve ? 'approved' : 'denied', by: by.slice(0, charsMax), reason: because },
        ...{ at, expiresAt: at + approvalSecondsMax },
        audit: {
          ...{
            at,
            kind: approve ? 'approval_granted' : 'approval_denied',
            requestId: shown.requestId,
            fleet,
            device: shown.deviceId,
          },
          ...{ by: by.slice(0, charsMax), code: '', detail: `request ${id}, ${shown.summary}${because ? `: ${because}` : ''}` },
        },
      })
      if (decided === null) throw unknown()
      return decided
    },
  }
}
