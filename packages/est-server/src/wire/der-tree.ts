// DER as a tree that knows its lengths, written into one buffer at the end: no level is copied into the next, and a message of fifty elements
// costs one allocation. For what is made at every request; everything else uses the core's encoder, which is easier to read.

import { type Bytes, encodeOid } from '@birthmark/device-sdk/core'

/** DER that is there already, or an element in the making. */
export type DerPart = Bytes | DerNode

export interface DerNode {
  tag: number
  parts: readonly DerPart[]
  /** Octets of its content. */
  length: number
}

const isNode = (part: DerPart): part is DerNode => 'parts' in part

/** Octets of a length's encoding (X.690 8.1.3). */
const lengthOctets = (length: number) =>
  length < 0x80 ? 1 : length < 0x100 ? 2 : length < 0x10000 ? 3 : length < 0x1000000 ? 4 : 5

const sizeOf = (part: DerPart) => (isNode(part) ? 1 + lengthOctets(part.length) + part.length : part.length)

export function derNode(tag: number, parts: readonly DerPart[]): DerNode {
  let length = 0
  for (const part of parts) length += sizeOf(part)
  return { tag, parts, length }
}

function write(out: Bytes, part: DerPart, at: number): number {
  if (!isNode(part)) {
    out.set(part, at)
    return at + part.length
  }
  out[at++] = part.tag
  const octets = lengthOctets(part.length)
  if (octets > 1) out[at++] = 0x80 | (octets - 1)
  for (let shift = 8 * (octets > 1 ? octets - 2 : 0); shift >= 0; shift -= 8) out[at++] = part.length >>> shift
  for (const inner of part.parts) at = write(out, inner, at)
  return at
}

/** Recurses as deep as the tree, which is as deep as the code that made it. */
export function encodeDer(node: DerNode): Bytes {
  const out = new Uint8Array(sizeOf(node))
  write(out, node, 0)
  return out
}

const identifiers = new Map<string, Bytes>()

/** The encoding of an OBJECT IDENTIFIER that is a constant of the source: each is made once and kept. */
export function oidBytes(oid: string): Bytes {
  let known = identifiers.get(oid)
  if (known === undefined) {
    known = encodeOid(oid)
    identifiers.set(oid, known)
  }
  return known
}
