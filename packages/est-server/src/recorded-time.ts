// The latest time that a record bears, against the clock: what a clock that runs behind the records would date, and whom it would find expired,
// cannot be relied on.

import type { Clock } from './ports.ts'
import type { Store } from './store/store.ts'
import { UnavailableError } from './unavailability.ts'

/**
 * Seconds the clock may lie behind the latest recorded time. NTP steps by milliseconds; a virtual machine that was paused or a second server
 * of this store may be off by a minute.
 */
export const clockToleranceSeconds = 120

export interface RecordedTime {
  /** Unix seconds, as the store just said it. */
  learn(latest: number): void
  /** Asks the store. */
  read(): Promise<void>
  /** Whether the clock is further behind than `clockToleranceSeconds`, by what was learned last. */
  isAhead(): boolean
  /** Asks the store anew, since an operator may have accepted the clock meanwhile; throws UnavailableError `clock_regressed` if it is still so. */
  requireClock(): Promise<void>
}

const iso = (seconds: number) => new Date(seconds * 1000).toISOString()

export function createRecordedTime(store: Pick<Store, 'lastTime'>, clock: Clock): RecordedTime {
  let latest = -1
  async function read(): Promise<void> {
    latest = await store.lastTime()
  }

  return {
    learn(time) {
      latest = time
    },
    read,
    isAhead: () => clock.now() < latest - clockToleranceSeconds,
    async requireClock() {
      await read()
      const now = clock.now()
      if (now < latest - clockToleranceSeconds)
        throw new UnavailableError('clock_regressed', 60, `the clock says ${iso(now)}, the last record is of ${iso(latest)}`)
    },
  }
}
