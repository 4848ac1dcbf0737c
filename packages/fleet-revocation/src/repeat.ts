// Work that comes again and again by a clock, each time so long after the last has ended.

import type { Clock } from './ports.ts'

/**
 * The first time after `seconds`. `failed` is told what a turn rejected with; the next comes all the same. The returned function ends it: a turn
 * that is under way is left to itself, and `failed` hears nothing more.
 */
export function repeat(clock: Clock, seconds: number, work: () => Promise<unknown>, failed: (error: unknown) => void): () => void {
  let ended = false
  let cancel = () => {}
  function later(): void {
    if (ended) return
    cancel = clock.setTimer(
      seconds,
      () =>
        void work()
          .catch((error: unknown) => {
            if (!ended) failed(error)
          })
          .finally(later),
    )
  }
  later()
  return () => {
    ended = true
    cancel()
  }
}
