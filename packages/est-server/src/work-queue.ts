// Work that goes on in bounded numbers, the rest in a bounded queue.

export interface WorkQueue {
  /** Resolves to `work`'s result once it had its turn; to null, without having begun, when too much waits already. */
  take<T>(work: () => Promise<T>): Promise<T | null>
}

export function createWorkQueue({ atOnceMax, waitingMax }: { atOnceMax: number; waitingMax: number }): WorkQueue {
  let atOnce = 0
  const waiting: (() => void)[] = []
  return {
    async take(work) {
      if (atOnce < atOnceMax) atOnce++
      else if (waiting.length >= waitingMax) return null
      else await new Promise<void>(resolve => waiting.push(resolve))
      try {
        return await work()
      } finally {
        const next = waiting.shift()
        if (next) next()
        else atOnce--
      }
    },
  }
}
