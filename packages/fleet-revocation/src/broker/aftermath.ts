// What follows the end of a session and can wait: unsubscribing and forgetting cost several times what closing its socket does, and while
// thousands are cut they would come before the next socket. Held back until all are cut, then done in slices.

export interface Aftermath {
  /** Done later, in order. */
  postpone(work: () => void): void
  /** Until the returned function is called, nothing is done. */
  hold(): () => void
}

// ~2 ms of work: who comes again in the meantime is refused at once.
const sliceSize = 20

export function createAftermath(): Aftermath {
  const waiting: (() => void)[] = []
  let held = 0
  let working = false

  function work(): void {
    if (held > 0 || waiting.length === 0) {
      working = false
      return
    }
    const slice = waiting.splice(0, sliceSize)
    for (const one of slice) one()
    setImmediate(work)
  }

  function start(): void {
    if (working || held > 0) return
    working = true
    setImmediate(work)
  }

  return {
    postpone: one => {
      waiting.push(one)
      start()
    },
    hold: () => {
      held++
      return () => {
        held--
        start()
      }
    },
  }
}
