// Which rule takes a certificate back, and since when. The same lattice as the rule set that devices obey, with dates: lists and responders
// must give them, so they ask the store's rules and not those in memory, and see every revocation that any process has recorded.

import { type Bytes, hexOf } from '@birthmark/device-sdk/core'
import type { RevocationFact } from './ca/crl.ts'
import { blockOf, blocksOfRange, hasNumber } from './store/bit-blocks.ts'
import type { DatedRule } from './store/crl.ts'
import type { DatedSet } from './store/revoked-lists.ts'
import type { Store } from './store/store.ts'

export interface RevocationRules {
  /** The count of revocations that these rules include. */
  readonly revocations: number
  /** Null for a certificate that no rule reaches. The first rule to reach it dates it; among those of one second, the one that gives a reason. */
  verdict(idx: number, gids: number[], issuer: Bytes): RevocationFact | null
  /** Where in a range of indices the verdict on equal groups may change: the bounds and floors strictly inside it, ascending. */
  cuts(from: number, to: number): number[]
  /** Whether certificates in the range are revoked one by one, so that equal groups mean nothing. */
  isListed(from: number, to: number): boolean
}

const earlier = (a: RevocationFact, b: RevocationFact) => a.at - b.at || (b.reason ?? 0) - (a.reason ?? 0)

export function revocationRules(revocations: number, rules: DatedRule[], sets: DatedSet[] = []): RevocationRules {
  const byGid = new Map(rules.map(rule => [rule.gid, rule]))
  const floors = sets.filter(({ kind }) => kind === 'floor')
  const issuers = new Map<string, DatedSet>()
  // In the order of their notices, so that the first to have an idx dates it but for reasons of the same second.
  const byBlock = new Map<number, { bits: Bytes; fact: DatedSet }[]>()
  for (const set of sets) {
    if (set.issuer !== null && !issuers.has(hexOf(set.issuer))) issuers.set(hexOf(set.issuer), set)
    for (const { block, bits } of set.kind === 'range' ? blocksOfRange(set.start, set.length) : set.blocks) {
      const known = byBlock.get(block)
      if (known) known.push({ bits, fact: set })
      else byBlock.set(block, [{ bits, fact: set }])
    }
  }
  const verdict = (idx: number, gids: number[], issuer: Bytes): RevocationFact | null => {
    let first: RevocationFact | null = null
    const met = (fact: RevocationFact) => {
      if (first === null || earlier(fact, first) < 0) first = fact
    }
    for (const gid of gids) {
      const rule = byGid.get(gid)
      if (rule !== undefined && idx < rule.bound) met(rule)
    }
    if (sets.length === 0) return first
    for (const floor of floors) if (idx < floor.start) met(floor)
    for (const { bits, fact } of byBlock.get(blockOf(idx)) ?? []) if (hasNumber(bits, idx)) met(fact)
    const ended = issuers.size > 0 ? issuers.get(hexOf(issuer)) : undefined
    if (ended) met(ended)
    return first
  }
  return {
    revocations,
    verdict,
    cuts(from, to) {
      const all = [...rules.map(rule => rule.bound), ...floors.map(({ start }) => start)]
      return [...new Set(all.filter(bound => bound > from && bound < to))].sort((a, b) => a - b)
    },
    isListed(from, to) {
      for (let block = blockOf(from); block <= blockOf(to - 1); block++) if (byBlock.has(block)) return true
      return false
    },
  }
}

/** Reads a fleet's rules when there are new ones. At most as many fleets as the server has profiles. */
export function createRuleView(
  store: Pick<Store, 'revocations' | 'datedRules' | 'datedSets'>,
): (fleet: string, revocations: number) => Promise<RevocationRules> {
  const known = new Map<string, { rules: RevocationRules; sets: DatedSet[] }>()
  return async (fleet, revocations) => {
    const before = known.get(fleet)
    if (before?.rules.revocations === revocations) return before.rules
    // Read after the count: these may include more, never less. Sets are only ever added.
    const had = before?.sets ?? []
    const sets = [...had, ...(await store.datedSets(fleet, had.at(-1)?.seq ?? 0))]
    const rules = revocationRules(revocations, await store.datedRules(fleet), sets)
    known.set(fleet, { rules, sets })
    return rules
  }
}
