// New certificates as the store has them, for whoever has to be told of each and may be slow or away: the store is the queue, so that issuing waits
// for nobody, nothing is lost and nothing piles up. It knows those that other processes and other servers issued, too.

import type { IssuanceRow, Store } from '@birthmark/est-server'

/** Rows of one read: what is held in memory at most. */
const pageRows = 500
/** Two servers of one database may commit in another order than they began. */
const settleSeconds = 5

export interface IssuanceFeed {
  /**
   * Hands over the next certificates that were issued, oldest first; they count as taken when `take` has resolved. True when there are more.
   * At least once each: the same again after `rewind`.
   */
  next(take: (issued: IssuanceRow[]) => Promise<void>): Promise<boolean>
  /** From the first one again. */
  rewind(): void
}

/** `alone`: no other server writes to the store. */
export function createIssuanceFeed({
  store,
  fleet,
  alone,
  now,
}: {
  store: Pick<Store, 'issuances'>
  fleet: string
  alone: boolean
  now(): number
}): IssuanceFeed {
  /** Everything up to here is taken, or will never be a certificate. */
  let settled = 0
  /** Taken, above that. */
  const ahead = new Set<number>()

  return {
    async next(take) {
      const rows = await store.issuances(settled, pageRows)
      const issued = rows.filter(row => row.state === 'issued' && row.fleet === fleet && !ahead.has(row.key))
      if (issued.length > 0) await take(issued)
      for (const { key } of issued) ahead.add(key)
      // What is open may still be issued; it is settled within two minutes, one way or the other.
      const young = alone ? Number.POSITIVE_INFINITY : now() - settleSeconds
      const stop = rows.findIndex(({ state, startedAt }) => state === 'intent' || startedAt > young)
      const done = stop === -1 ? rows : rows.slice(0, stop)
      for (const { key } of done) ahead.delete(key)
      if (done.length > 0) settled = done[done.length - 1].key
      return rows.length === pageRows && done.length > 0
    },
    rewind() {
      settled = 0
      ahead.clear()
    },
  }
}
