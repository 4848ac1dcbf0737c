// A set of indices into bytes, by whichever of the two codes is shorter. The signer's side; receivers need list-decoder.ts alone.

import { type Bytes, concatBytes } from '@birthmark/device-sdk/core'
import { RevocationError } from './errors.ts'
import { RANGE, RICE, riceBlockSize } from './list-decoder.ts'
import { bucketsMax, firstAt, gapModel, type LengthModel, learn, listSpanMax, lowAt, runModel, secondAt } from './list-model.ts'

/** start, length, start, length, … ascending, runs apart by one index at least. */
export type Runs = Uint32Array

export interface CodedList {
  codec: number
  coded: Bytes
}

function count(value: number): number[] {
  const out: number[] = []
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return [...out, rest]
    out.push(128 + (rest % 128))
  }
}

/** Bits into bytes, highest first, growing as needed. */
function createBitWriter() {
  let bytes = new Uint8Array(1024)
  let bits = 0
  const put = (bit: number): void => {
    if (bits >> 3 >= bytes.length) {
      const more = new Uint8Array(bytes.length * 2)
      more.set(bytes)
      bytes = more
    }
    if (bit) bytes[bits >> 3] |= 128 >> (bits & 7)
    bits++
  }
  return {
    put,
    length: () => (bits + 7) >> 3,
    align: () => {
      bits = (bits + 7) & ~7
    },
    bytes: () => bytes.slice(0, (bits + 7) >> 3),
  }
}

export function membersOf(runs: Runs): number {
  let members = 0
  for (let i = 1; i < runs.length; i += 2) members += runs[i]
  return members
}

/** Golomb-Rice; see list-decoder.ts for the form. */
export function encodeRice(span: number, runs: Runs): Bytes {
  const members = membersOf(runs)
  // The divisor nearest to the mean gap times ln 2 (Golomb 1966), here by its logarithm.
  const mean = span / members
  const k = Math.max(0, Math.min(20, Math.round(Math.log2(Math.max(1, mean * Math.LN2)))))
  const writer = createBitWriter()
  const index: number[] = []
  let inBlock = 0
  let blockFrom = 0
  let first = 0
  let last = 0
  for (let i = 0; i < runs.length; i += 2)
    for (let n = 0; n < runs[i + 1]; n++) {
      const idx = runs[i] + n
      if (inBlock === riceBlockSize) {
        writer.align()
        index.push(...count(writer.length() - blockFrom))
        blockFrom = writer.length()
        inBlock = 0
      }
      if (inBlock === 0) {
        index.push(...count(idx - first))
        first = idx
      } else {
        const gap = idx - last - 1
        for (let quotient = gap >> k; quotient > 0; quotient--) writer.put(1)
        writer.put(0)
        for (let b = k - 1; b >= 0; b--) writer.put((gap >> b) & 1)
      }
      last = idx
      inBlock++
    }
  index.push(...count(writer.length() - blockFrom))
  return concatBytes([new Uint8Array([...count(members), k]), new Uint8Array(index), writer.bytes()])
}

/** Carry-less on the outside, with the carry held back inside: `low` may exceed 32 bits by one until its top byte is written. */
function createRangeWriter() {
  let bytes = new Uint8Array(1024)
  let length = 0
  let low = 0
  let range = 4294967295
  // The first byte is always 0 and never written: no carry reaches it.
  let cache = -1
  let pending = 0

  function put(byte: number): void {
    if (length === bytes.length) {
      const more = new Uint8Array(bytes.length * 2)
      more.set(bytes)
      bytes = more
    }
    bytes[length++] = byte
  }

  function shift(): void {
    if (low < 0xff000000 || low > 0xffffffff) {
      const carry = low > 0xffffffff ? 1 : 0
      if (cache >= 0) put((cache + carry) & 255)
      for (; pending > 0; pending--) put((255 + carry) & 255)
      cache = Math.floor(low / 16777216) & 255
    } else pending++
    low = (low % 16777216) * 256
  }

  return {
    bit(model: LengthModel, context: number, bit: number): void {
      const bound = (range >>> 16) * (model.chance[context] >>> 6)
      if (bit) range = bound
      else {
        low += bound
        range -= bound
      }
      while (range < 16777216) {
        range *= 256
        shift()
      }
      learn(model, context, bit)
    },
    /** The number within the last interval that ends in the most zeros; zeros at the end are left out. */
    finish(): Bytes {
      for (const unit of [4294967296, 16777216, 65536, 256, 1]) {
        const value = Math.ceil(low / unit) * unit
        if (value > low + range - 1) continue
        low = value
        break
      }
      for (let i = 0; i < 5; i++) shift()
      while (length > 0 && bytes[length - 1] === 0) length--
      return bytes.slice(0, length)
    },
  }
}

function writeLength(writer: ReturnType<typeof createRangeWriter>, model: LengthModel, value: number): void {
  const bucket = 31 - Math.clz32(value)
  for (let b = 0; b < bucket; b++) writer.bit(model, b, 0)
  if (bucket < bucketsMax - 1) writer.bit(model, bucket, 1)
  if (bucket > 0) writer.bit(model, firstAt + bucket, (value >> (bucket - 1)) & 1)
  if (bucket > 1) writer.bit(model, secondAt + 2 * bucket + ((value >> (bucket - 1)) & 1), (value >> (bucket - 2)) & 1)
  for (let j = bucket - 3; j >= 0; j--) writer.bit(model, lowAt + j, (value >> j) & 1)
}

/** Run lengths by a range coder that begins at (span, members, runs); see list-decoder.ts for the form. */
export function encodeRange(span: number, runs: Runs): Bytes {
  const members = membersOf(runs)
  const many = runs.length / 2
  const [gaps, lengths] = [gapModel(span, members, many), runModel(members, many)]
  const writer = createRangeWriter()
  let at = -1
  for (let i = 0; i < runs.length; i += 2) {
    writeLength(writer, gaps, runs[i] - at)
    if (i + 2 < runs.length) writeLength(writer, lengths, runs[i + 1])
    at = runs[i] + runs[i + 1]
  }
  return concatBytes([new Uint8Array([...count(members), ...count(many)]), writer.finish()])
}

function isList(span: number, runs: Runs): boolean {
  let end = -1
  for (let i = 0; i < runs.length; i += 2) {
    if (runs[i] <= end || runs[i + 1] < 1) return false
    end = runs[i] + runs[i + 1]
  }
  return span >= 1 && span <= listSpanMax && runs.length > 0 && runs.length % 2 === 0 && end <= span
}

/** The shorter of both codes; Golomb-Rice where they are equal, since it is read faster. Throws `configuration_invalid` for no such set. */
export function encodeList(span: number, runs: Runs): CodedList {
  if (!isList(span, runs)) throw new RevocationError('configuration_invalid', 'a list takes ascending runs within its span')
  const range = encodeRange(span, runs)
  // Only a sparse set can be shorter by Golomb-Rice: each member takes a bit there.
  const rice = membersOf(runs) <= range.length * 8 + riceBlockSize ? encodeRice(span, runs) : null
  return rice && rice.length <= range.length ? { codec: RICE, coded: rice } : { codec: RANGE, coded: range }
}

/** Ascending indices, none twice, as runs. */
export function runsOf(indices: ArrayLike<number>): Runs {
  const out: number[] = []
  for (let i = 0; i < indices.length; i++) {
    const last = out.length - 1
    if (last > 0 && out[last - 1] + out[last] === indices[i]) out[last]++
    else out.push(indices[i], 1)
  }
  return Uint32Array.from(out)
}
