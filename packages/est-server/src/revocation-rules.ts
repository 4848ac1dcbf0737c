// Which rule takes a certificate back, and since when. The same lattice as the rule set that devices obey, with dates: lists and responders
// must give them, so they ask the store's rules and not those in memory, and see every revocation that any process has recorded.

import type { RevocationFact } from './ca/crl.ts'
import type { DatedRule } from './store/crl.ts'
import type { Store } from './store/store.ts'

export interface RevocationRules {
  /** The count of revocations that these rules include. */
  readonly revocations: number
  /** Null for a certificate that no rule reaches. The first rule to reach it dates it; among those of one second, the one that gives a reason. */
  verdict(idx: number, gids: number[]): RevocationFact | null
  /** Where in a range of indices the verdict on equal groups may change: the bounds strictly inside it, ascending. */
  cuts(from: number, to: number): number[]
}

const earlier = (a: DatedRule, b: DatedRule) => a.at - b.at || (b.reason ?? 0) - (a.reason ?? 0)

export function revocationRules(revocations: number, rules: DatedRule[]): RevocationRules {
  const byGid = new Map(rules.map(rule => [rule.gid, rule]))
  const verdict = (idx: number, gids: number[]): RevocationFact | null => {
    let first: DatedRule | null = null
    for (const gid of gids) {
      const rule = byGid.get(gid)
      if (rule !== undefined && idx < rule.bound && (first === null || earlier(rule, first) < 0)) first = rule
    }
    return first
  }
  return {
    revocations,
    verdict,
    cuts(from, to) {
      const inside = rules.map(rule => rule.bound).filter(bound => bound > from && bound < to)
      return [...new Set(inside)].sort((a, b) => a - b)
    },
  }
}

/** Reads a fleet's rules when there are new ones. At most as many fleets as the server has profiles. */
export function createRuleView(
  store: Pick<Store, 'revocations' | 'datedRules'>,
): (fleet: string, revocations: number) => Promise<RevocationRules> {
  const known = new Map<string, RevocationRules>()
  return async (fleet, revocations) => {
    const before = known.get(fleet)
    if (before?.revocations === revocations) return before
    // Read after the count: these may include more, never less.
    const rules = revocationRules(revocations, await store.datedRules(fleet))
    known.set(fleet, rules)
    return rules
  }
}
