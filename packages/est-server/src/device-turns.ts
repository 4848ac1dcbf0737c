// Requests of one device take turns, so that fifty equal ones make one certificate and forty-nine look-ups. Requests of different devices
// never wait for each other. What two processes do at once is for the store's transactions to sort out.

/** Beyond it a device is flooding: its own requests are turned away. The most that a test of 50 equal requests needs, and some. */
const waitingMax = 64

export interface Turns {
  /** Runs `work`, which may reject but not throw, when every earlier turn of `id` has ended: now, where none runs. Null when too many wait. */
  take<T>(id: string, work: () => Promise<T>): Promise<T> | null
}

export function createTurns(): Turns {
  const queues = new Map<string, { last: Promise<void> | null; waiting: number }>()
  return {
    take(id, work) {
      const queue = queues.get(id) ?? { last: null, waiting: 0 }
      if (queue.waiting >= waitingMax) return null
      queue.waiting++
      queues.set(id, queue)
      const turn = queue.last === null ? work() : queue.last.then(work)
      const left = () => {
        queue.waiting--
        if (queue.waiting === 0) queues.delete(id)
      }
      // The next turn comes whether this one succeeds or not; its failure is its caller's alone.
      queue.last = turn.then(left, left)
      return turn
    },
  }
}
