// Work on the thread that answers everybody, cut into pieces. Promises: a few pieces a turn of the event loop, in the order they were asked for, so
// that whoever has something ready on a socket waits behind those and never behind all; and while somebody is served ahead of them they wait, though
// not for long, so that they come to an end however many are.

/** Some two milliseconds. One alone would part what the threads behind it do together, and pay for it in messages and commits. */
const piecesPerTurn = 4
/** What waits so long makes way no more: as long as some four enrollments by EST take, that wait for the medium most of the time. */
const patienceSeconds = 0.02

export interface LoopTurns {
  /** Resolves when it is the caller's turn. */
  turn(): Promise<void>
  /** Does `work`, and until it settles nobody has a turn who can wait. */
  ahead<T>(work: () => Promise<T>): Promise<T>
}

/** As TimerClock's. */
type SetTimer = (seconds: number, callback: () => void) => () => void

const ownTimer: SetTimer = (seconds, callback) => {
  const timer = setTimeout(callback, seconds * 1000)
  return () => clearTimeout(timer)
}

export function createLoopTurns(setTimer: SetTimer = ownTimer): LoopTurns {
  const waiting: (() => void)[] = []
  let aheadNow = 0
  /** How many of those that wait have made way for long enough. */
  let impatient = 0
  let isScheduled = false
  let cancel: (() => void) | null = null

  function run(): void {
    isScheduled = false
    const pieces = waiting.splice(0, Math.min(piecesPerTurn, aheadNow === 0 ? waiting.length : impatient))
    impatient = Math.max(0, impatient - pieces.length)
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
    cancel ??= setTimer(patienceSeconds, () => {
      cancel = null
      impatient = waiting.length
      schedule()
    })
  }

  return {
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
        if (--aheadNow === 0) {
          cancel?.()
          cancel = null
          schedule()
        }
      }
    },
  }
}
