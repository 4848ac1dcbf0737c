// Profile sets in PostgreSQL: the reads and writes of profile-sets.ts. Whether an intent's profiles are the newest is asked with the intent
// (postgres-issuance.ts).

import type { Rows } from './postgres-rows.ts'
import type { Transaction } from './postgres-writer.ts'
import type { ProfileGeneration, ProfileSet } from './profile-sets.ts'
import type { AuditEntry } from './store.ts'

const newest =
  'SELECT fleet, generation, hash, at, host, version FROM profile_sets WHERE fleet = $1 ORDER BY generation DESC LIMIT 1'

export function postgresProfileSetReads(rows: Rows) {
  return {
    async newestProfiles(fleet: string): Promise<ProfileGeneration | null> {
      return (await rows<ProfileGeneration>('profiles', newest, [fleet]))[0] ?? null
    },
  }
}

export async function announcePostgresProfiles(
  tx: Transaction,
  set: ProfileSet,
  again: boolean,
  audit: AuditEntry,
): Promise<ProfileGeneration> {
  const { fleet, hash, at, host, version } = set
  const [before] = await tx.rows<ProfileGeneration>('profiles', newest, [fleet])
  if (before && Buffer.compare(before.hash, hash) === 0) return before
  const had = await tx.rows('had-profiles', 'SELECT 1 FROM profile_sets WHERE fleet = $1 AND hash = $2 LIMIT 1', [fleet, hash])
  if (before && !again && had.length > 0) return before
  const generation = (before?.generation ?? 0) + 1
  await tx.run(
    'add-profiles',
    'INSERT INTO profile_sets (fleet, generation, hash, at, host, version) VALUES ($1, $2, $3, $4, $5, $6)',
    [...[fleet, generation, hash, at, host, version]],
  )
  tx.audit(audit)
  return { ...set, generation }
}
