// A clock that stands still until it is told to go on.

import type { Clock } from '../ports.ts'

export interface ManualClock extends Clock {
  /** Moves the time and runs what falls due on the way, letting promises settle in between. */
  advance(seconds: number): Promise<void>
  /** Sets the time without running anything: a clock that was corrected. */
  set(now: number): void
}

export function settle(turns = 5): Promise<void> {
  return turns === 0 ? Promise.resolve() : new Promise(resolve => setImmediate(() => resolve(settle(turns - 1))))
}

export function createManualClock(start: number): ManualClock {
  let now = start
  let timers: { at: number; run: () => void }[] = []
  return {
    now: () => now,
    setTimer: (seconds, run) => {
      const timer = { at: now + seconds, run }
      timers.push(timer)
      return () => {
        timers = timers.filter(other => other !== timer)
      }
    },
    set: time => {
      now = time
    },
    advance: async seconds => {
      const end = now + seconds
      for (;;) {
        const next = timers.filter(timer => timer.at <= end).sort((a, b) => a.at - b.at)[0]
        if (!next) break
        timers = timers.filter(timer => timer !== next)
        now = Math.max(now, next.at)
        next.run()
        await settle()
      }
      now = end
      await settle()
    },
  }
}
