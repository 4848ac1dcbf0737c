// Work on the thread that answers everybody, cut into pieces. Promises: a few pieces a turn of the event loop, in the order they were asked for, so
// that whoever has something ready on a socket waits behind those and never behind all; and while somebody is served ahead of them they wait, though
// not for long, so that they come to an end however many are.

import { monotonicClock } from './monotonic-clock.ts'
import type { TimerClock } from './ports.ts'

/** Some two milliseconds. One alone would part what the threads behind it do together, and pay for it in messages and commits. */
const piecesPerTurn = 4
/** While nobody is served ahead: all that SCEP has in work. */
const piecesPerCalmTurn = 16
/** Since somebody was served ahead. */
const calmAfterSeconds = 1
/** What waits so long makes way no more: as long as some four enrollments by EST take, that wait for the medium most of the time. */
const patienceSeconds = 0.02

export interface LoopTurns {
  /** Resolves when it is the caller's turn. */
  turn(): Promise<void>
  /** Does `work`, and until it settles nobody has a turn who can wait. */
  ahead<T>(work: () => Promise<T>): Promise<T>
  /** Whether nobody is served ahead, nor was lately. */
  isCalm(): boolean
}

export function createLoopTurns(clock: TimerClock = monotonicClock): LoopTurns {
  const waiting: (() => void)[] = []
  let aheadNow = 0
  let aheadAt = Number.NEGATIVE_INFINITY
  /** How many of those that wait have made way for long enough. */
  let impatient = 0
  let isScheduled = false
  let cancel: (() => void) | null = null

  const isCalm = () => aheadNow === 0 && Math.abs(clock.now() - aheadAt) > calmAfterSeconds

  function run(): void {
    isScheduled = false
    const most = isCalm() ? piecesPerCalmTurn : piecesPerTurn
    const pieces = waiting.splice(0, Math.min(most, aheadNow === 0 ? waiting.length : impatient))
    impatient = Math.max(0, impatient - pieces.length)
    if (waiting.length === 0) {
      cancel?.()
      cancel = null
    }
    for (const go of pieces) go()
    schedule()
  }

  function schedule(): void {
    if (isScheduled || waiting.length === 0) return
    if (aheadNow === 0 || impatient > 0) {
      isScheduled = true
      setImmediate(run)
      return
    }
    cancel ??= clock.setTimer(patienceSeconds, () => {
      cancel = null
      impatient = waiting.length
      schedule()
    })
  }

  return {
    isCalm,
    turn: () =>
      new Promise(resolve => {
        waiting.push(resolve)
        schedule()
      }),
    async ahead(work) {
      aheadNow++
      try {
        return await work()
      } finally {
        aheadAt = clock.now()
        aheadNow--
        // What waits keeps the time it has waited: the next one may be ahead before anybody had a turn.
        schedule()
      }
    },
  }
}
