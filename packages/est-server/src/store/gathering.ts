// When the writes that wait leave together. A commit costs as much as some ten of them and a message to whoever writes as much as a look-up, and a
// turn of a busy event loop brings fewer: so a batch waits while it grows, and what comes alone leaves a turn later.

/** With so few waiting when a batch comes back, the next one waits for what its callers will ask. */
const fewJobs = 24
/** A turn is some milliseconds when it is long. */
const turnsMax = 3
const manyJobs = 128

export interface Gathering {
  /** Something waits, and nothing is away. */
  begin(): void
  /** A batch has come back; to be called before its callers run. */
  next(): void
}

/** `send` is called with nothing waiting, too, and once more than needed where a batch left meanwhile. */
export function gathering(waiting: () => number, send: () => void): Gathering {
  let isBegun = false
  let turns = 0
  let before = 0

  function look(): void {
    const now = waiting()
    if (turns < turnsMax && now > before && now < manyJobs) {
      turns++
      before = now
      setImmediate(look)
      return
    }
    isBegun = false
    send()
  }

  function begin(): void {
    if (isBegun) return
    isBegun = true
    turns = 0
    before = 0
    setImmediate(look)
  }

  return {
    begin,
    next() {
      if (waiting() < fewJobs) begin()
      else send()
    },
  }
}
