// What a relying party must not forget over a restart, as bytes: rules, numbers and the hashes by which notices are known. Written and
// read by this version and its successors only; where it is kept is the caller's.

import { type Bytes, type CborValue, decodeCbor, encodeCbor } from '@birthmark/device-sdk/core'
import type { Word } from './acknowledger.ts'
import { RevocationError } from './errors.ts'
import { listSpanMax } from './list-model.ts'
import { ringSize } from './notice.ts'
import { type Rule, ruleOfCbor, ruleToCbor } from './rule.ts'
import { packRules } from './rule-packing.ts'

export interface Beyond {
  seq: number
  sha256: Bytes
  previous: Bytes | null
}

export interface RelyingPartyState {
  /** Every notice up to and including this number was taken in. */
  through: number
  /** What the last notices up to `through` are known by, that one last; at most `recentMax`. */
  recent: Bytes[]
  /** Taken in, but something before them is missing. */
  beyond: Beyond[]
  /** A notice didn't name the one before it, or a number was spent twice. For good: only a person can say which history is true. */
  forked: boolean
  /** The newest notice seen, by which freshness is judged. */
  head: { seq: number; issuedAt: number; maxAge: number; anchor: Bytes } | null
  rules: Rule[]
  floor: number
  /** What was last said of it, or was about to be when it was saved: the same is said after a restart. */
  word: Word | null
  /** Sessions that were closed since. */
  unsaidCut: number
  /** Sessions that the rules deny may still be open. */
  uncut: boolean
}

/** What a bus can still show: the ring. An older number with something new to say is found by that. */
export const recentMax = ringSize

const version = 4
// Group bounds are one entry but for those with a reason (five values each), a shard of certificates is one or two.
const limits = { depthMax: 4, itemsMax: 6 << 20 }

export function emptyState(): RelyingPartyState {
  return {
    through: 0,
    recent: [],
    beyond: [],
    forked: false,
    head: null,
    rules: [],
    floor: 0,
    word: null,
    unsaidCut: 0,
    uncut: false,
  }
}

export function encodeRelyingPartyState(fleet: string, state: RelyingPartyState): Bytes {
  const { head, word } = state
  return encodeCbor([
    version,
    fleet,
    state.through,
    state.recent,
    state.beyond.map(({ seq, sha256, previous }) => [seq, sha256, previous]),
    state.forked,
    head ? [head.seq, head.issuedAt, head.maxAge, head.anchor] : null,
    packRules(state.rules).map(ruleToCbor),
    state.floor,
    word ? [word.seq, word.appliedAt, word.sessionsClosed] : null,
    state.unsaidCut,
    state.uncut,
  ])
}

function list(value: CborValue): CborValue[] {
  if (!Array.isArray(value)) throw new RevocationError('state_malformed', 'expected a list')
  return value
}

function count(value: CborValue): number {
  if (typeof value !== 'number' || value < 0) throw new RevocationError('state_malformed', 'expected a number')
  return value
}

function octets(value: CborValue): Bytes {
  if (!(value instanceof Uint8Array)) throw new RevocationError('state_malformed', 'expected bytes')
  return value
}

/** Throws `state_malformed`: to begin with nothing would forget who is revoked. */
export function decodeRelyingPartyState(bytes: Bytes, fleet: string): RelyingPartyState {
  let value: CborValue
  try {
    value = decodeCbor(bytes, limits)
  } catch (error) {
    throw new RevocationError('state_malformed', 'not the bytes that were saved', error)
  }
  const fields = list(value)
  if (fields.length !== 12 || fields[0] !== version) throw new RevocationError('state_malformed', 'of another version')
  if (fields[1] !== fleet) throw new RevocationError('state_malformed', 'of another fleet')
  const [head, word] = [fields[6], fields[9]].map(field => (field === null ? null : list(field)))
  return {
    through: count(fields[2]),
    recent: list(fields[3]).map(octets),
    beyond: list(fields[4]).map(entry => {
      const [seq, sha256, previous] = list(entry)
      return { seq: count(seq), sha256: octets(sha256), previous: previous === null ? null : octets(previous) }
    }),
    forked: fields[5] === true,
    head: head && { seq: count(head[0]), issuedAt: count(head[1]), maxAge: count(head[2]), anchor: octets(head[3]) },
    rules: list(fields[7]).map(value => {
      const rule = ruleOfCbor(value, listSpanMax)
      if (!rule) throw new RevocationError('state_malformed', 'expected a rule')
      return rule
    }),
    floor: count(fields[8]),
    word: word && { seq: count(word[0]), appliedAt: count(word[1]), sessionsClosed: count(word[2]) },
    unsaidCut: count(fields[10]),
    uncut: fields[11] === true,
  }
}
