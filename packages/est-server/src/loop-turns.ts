// Work on the thread that answers everybody, cut into pieces. Promises: a few pieces a turn of the event loop, in the order they were asked for, so
// that whoever has something ready on a socket waits behind those and never behind all.

/** Some two milliseconds. One alone would part what the threads behind it do together, and pay for it in messages and commits. */
const piecesPerTurn = 4

/** Resolves when it is the caller's turn. */
export function createLoopTurns(): () => Promise<void> {
  const waiting: (() => void)[] = []
  const turn = () => {
    for (const go of waiting.splice(0, piecesPerTurn)) go()
    if (waiting.length > 0) setImmediate(turn)
  }
  return () =>
    new Promise(resolve => {
      if (waiting.push(resolve) === 1) setImmediate(turn)
    })
}
