// Who is revoked: a monotone lattice. Merging is max and union, so rules may arrive twice, late and in any order, and nothing ever
// un-revokes. What else a certificate must satisfy is the caller's business.

import { type Bytes, bytesOfHex, hexOf, type Membership } from '@birthmark/device-sdk/core'
import { RevocationError } from './errors.ts'
import { createIndexSet } from './index-set.ts'
import { readList } from './list-decoder.ts'
import { listSpanMax } from './list-model.ts'
import { type GroupRule, idxEnd, type Rule, readGroups } from './rule.ts'

/** `quarantined`: denied like `revoked`, until an operator says otherwise; no rule says it, only the server whose store holds the device. */
export type Status = 'good' | 'quarantined' | 'revoked' | 'unknown'
/** What rules say. */
export type RuleStatus = Exclude<Status, 'quarantined'>

export interface RuleSet {
  /** Takes in more rules; true when something is revoked that was not before. Throws `rules_limit` or `notice_malformed` and changes nothing. */
  merge(rules: Rule[], floor?: number): boolean
  /** Takes in certificates as bits, the lowest of the first octet for idx `start`, a multiple of eight; at most 131,072 that lie in one shard. Throws `rules_limit`. */
  mergeBits(start: number, bits: Bytes): boolean
  /** `issuerKeyId`: the certificate's authority key identifier. */
  isRevoked(membership: { idx: number; gids: number[] }, issuerKeyId: Bytes | null): boolean
  /**
   * Canonical: groups by gid, issuers, then ranges and lists by idx. Two sets that revoke the same for the same reasons have equal rules and
   * floor. What has not grown since the last call costs nothing to tell.
   */
  rules(): Rule[]
  /** The same by number of shard: group bounds 2,048 a shard, certificates 131,072; issuers are in shard 0. */
  shardRules(shard: number): Rule[]
  /** Shards from 0 that hold everything; at least 1. */
  readonly shards: number
  readonly floor: number
}

// A group for every device of a fleet of a million: nobody needs more, and 2^20 entries are about 100 MB.
const groupsMax = 1 << 20
// Issuing authorities that a fleet ever lost.
const issuersMax = 256
/** Groups told in one shard of a snapshot: at most 2,048 × 11 bytes, beside at most 16 KB for its certificates. */
const groupsAShard = 2048

interface GroupBound {
  bound: number
  reason: number
}

function groupRule(gid: number, { bound, reason }: GroupBound): GroupRule {
  return reason === 0 ? { kind: 'group', gid, bound } : { kind: 'group', gid, bound, reason }
}

interface Incoming {
  groups: Map<number, GroupBound>
  issuers: Set<string>
  /** start, length by turns. */
  runs: number[]
}

function isIndex(value: number, most: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= most
}

/** Everything that `rules` say, looked through before any of it counts. */
function incoming(rules: Rule[]): Incoming {
  const out: Incoming = { groups: new Map(), issuers: new Set(), runs: [] }
  const malformed = (rule: Rule) => new RevocationError('notice_malformed', `a ${rule.kind} rule`)
  const group = (gid: number, bound: number, reason: number) => {
    const known = out.groups.get(gid)
    // The reason follows the higher bound and, between equal bounds, the higher number: so the order of arrival leaves no trace.
    if (known && (known.bound > bound || (known.bound === bound && known.reason >= reason))) return
    out.groups.set(gid, { bound, reason })
  }
  for (const rule of rules) {
    if (rule.kind === 'group') group(rule.gid, rule.bound, rule.reason ?? 0)
    else if (rule.kind === 'groups') {
      if (!readGroups(rule.coded, (gid, bound) => group(gid, bound, 0))) throw malformed(rule)
    } else if (rule.kind === 'issuer') out.issuers.add(hexOf(rule.keyId))
    else if (rule.kind === 'range') {
      if (!isIndex(rule.start, idxEnd - 1) || !isIndex(rule.length, idxEnd - rule.start)) throw malformed(rule)
      out.runs.push(rule.start, rule.length)
    } else {
      const { base, span, codec, coded } = rule
      if (!isIndex(base, idxEnd - 1) || base + span > idxEnd) throw malformed(rule)
      if (!readList(span, codec, coded, listSpanMax, (start, length) => out.runs.push(base + start, length))) throw malformed(rule)
    }
  }
  return out
}

