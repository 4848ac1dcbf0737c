// A rule: what one entry of a notice or a snapshot revokes, as a value and as CBOR. Several group bounds share one entry, at half the bytes.
// Which certificates a rule means is said here; who keeps it and merges it is not. Device subset.

import { type Bytes, type CborValue, equalBytes } from '@birthmark/device-sdk/core'
import { RANGE, RICE, readList } from './list-decoder.ts'
import { listSpanMax } from './list-model.ts'

/** Above the highest idx and gid that a certificate can carry. */
export const idxEnd = 0x80000000
/**
 * Runs in one list of a notice. 8 KiB of an honest list hold fewer; a device reads this many in a second or so, and no signed bytes make it
 * read more.
 */
export const noticeRunsMax = 1 << 14

/** Certificates of group `gid` with an `idx` below `bound` are revoked. `reason`: a CRLReason code (RFC 5280 5.3.1). */
export interface GroupRule {
  kind: 'group'
  gid: number
  bound: number
  reason?: number
}

/** Several group bounds, ascending by gid: each the gid's distance from the one before and the bound, seven bits a byte. */
export interface GroupsRule {
  kind: 'groups'
  coded: Bytes
}

/** `length` certificates from idx `start`. */
export interface RangeRule {
  kind: 'range'
  start: number
  length: number
}

/** Everything signed by the authority with this subject key identifier, which its certificates carry as authority key identifier. */
export interface IssuerRule {
  kind: 'issuer'
  keyId: Bytes
}

/** Certificates one by one, among `span` from idx `base`. */
export interface ListRule {
  kind: 'list'
  base: number
  span: number
  /** 1 Golomb-Rice, 2 range coder. */
  codec: number
  coded: Bytes
}

export type Rule = GroupRule | GroupsRule | RangeRule | IssuerRule | ListRule

function isCount(value: CborValue, least: number, most: number): boolean {
  return typeof value === 'number' && value >= least && value <= most
}

/** Calls `onGroup` for each bound of a `groups` rule, and says whether the bytes are such a rule, each number in its fewest bytes. */
export function readGroups(coded: Bytes, onGroup: (gid: number, bound: number) => void): boolean {
  let at = 0
  let gid = 0
  while (at < coded.length) {
    const pair: number[] = []
    for (let part = 0; part < 2; part++) {
      let value = 0
      let unit = 1
      // Five bytes hold 2^31.
      for (let byte = 128; byte >= 128; unit *= 128) {
        if (at >= coded.length || unit > 268435456) return false
        byte = coded[at++]
        if (byte === 0 && unit > 1) return false
        value += (byte & 127) * unit
      }
      pair.push(value)
    }
    gid += pair[0]
    if (pair[0] < 1 || gid >= idxEnd || pair[1] > idxEnd) return false
    onGroup(gid, pair[1])
  }
  return coded.length > 0
}

function ignore(): void {}

/** The bound that `rule` sets for `gid`; 0 when it sets none. */
export function boundFor(rule: Rule, gid: number): number {
  if (rule.kind === 'group') return rule.gid === gid ? rule.bound : 0
  let out = 0
  if (rule.kind === 'groups')
    readGroups(rule.coded, function (id, bound) {
      if (id === gid) out = bound
    })
  return out
}

/** Whether `rule`, of any kind but group bounds, revokes the certificate with `idx` of issuer `issuerKeyId`. */
export function namesCertificate(rule: Rule, idx: number, issuerKeyId: Bytes | null): boolean {
  if (rule.kind === 'range') return idx >= rule.start && idx - rule.start < rule.length
  if (rule.kind === 'issuer') return issuerKeyId !== null && equalBytes(rule.keyId, issuerKeyId)
  if (rule.kind !== 'list' || idx < rule.base || idx - rule.base >= rule.span) return false
  const wanted = idx - rule.base
  let found = false
  const whole = readList(rule.span, rule.codec, rule.coded, listSpanMax, function (start, length) {
    if (wanted >= start && wanted - start < length) found = true
  })
  return whole && found
}

/**
 * Certificates that rules name by themselves: ranges, lists and what a floor adds. An issuer's end is more than there can be. How many a group
 * has is not in the rule: `groupSize` says it, for whoever knows.
 */
export function certificatesNamed(rules: Rule[], floorAdds: number, groupSize?: (gid: number) => number): number {
  let named = Math.max(0, floorAdds)
  function group(gid: number): void {
    if (groupSize) named += groupSize(gid)
  }
  for (let i = 0; i < rules.length; i++) {
    const rule = rules[i]
    if (rule.kind === 'range') named += rule.length
    else if (rule.kind === 'issuer') named += idxEnd
    else if (rule.kind === 'group') group(rule.gid)
    else if (rule.kind === 'groups') readGroups(rule.coded, group)
    else
      readList(rule.span, rule.codec, rule.coded, listSpanMax, function (_start, length) {
        named += length
      })
  }
  return named
}

/** The CBOR of one rule. Values outside their range give bytes that every receiver refuses. */
export function ruleToCbor(rule: Rule): CborValue[] {
  if (rule.kind === 'group') return rule.reason === undefined ? [1, rule.gid, rule.bound] : [1, rule.gid, rule.bound, rule.reason]
  if (rule.kind === 'groups') return [2, rule.coded]
  if (rule.kind === 'range') return [3, rule.start, rule.length]
  if (rule.kind === 'issuer') return [4, rule.keyId]
  return [5, rule.base, rule.span, rule.codec, rule.coded]
}

/** Null for a type or list code that this version doesn't know; false for one that it does, in a wrong form. Lists are read through once. */
export function ruleOfCbor(value: CborValue, runsMax: number): Rule | null | false {
  if (!Array.isArray(value) || !isCount(value[0], 1, 255)) return false
  const type = value[0] as number
  if (type > 5) return null
  const first = value[1] as number
  const second = value[2] as number
  const size = value.length
  if (type === 1) {
    if (size < 3 || size > 4 || !isCount(first, 1, idxEnd - 1) || !isCount(second, 0, idxEnd)) return false
    const rule: Rule = { kind: 'group', gid: first, bound: second }
    if (size === 4) {
      if (!isCount(value[3], 0, 255)) return false
      rule.reason = value[3] as number
    }
    return rule
  }
  if (type === 2) {
    const coded = value[1]
    return size === 2 && coded instanceof Uint8Array && readGroups(coded, ignore) && { kind: 'groups', coded: coded }
  }
  if (type === 4) {
    const keyId = value[1]
    // RFC 5280 4.2.1.2 has 20 bytes; 64 are those of the longest hash in use.
    return size === 2 && keyId instanceof Uint8Array && keyId.length > 0 && keyId.length <= 64 && { kind: 'issuer', keyId: keyId }
  }
  if (!isCount(first, 0, idxEnd - 1) || !isCount(second, 1, idxEnd - first)) return false
  if (type === 3) return size === 3 && { kind: 'range', start: first, length: second }
  const codec = value[3]
  const coded = value[4]
  if (size !== 5 || second > listSpanMax || !isCount(codec, 1, 255) || !(coded instanceof Uint8Array)) return false
  if (codec !== RICE && codec !== RANGE) return null
  return readList(second, codec, coded, runsMax, ignore) && { kind: 'list', base: first, span: second, codec: codec, coded: coded }
}
