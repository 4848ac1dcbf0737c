// A list of indices out of its bytes, run by run, with a few hundred bytes of memory whatever the bytes say: every loop ends with the
// input or a declared limit, and nothing is collected here. Two codes: Golomb-Rice with a block index, and a range coder over run lengths.
// What a list means is left to others. Device subset.

import type { Bytes } from '@birthmark/device-sdk/core'
import { bucketsMax, firstAt, gapModel, type LengthModel, learn, listSpanMax, lowAt, runModel, secondAt } from './list-model.ts'

export const RICE = 1
export const RANGE = 2
/** Members that a block of the Golomb-Rice code holds: a reader in search of one index decodes at most this many. */
export const riceBlockSize = 256

/** `start` counts from the list's base. Runs come ascending and don't touch one another. */
export type OnRun = (start: number, length: number) => void

interface Reader {
  bytes: Bytes
  at: number
  bad: boolean
}

/** Seven bits a byte, lowest first, the top bit says that more follow; up to 2^21, and in the fewest bytes. */
function readCount(reader: Reader): number {
  let value = 0
  for (let shift = 0; shift < 21; shift += 7) {
    const byte = reader.bytes[reader.at++]
    if (byte === undefined) break
    value |= (byte & 127) << shift
    if (byte < 128) {
      if (byte === 0 && shift > 0) break
      return value
    }
  }
  reader.bad = true
  return 0
}

interface RunMaker {
  onRun: OnRun
  start: number
  end: number
  left: number
}

/** Members one by one into runs. False when there are more runs than allowed. */
function member(maker: RunMaker, idx: number): boolean {
  if (idx === maker.end && maker.end > maker.start) {
    maker.end++
    return true
  }
  if (maker.end > maker.start) maker.onRun(maker.start, maker.end - maker.start)
  maker.start = idx
  maker.end = idx + 1
  return --maker.left >= 0
}

/** One block: `count` members after `first` in exactly the bytes from `from` to `to`, unused bits zero. */
function readRiceBlock(
  bytes: Bytes,
  from: number,
  to: number,
  k: number,
  first: number,
  count: number,
  span: number,
  maker: RunMaker,
): boolean {
  let bit = from * 8
  const end = to * 8
  let idx = first
  for (let n = 0; n < count; n++) {
    let quotient = 0
    // Ends with the block: each turn takes a bit.
    while (bit < end && (bytes[bit >> 3] >> (7 - (bit & 7))) & 1) {
      quotient++
      bit++
    }
    bit++
    if (bit + k > end) return false
    let rest = 0
    for (let i = 0; i < k; i++, bit++) rest = rest * 2 + ((bytes[bit >> 3] >> (7 - (bit & 7))) & 1)
    idx += quotient * (1 << k) + rest + 1
    if (idx >= span || !member(maker, idx)) return false
  }
  if ((bit + 7) >> 3 !== to) return false
  return (bit & 7) === 0 || (bytes[bit >> 3] & (255 >> (bit & 7))) === 0
}

/**
 * `members, k, then per block (first member − first of the block before, bytes of the block), then the blocks`. A block's first member is in
 * the index, each other one the gap to the one before, less one: quotient by 2^k in ones and a zero, k bits of remainder, highest bit first.
 */
function readRice(span: number, bytes: Bytes, runsMax: number, onRun: OnRun): boolean {
  const reader: Reader = { bytes: bytes, at: 0, bad: false }
  const members = readCount(reader)
  const k = bytes[reader.at++]
  // A member but a block's first takes a bit at least, and an index entry two bytes.
  if (reader.bad || !(k <= 20) || members < 1 || members > span || members > bytes.length * 8 + riceBlockSize) return false
  const blocks = Math.ceil(members / riceBlockSize)
  const indexAt = reader.at
  // The index is walked twice rather than kept: first to find where the blocks begin.
  for (let b = 0; b < 2 * blocks && !reader.bad; b++) readCount(reader)
  if (reader.bad) return false
  let at = reader.at
  const maker: RunMaker = { onRun: onRun, start: 0, end: 0, left: runsMax }
  let first = 0
  reader.at = indexAt
  for (let b = 0; b < blocks; b++) {
    const step = readCount(reader)
    const size = readCount(reader)
    first += step
    // The first member comes after the last of the block before.
    if (first >= span || (b > 0 && first < maker.end) || at + size > bytes.length || !member(maker, first)) return false
    if (!readRiceBlock(bytes, at, at + size, k, first, Math.min(riceBlockSize, members - b * riceBlockSize) - 1, span, maker))
      return false
    at += size
  }
  if (at !== bytes.length) return false
  onRun(maker.start, maker.end - maker.start)
  return true
}

