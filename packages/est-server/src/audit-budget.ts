// One audit record a decision, within reason: whoever sends garbage must not be able to fill the disk with records of it. Each source (a
// device, or everybody who could not prove to be one) has a budget of records; what is beyond it is counted, and the next record of that
// source says how much was left out. A certificate's own record is not subject to this: it is written with the certificate.

import { recentlyUsed } from './node-crypto.ts'
import type { Clock, Log } from './ports.ts'
import { shareOf } from './process-share.ts'
import type { AuditEntry, Store } from './store/store.ts'

// 64 at once, then one in ten seconds: at most 8,640 records of half a kilobyte a day and source, and a burst that a test rig makes is seen whole.
const burst = 64
const burstLeast = 8
const secondsPerRecord = 10
/** Sources remembered. A fleet with more misbehaving devices than this starts each anew, with a full budget. */
const sourcesMax = 4096

interface Budget {
  records: number
  at: number
  leftOut: number
  since: number
}

export interface AuditBudget {
  /** Settles when the record is durable, or at once when it was only counted. Rejects with the store's error. */
  record(source: string, entry: AuditEntry): Promise<void>
}

export function createAuditBudget({
  store,
  clock,
  log,
  processes = 1,
}: {
  store: Pick<Store, 'appendAudit'>
  clock: Clock
  log: Log
  /** That record in this store: each takes its part. */
  processes?: number
}): AuditBudget {
  const recordsMax = shareOf(burst, processes, burstLeast)
  const budgets = recentlyUsed<Budget>(sourcesMax)
  return {
    async record(source, entry) {
      const now = clock.now()
      const b = budgets.get(source) ?? { records: recordsMax, at: now, leftOut: 0, since: now }
      budgets.set(source, b)
      b.records = Math.min(recordsMax, b.records + Math.max(0, now - b.at) / (secondsPerRecord * processes))
      b.at = now
      if (b.records < 1) {
        if (b.leftOut++ === 0) {
          b.since = now
          log.warn({ source, code: entry.code }, 'too many refusals from one source: counting instead of recording them')
        }
        return
      }
      b.records--
      const leftOut = b.leftOut
      b.leftOut = 0
      const since = leftOut > 0 ? `; ${leftOut} more since ${new Date(b.since * 1000).toISOString()} were not recorded` : ''
      try {
        await store.appendAudit({ ...entry, detail: entry.detail.slice(0, 400) + since })
      } catch (error) {
        b.leftOut += leftOut + 1
        throw error
      }
    },
  }
}
