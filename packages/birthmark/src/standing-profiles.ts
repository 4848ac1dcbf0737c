// Whether this server's profiles are the newest of its fleet: said to the store at start, looked at once a second from then on. Where another
// server has newer ones, this one issues nothing and is not ready, until it is started with the same file or an operator says that its own
// are to stand. The store itself takes no intent of older ones (store/profile-sets.ts), so that a second is not a gap.

import { hostname } from 'node:os'
import { type Log, type ProfileGeneration, type ProfileStanding, profileSetHash, type Store } from '@birthmark/est-server'
import { type Clock, repeat } from '@birthmark/fleet-revocation'
import type { Settings } from './configuration.ts'
import { VERSION } from './version.ts'

const lookSeconds = 1

export interface AnnounceParts {
  store: Store
  clock: Clock
  /** Takes the fleet back to a set that it had before. */
  again: boolean
  /** For the audit record. */
  by: string
}

/** The newest generation, once this server's profiles were said. */
export function announceProfiles(
  { fleet, profiles }: Pick<Settings, 'fleet' | 'profiles'>,
  { store, clock, again, by }: AnnounceParts,
): Promise<ProfileGeneration> {
  const hash = profileSetHash(profiles)
  const at = Math.floor(clock.now())
  const host = hostname()
  const detail = `${profiles.length} ${profiles.length === 1 ? 'profile' : 'profiles'}, ${Buffer.from(hash).toString('hex')}, from ${host}`
  return store.announceProfiles({ fleet, hash, at, host, version: VERSION }, again, {
    ...{ at, kind: 'profiles_changed', requestId: '', fleet, device: '', by, code: '', detail },
  })
}

export interface WatchedProfiles extends ProfileStanding {
  /** Its code and words, or null. */
  unready(): string | null
  close(): void
}

/** Looks before it resolves. */
export async function watchProfiles(
  { fleet, profiles }: Pick<Settings, 'fleet' | 'profiles'>,
  { store, clock, log }: { store: Pick<Store, 'newestProfiles'>; clock: Clock; log: Log },
): Promise<WatchedProfiles> {
  const hash = profileSetHash(profiles)
  let reason: string | null = null

  async function refresh(): Promise<void> {
    const newest = await store.newestProfiles(fleet)
    const isOurs = newest === null || Buffer.compare(newest.hash, hash) === 0
    const before = reason
    reason = isOurs ? null : supersededBy(newest)
    if (before === null && reason !== null) log.error({ fleet }, `nothing is issued here: ${reason}`)
    if (before !== null && reason === null) log.info({ fleet }, 'the profiles of this server are the newest again')
  }

  await refresh()
  // What was true stays true; a store that does not answer takes no intent either.
  const close = repeat(clock, lookSeconds, refresh, () => {})
  return {
    hash,
    superseded: () => reason,
    unready: () => reason && `profiles_superseded: ${reason}`,
    refresh,
    close,
  }
}

function supersededBy({ generation, at, host, version }: ProfileGeneration): string {
  return `generation ${generation} of the profiles is of ${host}, ${new Date(at * 1000).toISOString()}, version ${version}, and these differ`
}
