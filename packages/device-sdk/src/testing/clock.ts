// A clock that a test turns by hand.

import type { Clock } from '../agent/ports.ts'

export interface FakeClock extends Clock {
  /** Moves the time on, firing what falls due in order, each at its own moment. Promises that hang on a timer run between two of them. */
  advance(seconds: number): Promise<void>
  /** Sets what `now()` says without touching timers: a clock that was set, lost, or rolled back. −1: not trusted. */
  set(now: number): void
  /** Seconds until each pending timer, soonest first. */
  timers(): number[]
}

/** `start`: seconds since 1970, or −1 for a clock that does not know the time. Timers run either way. */
export function fakeClock(start: number): FakeClock {
  let now = start
  let elapsed = 0
  let timers: { at: number; callback: () => void }[] = []
  const soonest = () => timers.reduce<(typeof timers)[number] | null>((a, b) => (a && a.at <= b.at ? a : b), null)
  const pass = (seconds: number) => {
    elapsed += seconds
    if (now >= 0) now += seconds
  }
  return {
    now: () => (now < 0 ? -1 : Math.floor(now)),
    setTimer(seconds, callback) {
      const timer = { at: elapsed + seconds, callback }
      timers.push(timer)
      return () => {
        timers = timers.filter(other => other !== timer)
      }
    },
    async advance(seconds) {
      const end = elapsed + seconds
      for (let next = soonest(); next && next.at <= end; next = soonest()) {
        const timer = next
        timers = timers.filter(other => other !== timer)
        pass(timer.at - elapsed)
        timer.callback()
        await new Promise(resolve => setImmediate(resolve))
      }
      pass(end - elapsed)
    },
    set(value) {
      now = value
    },
    timers: () => timers.map(timer => timer.at - elapsed).sort((a, b) => a - b),
  }
}
