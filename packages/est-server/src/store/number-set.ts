// Sets of whole numbers (devices by their key, certificates by their idx) as a campaign freezes them: packed for the medium, a bitmap for
// questions. A quarter of a million devices of a million take about 300 KB packed and 125 KB as a bitmap, and a question takes no time.

import type { Bytes } from '@birthmark/device-sdk/core'
import { EstServerError } from '../errors.ts'

/** As many as a fleet may have devices; more than that is no answer of ours. */
export const numbersMax = 16_777_216
/** An idx and a row key both stay below. */
const numberMax = 2 ** 31

/** Ascending, without repetitions; each as its distance from the one before, seven bits a byte, lowest first. */
export function packNumbers(ascending: ArrayLike<number>): Bytes {
  // Five bytes hold 2^31; most distances of a dense set take one.
  let out = new Uint8Array(Math.max(16, ascending.length * 2))
  let at = 0
  let before = -1
  for (let i = 0; i < ascending.length; i++) {
    const number = ascending[i]
    if (!(number > before && number < numberMax)) throw new TypeError('numbers are packed in ascending order, from 0 to 2^31')
    if (at + 5 > out.length) {
      const larger = new Uint8Array(out.length * 2)
      larger.set(out)
      out = larger
    }
    let distance = number - before - 1
    for (; distance > 127; distance >>>= 7) out[at++] = (distance & 127) | 128
    out[at++] = distance
    before = number
  }
  return out.slice(0, at)
}

/** Throws `store_failed` for bytes that packNumbers does not make. */
export function unpackNumbers(packed: Bytes): Uint32Array {
  let count = 0
  for (const byte of packed) if (byte < 128) count++
  const broken = () => new EstServerError('store_failed', 'a set of numbers is damaged')
  if (count > numbersMax || (packed.length > 0 && packed[packed.length - 1] > 127)) throw broken()
  const out = new Uint32Array(count)
  let at = 0
  let before = -1
  for (let i = 0; i < count; i++) {
    let distance = 0
    let factor = 1
    let byte = packed[at++]
    for (; byte > 127; byte = packed[at++]) {
      distance += (byte & 127) * factor
      factor *= 128
    }
    before += distance + byte * factor + 1
    if (before >= numberMax) throw broken()
    out[i] = before
  }
  return out
}

export interface NumberSet {
  readonly size: number
  has(number: number): boolean
}

export interface GrowingNumberSet extends NumberSet {
  add(number: number): void
}

const blockBits = 16
const blockSize = 1 << blockBits

/** A bitmap in blocks of 65,536 numbers, 8 KB each, so that far-apart numbers do not pay for what lies between. */
export function numberSet(numbers: Iterable<number> = []): GrowingNumberSet {
  const blocks = new Map<number, Uint32Array>()
  let size = 0
  const add = (number: number): void => {
    const high = number >>> blockBits
    let block = blocks.get(high)
    if (block === undefined) {
      block = new Uint32Array(blockSize / 32)
      blocks.set(high, block)
    }
    const low = number & (blockSize - 1)
    const bit = 1 << (low & 31)
    if ((block[low >>> 5] & bit) === 0) size++
    block[low >>> 5] |= bit
  }
  for (const number of numbers) add(number)
  return {
    add,
    get size() {
      return size
    },
    has(number) {
      const low = number & (blockSize - 1)
      const block = blocks.get(number >>> blockBits)
      return block !== undefined && (block[low >>> 5] & (1 << (low & 31))) !== 0
    },
  }
}

/** Of two ascending lists, one. */
export function mergeNumbers(a: Uint32Array, b: Uint32Array): Uint32Array {
  if (b.length === 0) return a
  const all = new Uint32Array(a.length + b.length)
  all.set(a)
  all.set(b, a.length)
  all.sort()
  let kept = 0
  for (let i = 0; i < all.length; i++) if (i === 0 || all[i] !== all[kept - 1]) all[kept++] = all[i]
  return all.slice(0, kept)
}
