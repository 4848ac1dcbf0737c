// Which groups are closed, as the writer knows it. Every enrollment asks twice for each group of its device, and a group closes once: the
// answers are remembered for as long as nobody else has written.

import type { DatabaseSync } from 'node:sqlite'
import type { ForeignWrites } from './sqlite-foreign-writes.ts'
import { prepare } from './sqlite-rows.ts'

/** Fleets of thousands of batches ask about few of them at a time. */
const rememberedMax = 10_000

export interface ClosedGroups {
  isClosed(fleet: string, gid: number): boolean
  /** To be called when a group was closed or a transaction undone here. */
  forget(): void
}

export function closedGroups(db: DatabaseSync, foreign: ForeignWrites): ClosedGroups {
  const closed = prepare(db, 'SELECT 1 FROM groups WHERE fleet = ? AND gid = ? AND bound IS NOT NULL')
  const known = new Map<string, boolean>()
  let version = -1
  return {
    isClosed(fleet, gid) {
      const now = foreign.version()
      if (now !== version) known.clear()
      version = now
      const name = `${gid} ${fleet}`
      let answer = known.get(name)
      if (answer === undefined) {
        answer = closed.get(fleet, gid) !== undefined
        if (known.size >= rememberedMax) known.clear()
        known.set(name, answer)
      }
      return answer
    },
    forget: () => known.clear(),
  }
}
