// Where a store ended before a restore that was cut short, by power or by a broken notice: its numbers are raised already, and nobody has been
// told what is lost. The next restore tells it from here, by the audit record, since no server starts in between.

import type { AuditEntry, FleetNumbers, Store, StoreNumbers } from '@birthmark/est-server'
import { olderThan } from './published.ts'

/** What a store held before anything was raised or taken in. */
export interface StoreEnd {
  /** The last audit record. */
  audit: number
  /** The lowest index that nobody had been given. */
  idx: number
  /** The last notice. */
  seq: number
}

/** Records asked for at once. */
const page = 256

/** In the words of the audit record. */
export const endText = ({ audit, idx, seq }: StoreEnd): string =>
  `the store ended at audit record ${audit}, index ${idx}, notice ${seq}`

function endOfText(text: string): StoreEnd | null {
  const found = /^the store ended at audit record (\d+), index (\d+), notice (\d+)(?!\d)/.exec(text)
  return found && { audit: Number(found[1]), idx: Number(found[2]), seq: Number(found[3]) }
}

/** The entries that a restore writes. */
const isOfRestore = ({ kind }: AuditEntry) => kind === 'store_restored' || kind === 'notice_adopted'

/**
 * Before the first of the restores at the store's end that `seen` does not cover, or else now. `seen`: the mark, which a restore writes once all is
 * taken in, or the numbers of the backup; without it a restore that nothing followed passes for one that was cut short, and what it lost is said
 * again. The numbers are of this moment, `end` its last audit record.
 */
export async function endBeforeRestore(
  store: Store,
  seen: StoreNumbers | null,
  { fleet, idx, seq }: FleetNumbers,
  end: number,
): Promise<StoreEnd> {
  let before: StoreEnd = { audit: end, idx, seq }
  // A mark of another copy covers nothing here.
  const covered = seen !== null && (await olderThan(store, seen)) === null ? seen.audit.n : 0
  for (let last = end; last > covered; last -= page) {
    const from = Math.max(covered, last - page)
    const records = await store.audit(from, last - from)
    for (const record of records.reverse()) {
      if (!isOfRestore(record)) return before
      if (record.kind === 'store_restored' && record.fleet === fleet) before = endOfText(record.detail) ?? before
    }
  }
  return before
}
