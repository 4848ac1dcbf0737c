// A log that strangers cannot fill. What anybody can cause (a failed handshake, a refused request) is logged within a budget; beyond it lines
// are counted, and the next one that fits says how many were left out. Lines about ourselves do not go through here.

import type { Clock, Log } from './ports.ts'
import { shareOf } from './process-share.ts'

// 200 at once, then ten a second: a misconfigured batch of devices is seen whole, and a flood writes below 300 MB a day.
const burst = 200
const burstLeast = 20
const linesPerSecond = 10

export interface BudgetedLog {
  info(fields: object, message: string): void
}

/** `clock` may be any that moves forward. `processes`: that write to the log; each takes its part. */
export function createLogBudget(log: Log, clock: Clock, processes = 1): BudgetedLog {
  const linesMax = shareOf(burst, processes, burstLeast)
  let lines = linesMax
  let at = clock.now()
  let leftOut = 0
  return {
    info(fields, message) {
      const now = clock.now()
      lines = Math.min(linesMax, lines + (Math.max(0, now - at) * linesPerSecond) / processes)
      at = now
      if (lines < 1) {
        leftOut++
        return
      }
      lines--
      log.info(leftOut > 0 ? { ...fields, leftOut } : fields, message)
      leftOut = 0
    },
  }
}
