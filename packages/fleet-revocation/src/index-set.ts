// A growing set of certificate indices: one bit each, in shards of 2^17 that exist once something in them is revoked, so that a question is
// one look-up and the set can be told shard by shard. A shard that is revoked as a whole takes no memory.

import type { Bytes } from '@birthmark/device-sdk/core'
import { RevocationError } from './errors.ts'
import type { ListRule, RangeRule, Rule } from './rule.ts'
import { ruleOfRuns } from './rule-packing.ts'

/** 2^17 indices: 16 KB as bits, which is also the most that their list can take; two MQTT packets of 64 KB hold four. */
export const shardBits = 17
const shardSize = 1 << shardBits
// 64 MB of bits: half a billion certificates, each 131,072 of which have a revoked one among them. More is not a fleet but an attack.
const shardsMax = 4096

interface Shard {
  /** Null when all are in the set. */
  bits: Uint8Array | null
  members: number
  /** How the shard is told, until it grows. */
  rules: Rule[] | null
}

export interface IndexSet {
  has(idx: number): boolean
  /** True when something was added. `reserve` first. */
  add(start: number, length: number): boolean
  /** As `add` of every bit that is set, `start` being a multiple of eight; all of them in one shard. Throws `rules_limit`. */
  addBits(start: number, bits: Bytes): boolean
  /** Forgets what lies below `floor`, and takes no more of it. */
  raise(floor: number): void
  /** Throws `rules_limit` when these runs (start, length by turns) take more memory than a fleet may. */
  reserve(runs: number[]): void
  /** Numbers of the shards that hold anything, ascending. */
  shardNumbers(): number[]
  /** Ranges and at most one list for what a shard holds. */
  rules(shard: number): Rule[]
}

/** Sets bits [from, to); how many were not set before. */
function fill(bits: Uint8Array, from: number, to: number): number {
  let added = 0
  for (let i = from; i < to; ) {
    const byte = i >> 3
    if ((i & 7) === 0 && i + 8 <= to) {
      for (let left = ~bits[byte] & 255; left; left &= left - 1) added++
      bits[byte] = 255
      i += 8
      continue
    }
    const mask = 1 << (i & 7)
    if (!(bits[byte] & mask)) added++
    bits[byte] |= mask
    i++
  }
  return added
}

function runsOfBits(bits: Uint8Array, base: number): Uint32Array {
  const out: number[] = []
  let start = -1
  for (let i = 0; i < shardSize; i++) {
    // Whole bytes of nothing, or of everything, change no run.
    if ((i & 7) === 0 && bits[i >> 3] === (start < 0 ? 0 : 255)) {
      i += 7
      continue
    }
    const set = (bits[i >> 3] >> (i & 7)) & 1
    if (set && start < 0) start = i
    if (!set && start >= 0) {
      out.push(base + start, i - start)
      start = -1
    }
  }
  if (start >= 0) out.push(base + start, shardSize - start)
  return Uint32Array.from(out)
}

export function createIndexSet(): IndexSet {
  const shards = new Map<number, Shard>()
  let lowest = 0

  function reserve(runs: number[]): void {
    // Each run begins or ends in at most two shards that it doesn't fill.
    const partial = new Set<number>()
    for (let i = 0; i < runs.length; i += 2) {
      const [from, end] = [Math.max(runs[i], lowest), runs[i] + runs[i + 1]]
      if (from >= end) continue
      for (const at of [Math.floor(from / shardSize), Math.floor((end - 1) / shardSize)]) if (!shards.has(at)) partial.add(at)
    }
    let inBits = 0
    for (const shard of shards.values()) if (shard.bits) inBits++
    if (inBits + partial.size > shardsMax) throw new RevocationError('rules_limit', `more than ${shardsMax} shards`)
  }

  /** Bits of the shard; a whole one that has to lose some gets them back first. */
  function bitsOf(number: number): Shard & { bits: Uint8Array } {
    const shard = shards.get(number) ?? { bits: new Uint8Array(shardSize / 8), members: 0, rules: null }
    shards.set(number, shard)
    shard.bits ??= new Uint8Array(shardSize / 8).fill(255)
    return shard as Shard & { bits: Uint8Array }
  }

  return {
    has(idx) {
      const shard = shards.get(idx >>> shardBits)
      if (shard === undefined) return false
      return shard.bits === null || ((shard.bits[(idx & (shardSize - 1)) >> 3] >> (idx & 7)) & 1) === 1
    },
    reserve,
    add(start, length) {
      let grew = false
      const [from, end] = [Math.max(start, lowest), start + length]
      for (let at = from; at < end; ) {
        const number = Math.floor(at / shardSize)
        const base = number * shardSize
        const to = Math.min(end, base + shardSize)
        const known = shards.get(number)
        if (!(known && known.bits === null)) {
          if (at === base && to === base + shardSize) {
            shards.set(number, { bits: null, members: shardSize, rules: null })
            grew = true
          } else {
            const shard = bitsOf(number)
            const added = fill(shard.bits, at - base, to - base)
            if (added > 0) {
              grew = true
              shard.members += added
              shard.rules = null
              if (shard.members === shardSize) shards.set(number, { bits: null, members: shardSize, rules: null })
            }
          }
        }
        at = to
      }
      return grew
    },
    addBits(start, bits) {
      const number = Math.floor(start / shardSize)
      const known = shards.get(number)
      if (known?.bits === null || bits.every(octet => octet === 0)) return false
      if (!known) reserve([start, 1])
      const shard = bitsOf(number)
      const at = (start - number * shardSize) >> 3
      let added = 0
      for (let i = 0; i < bits.length; i++) {
        let fresh = bits[i] & ~shard.bits[at + i]
        // Below the floor everything is revoked as it is.
        if (start + i * 8 < lowest) for (let bit = 0; bit < 8; bit++) if (start + i * 8 + bit < lowest) fresh &= ~(1 << bit)
        shard.bits[at + i] |= fresh
        for (; fresh; fresh &= fresh - 1) added++
      }
      shard.members += added
      if (added > 0) shard.rules = null
      if (shard.members === 0) shards.delete(number)
      else if (shard.members === shardSize) shards.set(number, { bits: null, members: shardSize, rules: null })
      return added > 0
    },
    raise(floor) {
      if (floor <= lowest) return
      lowest = floor
      for (const number of [...shards.keys()]) {
        const base = number * shardSize
        if (base + shardSize <= floor) shards.delete(number)
        else if (base < floor) {
          const shard = bitsOf(number)
          const before = runsOfBits(shard.bits, 0)
          shard.bits.fill(0)
          shard.members = 0
          shard.rules = null
          for (let i = 0; i < before.length; i += 2) {
            const from = Math.max(before[i], floor - base)
            const to = before[i] + before[i + 1]
            if (to > from) shard.members += fill(shard.bits, from, to)
          }
          if (shard.members === 0) shards.delete(number)
        }
      }
    },
    shardNumbers: () => [...shards.keys()].sort((a, b) => a - b),
    rules(number) {
      const shard = shards.get(number)
      if (!shard) return []
      const base = number * shardSize
      shard.rules ??= [shard.bits ? ruleOfRuns(runsOfBits(shard.bits, base)) : { kind: 'range', start: base, length: shardSize }]
      return shard.rules as (RangeRule | ListRule)[]
    },
  }
}
