// Profile sets in SQLite: the reads and writes of profile-sets.ts, and what each intent asks.

import type { DatabaseSync } from 'node:sqlite'
import type { ProfileGeneration, ProfileSet } from './profile-sets.ts'
import { prepare } from './sqlite-rows.ts'
import type { AuditEntry } from './store.ts'

const newestOf = (db: DatabaseSync) => {
  const newest = prepare<ProfileGeneration>(
    db,
    'SELECT fleet, generation, hash, at, host, version FROM profile_sets WHERE fleet = ? ORDER BY generation DESC LIMIT 1',
  )
  return (fleet: string): ProfileGeneration | null => {
    const row = newest.get(fleet)
    return row ? { ...row } : null
  }
}

export const profileSetReads = (db: DatabaseSync) => ({ newestProfiles: newestOf(db) })

export interface ProfileSetWrites {
  announceProfiles(said: { set: ProfileSet; again: boolean; audit: AuditEntry }): ProfileGeneration
}

export function profileSetWrites(db: DatabaseSync, audit: (entry: AuditEntry) => void) {
  const newest = newestOf(db)
  const had = prepare(db, 'SELECT 1 FROM profile_sets WHERE fleet = ? AND hash = ?')
  const insert = prepare(db, 'INSERT INTO profile_sets (fleet, generation, hash, at, host, version) VALUES (?, ?, ?, ?, ?, ?)')
  // Read once a transaction and fleet: every intent of a batch asks.
  const known = new Map<string, Uint8Array | null>()
  return {
    /** Whether intents that were decided by this set are taken. */
    areNewest(fleet: string, hash: Uint8Array): boolean {
      let found = known.get(fleet)
      if (found === undefined) {
        found = newest(fleet)?.hash ?? null
        known.set(fleet, found)
      }
      return found === null || Buffer.compare(found, hash) === 0
    },
    /** To be called when a transaction ends, either way. */
    forget: () => known.clear(),
    writes: {
      announceProfiles({ set, again, audit: entry }) {
        const before = newest(set.fleet)
        const isNewest = before !== null && Buffer.compare(before.hash, set.hash) === 0
        if (before !== null && (isNewest || (!again && had.get(set.fleet, set.hash) !== undefined))) return before
        const next = { ...set, generation: (before?.generation ?? 0) + 1 }
        insert.run(next.fleet, next.generation, next.hash, next.at, next.host, next.version)
        audit(entry)
        known.clear()
        return next
      },
    } satisfies ProfileSetWrites,
  }
}
