// Whether another device's certificate is revoked, proven by that device: a block of 1,024 indices and the hashes from it up to the root
// that a notice carries. Any size of fleet, half a kilobyte, no signature but the notice's. Building the tree is left to others. Device subset.

import { type Bytes, type CborValue, codeOf, concatBytes, decodeCbor, encodeCbor, equalBytes } from '@birthmark/device-sdk/core'
import { readList } from './list-decoder.ts'

/** At any share of revoked certificates, bits of a block and hashes above it make the smallest proof about here. */
export const blockBits = 10
export const blockSize = 1 << blockBits
/** Levels from a block to the root: 2^31 indices. What is empty has no hash and takes no space, so a small fleet pays for its size alone. */
export const treeDepth = 31 - blockBits

const hashBytes = 32
// A full block takes at most its bits and a few bytes; 21 hashes.
const proofBytesMax = 1024

export interface BlockProof {
  /** Of the notice whose root it leads to. */
  seq: number
  block: number
  /** Code number, then the list of the block's revoked indices; empty when none is. */
  coded: Bytes
  /** Three bytes: bit i, the lowest is 0, says that the sibling at level i is not empty; then those siblings from the block up. */
  path: Bytes
}

export interface Sha256 {
  sha256(bytes: Bytes): Bytes
}

export function emptyHash(): Bytes {
  return new Uint8Array(hashBytes)
}

/** 32 zeros for a block without a revoked index, else SHA-256(0 ‖ block, 4 bytes ‖ coded). */
export function blockHash(hash: Sha256, block: number, coded: Bytes): Bytes {
  if (coded.length === 0) return emptyHash()
  const number = new Uint8Array([0, block >>> 24, (block >> 16) & 255, (block >> 8) & 255, block & 255])
  return hash.sha256(concatBytes([number, coded]))
}

/** 32 zeros above two empty halves, else SHA-256(1 ‖ left ‖ right). */
export function nodeHash(hash: Sha256, left: Bytes, right: Bytes): Bytes {
  const empty = emptyHash()
  if (equalBytes(left, empty) && equalBytes(right, empty)) return empty
  return hash.sha256(concatBytes([new Uint8Array([1]), left, right]))
}

export function encodeBlockProof(proof: BlockProof): Bytes {
  return encodeCbor([proof.seq, proof.block, proof.coded, proof.path])
}

function decodeBlockProof(bytes: Bytes): BlockProof | null {
  if (bytes.length > proofBytesMax) return null
  let value: CborValue = null
  try {
    value = decodeCbor(bytes, { depthMax: 1, itemsMax: 5 })
  } catch (error) {
    if (codeOf(error) === null) throw error
  }
  if (!Array.isArray(value) || value.length !== 4 || typeof value[0] !== 'number' || typeof value[1] !== 'number') return null
  const coded = value[2]
  const path = value[3]
  if (!(coded instanceof Uint8Array) || !(path instanceof Uint8Array)) return null
  return { seq: value[0], block: value[1], coded: coded, path: path }
}

/** Where `proof` leads; null when its path is not one. */
function rootOf(hash: Sha256, proof: BlockProof): Bytes | null {
  const path = proof.path
  if (path.length < 3 || proof.block < 0 || proof.block >= 1 << treeDepth) return null
  const given = path[0] * 65536 + path[1] * 256 + path[2]
  let at = 3
  let node = blockHash(hash, proof.block, proof.coded)
  for (let level = 0; level < treeDepth; level++) {
    let sibling = emptyHash()
    if ((given >> level) & 1) {
      if (at + hashBytes > path.length) return null
      sibling = path.subarray(at, at + hashBytes)
      at += hashBytes
    }
    node = (proof.block >> level) & 1 ? nodeHash(hash, sibling, node) : nodeHash(hash, node, sibling)
  }
  return at === path.length && given >> treeDepth === 0 ? node : null
}

/**
 * What `bytes` prove about the certificate with `idx`, under the `root` of notice `seq`: whose signature was verified, and which the caller
 * holds for new enough. Null: they prove nothing. That the peer holds this very certificate is for TLS or a signature to show.
 */
export function checkBlockProof(bytes: Bytes, seq: number, root: Bytes, idx: number, hash: Sha256): 'good' | 'revoked' | null {
  const proof = decodeBlockProof(bytes)
  if (!proof || proof.seq !== seq || proof.block !== Math.floor(idx / blockSize)) return null
  const led = rootOf(hash, proof)
  if (!led || !equalBytes(led, root)) return null
  if (proof.coded.length === 0) return 'good'
  const wanted = idx % blockSize
  let revoked = false
  const whole = readList(blockSize, proof.coded[0], proof.coded.subarray(1), blockSize, function (start, length) {
    if (wanted >= start && wanted - start < length) revoked = true
  })
  return whole ? (revoked ? 'revoked' : 'good') : null
}