interface RangeReader extends Reader {
  range: number
  code: number
}

function readBit(reader: RangeReader, model: LengthModel, context: number): number {
  const bound = (reader.range >>> 16) * (model.chance[context] >>> 6)
  const bit = reader.code < bound ? 1 : 0
  if (bit) reader.range = bound
  else {
    reader.code -= bound
    reader.range -= bound
  }
  while (reader.range < 16777216) {
    // Past the end come zeros, which the encoder leaves out.
    const byte = reader.at < reader.bytes.length ? reader.bytes[reader.at] : 0
    reader.at++
    reader.range = reader.range * 256
    reader.code = reader.code * 256 + byte
  }
  learn(model, context, bit)
  return bit
}

function readLength(reader: RangeReader, model: LengthModel): number {
  let bucket = 0
  while (bucket < bucketsMax - 1 && !readBit(reader, model, bucket)) bucket++
  if (bucket === 0) return 1
  let value = 2 + readBit(reader, model, firstAt + bucket)
  if (bucket > 1) value = 2 * value + readBit(reader, model, secondAt + 2 * bucket + (value & 1))
  for (let j = bucket - 3; j >= 0; j--) value = 2 * value + readBit(reader, model, lowAt + j)
  return value
}

/** `members, runs, then gap and run length by turns`; the last run's length is what is left. The first gap is counted from −1. */
function readRange(span: number, bytes: Bytes, runsMax: number, onRun: OnRun): boolean {
  const head: Reader = { bytes: bytes, at: 0, bad: false }
  const members = readCount(head)
  const runs = readCount(head)
  if (head.bad || runs < 1 || runs > runsMax || members < runs || members > span || runs - 1 > span - members) return false
  const reader: RangeReader = { bytes: bytes, at: head.at, bad: false, range: 4294967295, code: 0 }
  for (let i = 0; i < 4; i++) {
    const byte = reader.at < bytes.length ? bytes[reader.at] : 0
    reader.at++
    reader.code = reader.code * 256 + byte
  }
  // Never written; every other code stays below the range.
  if (reader.code === 4294967295) return false
  const gaps = gapModel(span, members, runs)
  const lengths = runModel(members, runs)
  let at = -1
  let left = members
  for (let run = 0; run < runs; run++) {
    at += readLength(reader, gaps)
    const length = run === runs - 1 ? left : readLength(reader, lengths)
    left -= length
    // Each run to come takes a member at least, and they must fit.
    if (left < runs - 1 - run || at + length > span - left) return false
    onRun(at, length)
    at += length
  }
  // Nothing is left over, and the zeros at the end were left out: a set has one code here.
  return reader.at >= bytes.length && (bytes.length === head.at || bytes[bytes.length - 1] !== 0)
}

/**
 * Calls `onRun` for each run of the list. False for bytes that no encoder writes: then what was called before must count for nothing.
 * `span`: the list speaks of that many indices from its base. At most `runsMax` runs are read, which bounds the time.
 */
export function readList(span: number, codec: number, coded: Bytes, runsMax: number, onRun: OnRun): boolean {
  if (!(span >= 1 && span <= listSpanMax)) return false
  if (codec === RICE) return readRice(span, coded, runsMax, onRun)
  return codec === RANGE && readRange(span, coded, runsMax, onRun)
}
