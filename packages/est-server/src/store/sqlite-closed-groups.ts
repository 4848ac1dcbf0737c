// Which groups are closed, as the writer knows it. Every enrollment asks twice for each group of its device, and a group closes once: the
// answers are remembered for as long as nobody else has written.

import type { DatabaseSync } from 'node:sqlite'
import { prepare } from './sqlite-rows.ts'

/** Fleets of thousands of batches ask about few of them at a time. */
const rememberedMax = 10_000

export interface ClosedGroups {
  isClosed(fleet: string, gid: number): boolean
  /** To be called when a group was closed or a transaction undone here, and at the end of each transaction: others may write in between. */
  forget(how: 'all' | 'what others changed'): void
}

export function closedGroups(db: DatabaseSync): ClosedGroups {
  const closed = prepare(db, 'SELECT 1 FROM groups WHERE fleet = ? AND gid = ? AND bound IS NOT NULL')
  // Changes when another connection has committed, and only then; inside a transaction it stands still.
  const dataVersion = prepare<{ data_version: number }>(db, 'PRAGMA data_version')
  const known = new Map<string, boolean>()
  let version = -1
  let checked = false
  return {
    isClosed(fleet, gid) {
      if (!checked) {
        const { data_version: now } = dataVersion.get()!
        if (now !== version) known.clear()
        version = now
        checked = true
      }
      const name = `${gid} ${fleet}`
      let answer = known.get(name)
      if (answer === undefined) {
        answer = closed.get(fleet, gid) !== undefined
        if (known.size >= rememberedMax) known.clear()
        known.set(name, answer)
      }
      return answer
    },
    forget(how) {
      checked = false
      if (how === 'all') known.clear()
    },
  }
}
