// The system's clock. Node has no notion of a clock that was never set; a time before the SDK's own build is told apart by the agent's floor.

import type { Clock } from '../../agent/ports.ts'

export const systemClock: Clock = {
  now: () => Math.floor(Date.now() / 1000),
  setTimer(seconds, callback) {
    const timer = setTimeout(callback, seconds * 1000)
    return () => clearTimeout(timer)
  },
}
