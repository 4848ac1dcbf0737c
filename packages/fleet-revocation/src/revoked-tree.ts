// The tree behind the root of a notice: every revoked certificate of the fleet by idx, whatever rule revoked it, so that one proof answers
// for groups, ranges and lists alike. It grows; a root costs as much as what has changed. Who knows which idx a rule means hands them in.

import { createHash } from 'node:crypto'
import { type Bytes, concatBytes, equalBytes } from '@birthmark/device-sdk/core'
import { blockBits, blockHash, blockSize, emptyHash, encodeBlockProof, nodeHash, type Sha256, treeDepth } from './block-proof.ts'
import { RevocationError } from './errors.ts'
import { encodeList } from './list-encoder.ts'

export interface RevokedTree {
  /** Certificates `start` to `start + length` are revoked. Throws `rules_limit` and adds nothing: hand in what was issued, not all that a rule covers. */
  add(start: number, length: number): void
  /** Those whose bits are set, the lowest of the first octet for idx `start`, a multiple of 1,024. Throws as `add`. */
  addBits(start: number, bits: Bytes): void
  /** For a notice's body. */
  root(): Bytes
  /** For the device with `idx`, or whoever asks about it; under the root of now, which notice `seq` must carry. */
  prove(seq: number, idx: number): Bytes
}

export const nodeSha256: Sha256 = { sha256: bytes => new Uint8Array(createHash('sha256').update(bytes).digest()) }

// 134 million certificates: 16 MB of bits, as much of hashes.
const blocksMax = 1 << 17

function runsOfBlock(bits: Uint8Array): Uint32Array {
  const out: number[] = []
  for (let i = 0, start = -1; i <= blockSize; i++) {
    const set = i < blockSize && ((bits[i >> 3] >> (i & 7)) & 1) === 1
    if (set && start < 0) start = i
    if (!set && start >= 0) {
      out.push(start, i - start)
      start = -1
    }
  }
  return Uint32Array.from(out)
}

export function createRevokedTree(): RevokedTree {
  const blocks = new Map<number, { bits: Uint8Array; coded: Bytes | null }>()
  /** By level from the blocks up; what is not there is empty. */
  const levels: Map<number, Bytes>[] = Array.from({ length: treeDepth + 1 }, () => new Map())
  let changed = new Set<number>()
  const empty = emptyHash()
  const nodeAt = (level: number, at: number): Bytes => levels[level].get(at) ?? empty

  function codedOf(block: number): Bytes {
    const found = blocks.get(block)
    if (!found) return new Uint8Array(0)
    if (!found.coded) {
      const { codec, coded } = encodeList(blockSize, runsOfBlock(found.bits))
      found.coded = concatBytes([new Uint8Array([codec]), coded])
    }
    return found.coded
  }

  function settle(): void {
    let dirty = changed
    changed = new Set()
    for (const block of dirty) levels[0].set(block, blockHash(nodeSha256, block, codedOf(block)))
    for (let level = 0; level < treeDepth; level++) {
      const above = new Set<number>()
      for (const at of dirty) above.add(at >> 1)
      for (const at of above) levels[level + 1].set(at, nodeHash(nodeSha256, nodeAt(level, 2 * at), nodeAt(level, 2 * at + 1)))
      dirty = above
    }
  }

  return {
    add(start, length) {
      const end = start + length
      const last = Math.floor((end - 1) / blockSize)
      let more = 0
      for (let block = start >>> blockBits; block <= last && more <= blocksMax; block++) if (!blocks.has(block)) more++
      if (blocks.size + more > blocksMax) throw new RevocationError('rules_limit', `more than ${blocksMax} blocks`)
      for (let block = start >>> blockBits; block <= last; block++) {
        const found = blocks.get(block) ?? { bits: new Uint8Array(blockSize / 8), coded: null }
        blocks.set(block, found)
        const base = block * blockSize
        for (let i = Math.max(start, base) - base; i < Math.min(end - base, blockSize); i++) found.bits[i >> 3] |= 1 << (i & 7)
        found.coded = null
        changed.add(block)
      }
    },
    addBits(start, bits) {
      const octets = blockSize / 8
      for (let at = 0; at < bits.length; at += octets) {
        const part = bits.subarray(at, at + octets)
        if (part.every(octet => octet === 0)) continue
        const block = (start >>> blockBits) + at / octets
        if (!blocks.has(block) && blocks.size >= blocksMax)
          throw new RevocationError('rules_limit', `more than ${blocksMax} blocks`)
        const found = blocks.get(block) ?? { bits: new Uint8Array(octets), coded: null }
        blocks.set(block, found)
        part.forEach((octet, i) => {
          found.bits[i] |= octet
        })
        found.coded = null
        changed.add(block)
      }
    },
    root() {
      settle()
      return nodeAt(treeDepth, 0).slice()
    },
    prove(seq, idx) {
      settle()
      const block = Math.floor(idx / blockSize)
      const siblings: Bytes[] = []
      let given = 0
      for (let level = 0; level < treeDepth; level++) {
        const sibling = nodeAt(level, (block >> level) ^ 1)
        if (equalBytes(sibling, empty)) continue
        given |= 1 << level
        siblings.push(sibling)
      }
      const path = concatBytes([new Uint8Array([given >> 16, (given >> 8) & 255, given & 255]), ...siblings])
      return encodeBlockProof({ seq, block, coded: codedOf(block), path })
    },
  }
}
