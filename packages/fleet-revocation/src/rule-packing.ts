// Rules in the fewest bytes, for whoever signs: group bounds side by side in one entry, individual certificates as ranges and lists.

import { type Bytes, encodeCbor } from '@birthmark/device-sdk/core'
import { RevocationError } from './errors.ts'
import { encodeList, type Runs, runsOf } from './list-encoder.ts'
import { listSpanMax } from './list-model.ts'
import { type GroupRule, type ListRule, noticeRunsMax, type RangeRule, type Rule, readGroups, ruleToCbor } from './rule.ts'

function counted(out: number[], value: number): void {
  let rest = value
  for (; rest >= 128; rest = Math.floor(rest / 128)) out.push(128 + (rest % 128))
  out.push(rest)
}

/** Bounds in one entry; of one gid the highest counts. */
function packGroups(groups: GroupRule[]): Bytes {
  const out: number[] = []
  let last = 0
  const sorted = [...groups].sort((a, b) => a.gid - b.gid || b.bound - a.bound)
  for (const { gid, bound } of sorted) {
    if (gid === last) continue
    counted(out, gid - last)
    counted(out, bound)
    last = gid
  }
  return Uint8Array.from(out)
}

const isPlainGroup = (rule: Rule): rule is GroupRule => rule.kind === 'group' && rule.reason === undefined

/** The same rules in fewer entries: two or more group bounds without a reason become one entry, which comes first. */
export function packRules(rules: Rule[]): Rule[] {
  const groups = rules.filter(isPlainGroup)
  if (groups.length < 2) return rules
  return [{ kind: 'groups', coded: packGroups(groups) }, ...rules.filter(rule => !isPlainGroup(rule))]
}

/** The same rules with every group bound by itself, for whoever looks at groups. */
export function unpackRules(rules: Rule[]): Exclude<Rule, { kind: 'groups' }>[] {
  return rules.flatMap(rule => {
    if (rule.kind !== 'groups') return [rule]
    const out: GroupRule[] = []
    readGroups(rule.coded, (gid, bound) => out.push({ kind: 'group', gid, bound }))
    return out
  })
}

/** One rule for runs that lie within `listSpanMax` of one another. `runs` are counted from idx 0, ascending, apart. */
export function ruleOfRuns(runs: Runs): RangeRule | ListRule {
  const base = runs[0]
  if (runs.length === 2) return { kind: 'range', start: base, length: runs[1] }
  const last = runs.length - 2
  const span = runs[last] + runs[last + 1] - base
  const relative = runs.map((value, i) => (i % 2 === 0 ? value - base : value))
  return { kind: 'list', base, span, ...encodeList(span, relative) }
}

// What a notice spends around its rules: signature, ids, hash, anchor, the longest fleet name and the largest numbers.
const noticeOverheadBytes = 320
// Runs of the first list of several, some 10 ms of coding.
const firstGuess = 4096

/**
 * Rules that revoke exactly `indices` (ascending, none twice), each list small enough to share a notice of `bytesMax` with nothing else, and
 * none with more runs than a receiver of notices reads. Throws `configuration_invalid` for indices out of order.
 */
export function rulesOfIndices(indices: ArrayLike<number>, bytesMax: number): Rule[] {
  return [...rulesAlong(indices, bytesMax)]
}

/** The same one after the other: some 10 ms each, so that who has much to tell can do something else in between. */
export function* rulesAlong(indices: ArrayLike<number>, bytesMax: number): Generator<Rule> {
  for (let i = 1; i < indices.length; i++)
    if (indices[i] <= indices[i - 1]) throw new RevocationError('configuration_invalid', 'indices are not ascending')
  const runs = runsOf(indices)
  const room = bytesMax - noticeOverheadBytes
  const sizeOf = (rule: Rule) => encodeCbor(ruleToCbor(rule)).length
  // The next list is likely to be as dense as the last one.
  let guess = firstGuess
  for (let from = 0; from < runs.length; ) {
    const last = lastRun(runs, from)
    const ruleOf = (count: number) => ruleOfRuns(runs.subarray(from, from + 2 * count))
    let count = Math.min(last, guess)
    let rule = ruleOf(count)
    // Smaller in proportion, a little more each time: a list of n runs may be larger than n / m of one of m.
    for (let size = sizeOf(rule); size > room; size = sizeOf(rule)) {
      count = Math.max(1, Math.floor((count * room * 0.97) / size))
      rule = ruleOf(count)
    }
    const more = Math.min(last, Math.floor((count * room * 0.97) / sizeOf(rule)))
    if (more > count) {
      const larger = ruleOf(more)
      if (sizeOf(larger) <= room) {
        count = more
        rule = larger
      }
    }
    guess = count
    yield rule
    from += 2 * count
  }
}

/** Runs that a list from `from` on may hold whatever its size. */
function lastRun(runs: Runs, from: number): number {
  const most = Math.min((runs.length - from) / 2, noticeRunsMax)
  let [low, high] = [1, most]
  while (low < high) {
    const middle = Math.ceil((low + high) / 2)
    const end = from + 2 * middle - 2
    if (runs[end] + runs[end + 1] - runs[from] <= listSpanMax) low = middle
    else high = middle - 1
  }
  return low
}

/** `rules` in as few notices as hold them: the rules of each notice. */
export function rulesByNotice(rules: Rule[], bytesMax: number): Rule[][] {
  const out: Rule[][] = []
  let room = 0
  for (const rule of packRules(rules)) {
    const size = encodeCbor(ruleToCbor(rule)).length
    if (out.length === 0 || size > room) {
      out.push([])
      room = bytesMax - noticeOverheadBytes
    }
    out[out.length - 1].push(rule)
    room -= size
  }
  return out
}
