// The rules that the store has, in a rule set: what every process starts from and catches up by. Lists come as bits and are never decoded again.

import type { ListCoder, RecordedRules, Store } from '@birthmark/est-server'
import { type BitBlock, blockSize, blocksOfRange, type GroupRule, joinBlocks } from '@birthmark/est-server'
import {
  createRuleSet,
  listSpanMax,
  noticeBytesMax,
  type Rule,
  type RuleSet,
  readList,
  rulesAlong,
  rulesByNotice,
  unpackRules,
} from '@birthmark/fleet-revocation'

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

type RuleStore = Pick<Store, 'rules' | 'standingSets'>

async function recorded(store: RuleStore, fleet: string): Promise<RecordedRules> {
  const { floor, issuers, blocks } = await store.standingSets(fleet)
  const groups = await store.rules(fleet)
  return { rules: [...groups, ...issuers.map(keyId => ({ kind: 'issuer' as const, keyId }))], floor, blocks }
}

/** All that stands in the store now. True when something is revoked that was not before. */
export async function mergeStored(rules: RuleSet, store: RuleStore, fleet: string): Promise<boolean> {
  return mergeRecorded(rules, await recorded(store, fleet))
}

export async function storedRules(store: RuleStore, fleet: string): Promise<RuleSet> {
  const rules = createRuleSet()
  await mergeStored(rules, store, fleet)
  return rules
}

/** What a notice says, as the store keeps it: every group by itself, certificates as bits. */
export function partsOf(all: Rule[]): { rules: GroupRule[]; certificates: BitBlock[]; issuer: Uint8Array | null } {
  const rules: GroupRule[] = []
  let certificates: BitBlock[] = []
  let issuer: Uint8Array | null = null
  for (const rule of unpackRules(all)) {
    if (rule.kind === 'group') rules.push(rule)
    else if (rule.kind === 'issuer') issuer = rule.keyId
    else if (rule.kind === 'range') certificates = joinBlocks(certificates, blocksOfRange(rule.start, rule.length))
    else {
      const runs: BitBlock[] = []
      readList(rule.span, rule.codec, rule.coded, listSpanMax, (start, length) => {
        runs.push(...blocksOfRange(rule.base + start, length))
      })
      certificates = joinBlocks(joinBlocks([], runs), certificates)
    }
  }
  return { rules, certificates, issuer }
}
