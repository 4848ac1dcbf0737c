// The rules that the store has, in a rule set: what every process starts from and catches up by. Lists come as bits and are never decoded again.

import type { ListCoder, RecordedRules, Store } from '@birthmark/est-server'
import { blockSize } from '@birthmark/est-server'
import { createRuleSet, noticeBytesMax, type RuleSet, rulesAlong, rulesByNotice } from '@birthmark/fleet-revocation'

/** Lists for notices: est-server asks, fleet-revocation knows how. */
export const listCoder: ListCoder = {
  rulesOf: indices => rulesAlong(indices, noticeBytesMax) as ReturnType<ListCoder['rulesOf']>,
  byNotice: rules => rulesByNotice(rules, noticeBytesMax) as ReturnType<ListCoder['byNotice']>,
}

/** Takes in what was just recorded. True when something is revoked that was not before. */
export function mergeRecorded(rules: RuleSet, what: RecordedRules): boolean {
  let grew = rules.merge(what.rules, what.floor)
  for (const { block, bits } of what.blocks) if (rules.mergeBits(block * blockSize, bits)) grew = true
  return grew
}

async function recorded(store: Store, fleet: string): Promise<RecordedRules> {
  const { floor, issuers, blocks } = await store.standingSets(fleet)
  const groups = await store.rules(fleet)
  return { rules: [...groups, ...issuers.map(keyId => ({ kind: 'issuer' as const, keyId }))], floor, blocks }
}

/** All that stands in the store now. True when something is revoked that was not before. */
export async function mergeStored(rules: RuleSet, store: Store, fleet: string): Promise<boolean> {
  return mergeRecorded(rules, await recorded(store, fleet))
}

export async function storedRules(store: Store, fleet: string): Promise<RuleSet> {
  const rules = createRuleSet()
  await mergeStored(rules, store, fleet)
  return rules
}
