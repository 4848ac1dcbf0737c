// How many certificates one device gets in a time. A device whose clock or storage is broken renews in a loop, each time with a signature, two
// commits and a record that stays for good: beyond its budget it is told when to come again. Equal requests are not counted, since they make
// no certificate. Each process keeps its own account of its part, in memory: a restart fills it.

import { recentlyUsed } from './node-crypto.ts'
import type { Clock } from './ports.ts'
import { shareOf } from './process-share.ts'

// 64 at once, more than any test bench or reset does, then one a minute: a device with the shortest life there is (10 minutes) renews in seven.
const burst = 64
const burstLeast = 8
const secondsPerCertificate = 60
/** Devices remembered, some 100 bytes each. One that is forgotten has its full budget again: it was not asking lately. */
const devicesMax = 32_768

/** When to come again, and whether this is the first refusal since the last taken. */
export interface OverBudget {
  retryAfterSeconds: number
  isFirst: boolean
}

export interface CertificateBudget {
  /** Null: it is within its budget, and one is taken. */
  take(device: string): OverBudget | null
}

/** `processes`: that issue from the store; each takes its part. */
export function createCertificateBudget(clock: Clock, processes = 1): CertificateBudget {
  const secondsEach = secondsPerCertificate * processes
  const creditMax = shareOf(burst, processes, burstLeast) * secondsEach
  const accounts = recentlyUsed<{ credit: number; at: number; refusing: boolean }>(devicesMax)
  return {
    take(device) {
      const now = clock.now()
      let account = accounts.get(device)
      if (account === undefined) {
        account = { credit: creditMax, at: now, refusing: false }
        accounts.set(device, account)
      }
      account.credit = Math.min(creditMax, account.credit + Math.max(0, now - account.at))
      account.at = now
      if (account.credit >= secondsEach) {
        account.credit -= secondsEach
        account.refusing = false
        return null
      }
      const isFirst = !account.refusing
      account.refusing = true
      return { retryAfterSeconds: Math.ceil(secondsEach - account.credit), isFirst }
    },
  }
}
