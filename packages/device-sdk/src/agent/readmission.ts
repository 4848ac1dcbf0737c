// What a revoked device may still do: ask, with its birth certificate, whether it is admitted again. The agent stops when it is revoked; this starts
// it again, slowly, until the server's policy says yes. Optional: a firmware that waits for a person leaves this file out and calls
// `agent.enroll(true, …)` when told.

import type { Agent } from './agent-interface.ts'
import type { Clock, Rng } from './ports.ts'
import { retryDelay } from './schedule.ts'

export interface Readmission {
  /** To be called with each `revoked` event of the agent, and at a boot that finds it revoked. */
  revoked(): void
  stop(): void
}

/** The first question comes within this long of the revocation: one for which a person has to decide is not answered sooner. */
export const readmissionSecondsMin = 600
/** Later ones come at least daily. */
export const readmissionSecondsMax = 86400

/**
 * After a revocation asks to be readmitted: within 10 to 20 minutes, then each time after twice as long and a random part, up to a day or two. Each
 * refusal leaves the device revoked.
 */
export function keepAskingForReadmission(agent: Agent, clock: Clock, rng: Rng): Readmission {
  let cancel = (): void => {}
  let stopped = false
  const ask = (refusals: number): void => {
    cancel()
    const seconds = Math.min(readmissionSecondsMin << Math.min(refusals, 10), readmissionSecondsMax)
    cancel = clock.setTimer(retryDelay(0, seconds, rng.random(3)), () => {
      agent.enroll(true, error => {
        // Revoked anew while it asked: the event has set the next timer already.
        if (error && !stopped) ask(refusals + 1)
      })
    })
  }
  return {
    revoked: () => {
      if (!stopped) ask(0)
    },
    stop: () => {
      stopped = true
      cancel()
    },
  }
}
