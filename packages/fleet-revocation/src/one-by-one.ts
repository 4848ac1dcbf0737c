// Work that must not overlap: one after the other, in the order in which it was asked for, whatever becomes of what came before.

/** Each call gives what its own work resolves or rejects with. */
export function oneByOne(): <T>(work: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve()
  return work => {
    const turn = last.then(work)
    last = turn.catch(() => {})
    return turn
  }
}
