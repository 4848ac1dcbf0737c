// Names of a device's groups, for profiles whose templates use them. A group keeps its number and name for ever, so what was read once is
// kept; only a number that is new here costs a look at the store.

import type { Store } from './store/store.ts'

export type GroupNames = (fleet: string, gids: readonly number[]) => Promise<readonly string[]>

export function createGroupNames(store: Pick<Store, 'groups'>): GroupNames {
  // Bounded by the store: at most groupsPerFleetMax a fleet.
  const known = new Map<string, Map<number, string>>()
  return async (fleet, gids) => {
    let names = known.get(fleet)
    if (names === undefined || gids.some(gid => !names?.has(gid))) {
      names = new Map((await store.groups(fleet)).map(({ gid, name }) => [gid, name]))
      known.set(fleet, names)
    }
    return gids.flatMap(gid => names.get(gid) ?? [])
  }
}
