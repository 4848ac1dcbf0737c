// Sets of numbers as bits: certificates by idx, devices by key. 4,096 numbers a block, the lowest bit of the first octet first; only blocks that
// hold something exist. A quarter of a million of a million numbers are 128 KB, where a row each would be a minute of writing.

import type { Bytes } from '@birthmark/device-sdk/core'

/** A block is also a shard of the revocation lists. */
export const blockBits = 12
export const blockSize = 1 << blockBits
const blockBytes = blockSize / 8

export interface BitBlock {
  /** Holds the numbers from `block << 12` on. */
  block: number
  /** 512 octets. */
  bits: Bytes
}

export const blockOf = (n: number): number => Math.floor(n / blockSize)

/** Of numbers in any order, each below 2^43. Ascending by block. */
export function blocksOf(numbers: Iterable<number>): BitBlock[] {
  const found = new Map<number, Bytes>()
  let block = -1
  let bits: Bytes = new Uint8Array(0)
  for (const n of numbers) {
    if (blockOf(n) !== block) {
      block = blockOf(n)
      bits = found.get(block) ?? new Uint8Array(blockBytes)
      found.set(block, bits)
    }
    const at = n - block * blockSize
    bits[at >> 3] |= 1 << (at & 7)
  }
  return ordered(found)
}

/** The numbers from `start` on, `length` of them. */
export function blocksOfRange(start: number, length: number): BitBlock[] {
  const out: BitBlock[] = []
  const end = start + length
  for (let block = blockOf(start); block * blockSize < end; block++) {
    const base = block * blockSize
    const bits = new Uint8Array(blockBytes)
    const [from, to] = [Math.max(start - base, 0), Math.min(end - base, blockSize)]
    if (to - from === blockSize) bits.fill(255)
    else for (let at = from; at < to; at++) bits[at >> 3] |= 1 << (at & 7)
    out.push({ block, bits })
  }
  return out
}

/** Calls back with each number, ascending. */
export function eachNumber(blocks: readonly BitBlock[], on: (n: number) => void): void {
  for (const { block, bits } of blocks)
    for (let octet = 0; octet < bits.length; octet++)
      if (bits[octet] !== 0) for (let bit = 0; bit < 8; bit++) if ((bits[octet] >> bit) & 1) on(block * blockSize + octet * 8 + bit)
}

export function countNumbers(blocks: readonly BitBlock[]): number {
  let count = 0
  for (const { bits } of blocks) for (const octet of bits) for (let left = octet; left; left &= left - 1) count++
  return count
}

export function hasNumber(bits: Bytes | null | undefined, n: number): boolean {
  const at = n % blockSize
  return bits ? ((bits[at >> 3] >> (at & 7)) & 1) === 1 : false
}

/** What either holds. */
export function orBits(a: Bytes | null | undefined, b: Bytes): Bytes {
  const out = new Uint8Array(b)
  if (a) for (let i = 0; i < out.length; i++) out[i] |= a[i]
  return out
}

/** What `blocks` hold and `known` do not; blocks that are empty then are gone. */
export function withoutKnown(blocks: readonly BitBlock[], known: readonly BitBlock[]): BitBlock[] {
  const before = new Map(known.map(({ block, bits }) => [block, bits]))
  return blocks.flatMap(({ block, bits }) => {
    const other = before.get(block)
    const left = other ? bits.map((octet, i) => octet & ~other[i]) : bits
    return left.some(octet => octet !== 0) ? [{ block, bits: left }] : []
  })
}

export function joinBlocks(a: readonly BitBlock[], b: readonly BitBlock[]): BitBlock[] {
  const found = new Map(a.map(({ block, bits }) => [block, bits]))
  for (const { block, bits } of b) found.set(block, orBits(found.get(block), bits))
  return ordered(found)
}

const ordered = (found: Map<number, Bytes>): BitBlock[] =>
  [...found].sort((a, b) => a[0] - b[0]).map(([block, bits]) => ({ block, bits }))

/** A block as it is kept: two octets a number while that is shorter than the bits, which a single certificate's is. */
export function packBits(bits: Bytes): Bytes {
  const numbers: number[] = []
  eachNumber([{ block: 0, bits }], n => numbers.push(n))
  return numbers.length * 2 < blockBytes ? new Uint8Array(numbers.flatMap(n => [n & 255, n >> 8])) : bits
}

export function unpackBits(packed: Bytes): Bytes {
  if (packed.length === blockBytes) return packed
  const bits = new Uint8Array(blockBytes)
  for (let i = 0; i + 1 < packed.length; i += 2) {
    const at = packed[i] + packed[i + 1] * 256
    bits[at >> 3] |= 1 << (at & 7)
  }
  return bits
}
