// For what is timed and not dated: it knows no date and never goes back.

import type { TimerClock } from './ports.ts'

/** Seconds since the process began. Its timers keep no process alive. */
export const monotonicClock: TimerClock = {
  now: () => performance.now() / 1000,
  setTimer(seconds, callback) {
    const timer = setTimeout(callback, seconds * 1000).unref()
    return () => clearTimeout(timer)
  },
}