export function createRuleSet(initial: Rule[] = [], initialFloor = 0): RuleSet {
  const groups = new Map<number, GroupBound>()
  const issuers = new Set<string>()
  const set = createIndexSet()
  let floor = 0
  let gidEnd = 0

  function checkLimits(more: Incoming): void {
    let fresh = 0
    for (const gid of more.groups.keys()) if (!groups.has(gid)) fresh++
    if (groups.size + fresh > groupsMax) throw new RevocationError('rules_limit', `more than ${groupsMax} groups`)
    let unheard = 0
    for (const issuer of more.issuers) if (!issuers.has(issuer)) unheard++
    if (issuers.size + unheard > issuersMax) throw new RevocationError('rules_limit', `more than ${issuersMax} issuers`)
    set.reserve(more.runs)
  }

  function merge(rules: Rule[], moreFloor = 0): boolean {
    const more = incoming(rules)
    checkLimits(more)
    let grew = moreFloor > floor
    if (grew) set.raise(moreFloor)
    floor = Math.max(floor, moreFloor)
    for (const [gid, { bound, reason }] of more.groups) {
      const known = groups.get(gid)
      if (known && (known.bound > bound || (known.bound === bound && known.reason >= reason))) continue
      groups.set(gid, { bound, reason })
      gidEnd = Math.max(gidEnd, gid + 1)
      if (bound > (known?.bound ?? 0)) grew = true
    }
    for (const issuer of more.issuers)
      if (!issuers.has(issuer)) {
        issuers.add(issuer)
        grew = true
      }
    for (let i = 0; i < more.runs.length; i += 2) if (set.add(more.runs[i], more.runs[i + 1])) grew = true
    return grew
  }

  const issuerRules = (): Rule[] => [...issuers].sort().map(hex => ({ kind: 'issuer', keyId: bytesOfHex(hex) }))

  merge(initial, initialFloor)
  return {
    merge,
    mergeBits: (start, bits) => set.addBits(start, bits),
    isRevoked({ idx, gids }, issuerKeyId) {
      if (idx < floor || set.has(idx)) return true
      for (let i = 0; i < gids.length; i++) {
        const group = groups.get(gids[i])
        if (group !== undefined && idx < group.bound) return true
      }
      return issuers.size > 0 && issuerKeyId !== null && issuers.has(hexOf(issuerKeyId))
    },
    rules: () => [
      ...[...groups].sort((a, b) => a[0] - b[0]).map(([gid, bound]) => groupRule(gid, bound)),
      ...issuerRules(),
      ...set.shardNumbers().flatMap(set.rules),
    ],
    shardRules(shard) {
      const out: Rule[] = shard === 0 ? issuerRules() : []
      for (let gid = shard * groupsAShard; gid < Math.min(gidEnd, (shard + 1) * groupsAShard); gid++) {
        const bound = groups.get(gid)
        if (bound) out.push(groupRule(gid, bound))
      }
      return [...out, ...set.rules(shard)]
    },
    get shards() {
      return Math.max(1, Math.ceil(gidEnd / groupsAShard), (set.shardNumbers().at(-1) ?? 0) + 1)
    },
    get floor() {
      return floor
    },
  }
}

/** The status function that est-server and the broker ask. A certificate of another fleet, or none, is unknown, and unknown is refused. */
export function statusOf(set: RuleSet, fleet: string): (membership: Membership | null, issuerKeyId: Bytes | null) => RuleStatus {
  return (membership, issuerKeyId) => {
    if (!membership || membership.fleet !== fleet) return 'unknown'
    return set.isRevoked(membership, issuerKeyId) ? 'revoked' : 'good'
  }
}
