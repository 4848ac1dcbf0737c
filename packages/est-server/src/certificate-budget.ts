// How many certificates one device gets in a time. A device whose clock or storage is broken renews in a loop, each time with a signature, two
// commits and a record that stays for good: beyond its budget it is told when to come again. What is counted is that the issuer's key is asked,
// or would have been, had the last look not stopped what was made for it: an equal request makes no certificate, and neither does one that fails
// before, at a store or an issuer that is away. Each process keeps its own account of its part, in memory: a restart fills it.

import { recentlyUsed } from './node-crypto.ts'
import type { Clock } from './ports.ts'
import { shareOf } from './process-share.ts'

// 64 at once, more than any test bench or reset does, then one a minute: a device with the shortest life there is (10 minutes) renews in seven.
const burst = 64
const burstLeast = 8
const secondsPerCertificate = 60
/** Devices remembered, some 100 bytes each. One that is forgotten has its full budget again: it was not asking lately. */
const devicesMax = 32_768

/** When to come again, and whether this is the first refusal since the device was last within its budget. */
export interface OverBudget {
  retryAfterSeconds: number
  isFirst: boolean
}

/** Of one device's requests, which take turns: who is within its budget is so until it spends. */
export interface CertificateBudget {
  /** Null: one more is within the device's budget. */
  over(device: string): OverBudget | null
  /** Whatever becomes of what was made for it. */
  spend(device: string): void
}

/** `processes`: that issue from the store; each takes its part. */
export function createCertificateBudget(clock: Clock, processes = 1): CertificateBudget {
  const secondsEach = secondsPerCertificate * processes
  const creditMax = shareOf(burst, processes, burstLeast) * secondsEach
  const accounts = recentlyUsed<{ credit: number; at: number; refusing: boolean }>(devicesMax)

  function accountOf(device: string) {
    const now = clock.now()
    let account = accounts.get(device)
    if (account === undefined) {
      account = { credit: creditMax, at: now, refusing: false }
      accounts.set(device, account)
    }
    account.credit = Math.min(creditMax, account.credit + Math.max(0, now - account.at))
    account.at = now
    return account
  }

  return {
    over(device) {
      const account = accountOf(device)
      const isFirst = !account.refusing
      account.refusing = account.credit < secondsEach
      return account.refusing ? { retryAfterSeconds: Math.ceil(secondsEach - account.credit), isFirst } : null
    },
    spend(device) {
      accountOf(device).credit -= secondsEach
    },
  }
}
