// All that is revoked, in signed shards that a relying party merges when notices alone no longer lead it up to now. Each shard stands for
// itself: it says up to which notice it is complete, and a party that has one of every number is complete up to the oldest of them.

import { setImmediate as nextTurn } from 'node:timers/promises'
import { type Bytes, type CborValue, decodeCbor, encodeCbor, mapEntries } from '@birthmark/device-sdk/core'
import { RevocationError } from './errors.ts'
import { listSpanMax } from './list-model.ts'
import { isBytes, isCount, isFleet, type NoticeProblem } from './notice.ts'
import { idxEnd, type Rule, ruleOfCbor, ruleToCbor } from './rule.ts'
import { packRules } from './rule-packing.ts'
import type { RuleSet } from './rule-set.ts'
import { type NoticeKeys, signPayload } from './sign-notice.ts'
import { type NoticeSigner, type NoticeVerify, openSigned } from './signed.ts'

/** A broker takes a PUBLISH of 64 KiB. A shard's certificates take 17 KB at most, its 2,048 groups 29 KB. */
export const snapshotBytesMax = 60 * 1024
// 2^31 indices by 2^17.
const shardsMax = 1 << 14
const rulesMax = 4096

export interface SnapshotBody {
  fleet: string
  /** Every notice up to this one is in it, as far as it concerns the shard. */
  seq: number
  /** `noticeSha256` of that notice. */
  noticeSha256: Bytes
  /** Seconds since 1970. */
  issuedAt: number
  shard: number
  /** Of which there are that many. */
  shards: number
  rules: Rule[]
  unknownRules: number
  floor: number
}

export function snapshotTopic(fleet: string, shard: number | '+'): string {
  return `fr/1/${fleet}/snap/${shard}`
}

export function encodeSnapshotBody(body: SnapshotBody): Bytes {
  const map: [CborValue, CborValue][] = [
    [1, body.fleet],
    [2, body.seq],
    [3, body.noticeSha256],
    [4, body.issuedAt],
    [5, body.shard],
    [6, body.shards],
    [7, body.rules.map(ruleToCbor)],
  ]
  if (body.floor > 0) map.push([9, body.floor])
  return encodeCbor({ map })
}

/** Reads a signed body, after the signature was verified. */
export function decodeSnapshotBody(payload: Bytes): SnapshotBody | NoticeProblem {
  let entries: [CborValue, CborValue][]
  try {
    entries = mapEntries(decodeCbor(payload, { depthMax: 3, itemsMax: 20 + 6 * rulesMax }))
  } catch {
    return 'notice_malformed'
  }
  const fields = new Map(entries)
  for (const key of fields.keys()) if (!isCount(key, 1, 9) || key === 8) return 'notice_unsupported'
  const get = (key: number): CborValue => fields.get(key) ?? null
  const [fleet, seq, noticeSha256, issuedAt, shard, shards, wire] = [1, 2, 3, 4, 5, 6, 7].map(get)
  const floor = fields.get(9) ?? 0
  const well =
    isFleet(fleet) &&
    isCount(seq, 1, Number.MAX_SAFE_INTEGER) &&
    isBytes(noticeSha256, 32, 32) &&
    isCount(issuedAt, 0, Number.MAX_SAFE_INTEGER) &&
    isCount(shards, 1, shardsMax) &&
    isCount(shard, 0, (shards as number) - 1) &&
    isCount(floor, 0, idxEnd)
  if (!well || !Array.isArray(wire) || wire.length > rulesMax) return 'notice_malformed'
  const rules: Rule[] = []
  let unknownRules = 0
  for (const value of wire) {
    const rule = ruleOfCbor(value, listSpanMax)
    if (rule === false) return 'notice_malformed'
    if (rule) rules.push(rule)
    else unknownRules++
  }
  return {
    fleet: fleet as string,
    seq: seq as number,
    noticeSha256: noticeSha256 as Bytes,
    issuedAt: issuedAt as number,
    shard: shard as number,
    shards: shards as number,
    rules,
    unknownRules,
    floor: floor as number,
  }
}

/** Judges received bytes, as `openNotice` does a notice. */
export function openSnapshot(
  bytes: Bytes,
  fleet: string,
  signers: NoticeSigner[],
  verify: NoticeVerify,
  done: (problem: NoticeProblem | null, body: SnapshotBody | null, countersigned: boolean) => void,
): void {
  openSigned(bytes, snapshotBytesMax, 'snapshot', signers, verify, (problem, payload, countersigned) => {
    const body = payload ? decodeSnapshotBody(payload) : (problem ?? 'notice_malformed')
    if (typeof body === 'string') done(body, null, false)
    else if (body.fleet !== fleet) done('notice_other_fleet', null, false)
    else done(null, body, countersigned)
  })
}

export interface SnapshotFacts {
  /** Of the newest notice that is in `rules`. */
  seq: number
  noticeSha256: Bytes
  rules: RuleSet
}

/** All shards of one moment, signed; `countersign`: by two keys. */
export async function signSnapshot(
  fleet: string,
  facts: SnapshotFacts,
  issuedAt: number,
  keys: NoticeKeys,
  countersign = false,
): Promise<Bytes[]> {
  const { seq, noticeSha256, rules } = facts
  const { shards, floor } = rules
  const out: Bytes[] = []
  for (let shard = 0; shard < shards; shard++) {
    // A full shard is some 30 ms of coding, and a fleet of a million has eight.
    if (shard > 0) await nextTurn()
    const told = packRules(rules.shardRules(shard))
    const body = { fleet, seq, noticeSha256, issuedAt, shard, shards, rules: told, unknownRules: 0, floor }
    const snapshot = await signPayload('snapshot', encodeSnapshotBody(body), keys, countersign)
    if (snapshot.length > snapshotBytesMax)
      throw new RevocationError('rules_limit', `shard ${shard} takes ${snapshot.length} bytes`)
    out.push(snapshot)
  }
  return out
}

export interface Snapshots {
  /** The shards by number, at most `everyNotices` behind; empty before the first notice. Made when asked for, once for all who ask. */
  current(): Promise<readonly Bytes[]>
}

export interface SnapshotsOptions {
  fleet: string
  /** The newest notice there is; null before the first. */
  newest(): Promise<{ seq: number; sha256: Bytes } | null>
  /** The fleet's rules as they are recorded now. */
  rules(): Promise<RuleSet>
  keys: NoticeKeys
  /** Where receivers ask for two signatures: a snapshot says as much as all notices together. */
  countersign?: boolean
  now(): number
}

/** The ring holds 64 notices: who starts from a snapshot finds the rest there, and twice as much time as it needs. */
export const everyNotices = 32

export function createSnapshots({ fleet, newest, rules, keys, countersign, now }: SnapshotsOptions): Snapshots {
  let made: { seq: number; shards: readonly Bytes[] } = { seq: 0, shards: [] }
  let making: Promise<readonly Bytes[]> | null = null

  async function make(): Promise<readonly Bytes[]> {
    // The number first: rules that are recorded in between are in it without being named, which does no harm. The reverse would.
    const head = await newest()
    if (!head || (made.seq > 0 && head.seq < made.seq + everyNotices)) return made.shards
    const facts = { seq: head.seq, noticeSha256: head.sha256, rules: await rules() }
    made = { seq: head.seq, shards: await signSnapshot(fleet, facts, Math.floor(now()), keys, countersign) }
    return made.shards
  }

  return {
    current: () => {
      making ??= make().finally(() => {
        making = null
      })
      return making
    },
  }
}
