// Who is revoked: a monotone lattice. Merging is max, so rules may arrive twice, late and in any order, and nothing ever un-revokes.
// What else a certificate must satisfy is the caller's business.

import type { Bytes, Membership } from '@birthmark/device-sdk/core'
import { RevocationError } from './errors.ts'
import type { Rule } from './notice.ts'

export type Status = 'good' | 'revoked' | 'unknown'

export interface RuleSet {
  /** Takes in more rules; true when something is revoked that was not before. Throws `rules_limit` and changes nothing. */
  merge(rules: Rule[], floor?: number): boolean
  isRevoked(membership: { idx: number; gids: number[] }, issuerKeyId: Bytes | null): boolean
  /** Canonical: ascending gid. Two sets with equal rules and floor revoke the same. */
  rules(): Rule[]
  readonly floor: number
}

// A group for every device of a fleet of a million: nobody needs more, and 2^20 entries are about 100 MB.
const groupsMax = 1 << 20

interface GroupBound {
  bound: number
  reason: number
}

export function createRuleSet(initial: Rule[] = [], initialFloor = 0): RuleSet {
  const groups = new Map<number, GroupBound>()
  let floor = 0

  function merge(rules: Rule[], moreFloor = 0): boolean {
    const fresh = new Set<number>()
    for (const rule of rules) if (!groups.has(rule.gid)) fresh.add(rule.gid)
    if (groups.size + fresh.size > groupsMax) throw new RevocationError('rules_limit', `more than ${groupsMax} groups`)
    let grew = moreFloor > floor
    floor = Math.max(floor, moreFloor)
    for (const { gid, bound, reason = 0 } of rules) {
      const known = groups.get(gid)
      if (known && (known.bound > bound || (known.bound === bound && known.reason >= reason))) continue
      // The reason follows the higher bound and, between equal bounds, the higher number: so the order of arrival leaves no trace.
      groups.set(gid, { bound, reason })
      if (bound > (known?.bound ?? 0)) grew = true
    }
    return grew
  }

  merge(initial, initialFloor)
  return {
    merge,
    isRevoked: membership => membership.idx < floor || membership.gids.some(gid => membership.idx < (groups.get(gid)?.bound ?? 0)),
    rules: () =>
      [...groups]
        .sort((a, b) => a[0] - b[0])
        .map(([gid, { bound, reason }]) => (reason === 0 ? { kind: 'group', gid, bound } : { kind: 'group', gid, bound, reason })),
    get floor() {
      return floor
    },
  }
}

/** The status function that est-server and the broker ask. A certificate of another fleet, or none, is unknown, and unknown is refused. */
export function statusOf(set: RuleSet, fleet: string): (membership: Membership | null, issuerKeyId: Bytes | null) => Status {
  return (membership, issuerKeyId) => {
    if (!membership || membership.fleet !== fleet) return 'unknown'
    return set.isRevoked(membership, issuerKeyId) ? 'revoked' : 'good'
  }
}
