// Freshness without a signature. A notice carries the end of a hash chain; every step of time one more link is shown, and a link
// can't be guessed from the ones after it. A link at step i proves that the publisher was alive at `issuedAt + i · stepSeconds` and
// that the notice was still the newest. Who holds the secret and when to refuse is left to others.

import { createHmac, hash } from 'node:crypto'
import { type Bytes, decodeCbor, encodeCbor, equalBytes } from '@birthmark/device-sdk/core'
import { noticeFacts } from './notice-facts.ts'

/**
 * Links in a chain: at 10 s a step, a week. A receiver that starts with the last link hashes that often (~60 ms), so this also bounds
 * what a forged heartbeat can cost.
 */
export const chainLength = 65536
// Every 256th link is kept: 4 KB, and at most 255 hashes for any other.
const spacing = 256

const linkBytes = 16

/** H: SHA-256 cut to 16 bytes, which keeps a notice under 200 bytes; inverting it stays at 2^128. */
export function chainHash(link: Bytes): Bytes {
  // By way of a string: half the time of a digest in a Buffer of its own, and there are 65,536 of them.
  const out = Buffer.allocUnsafe(linkBytes)
  out.write(hash('sha256', link, 'binary'), 0, linkBytes, 'latin1')
  return out
}

/** Three steps fit into max-age, so that two heartbeats may be lost before anyone refuses. */
export function stepSeconds(maxAgeSeconds: number): number {
  return Math.max(1, Math.floor(maxAgeSeconds / 3))
}

export interface HeartbeatChain {
  /** For the notice: H^chainLength(preimage). */
  anchor: Bytes
  /** H^(chainLength − i)(preimage), for 0 ≤ i ≤ chainLength; `hashed` i times it gives the anchor. */
  link(i: number): Bytes
}

interface Derivation {
  /** Hashes on, at most `steps` times; true at the end. */
  go(steps: number): boolean
  chain(): HeartbeatChain
}

function derivation(secret: Bytes, fleet: string, seq: number): Derivation {
  const preimage = createHmac('sha256', secret).update(`birthmark heartbeat ${fleet} ${seq}`).digest()
  const kept: Bytes[] = []
  let link: Bytes = new Uint8Array(preimage.subarray(0, linkBytes))
  let n = 0
  return {
    go(steps) {
      for (const end = Math.min(chainLength, n + steps); n < end; n++) {
        // Copied, since a small Buffer holds on to the pool it is cut from.
        if (n % spacing === 0) kept.push(new Uint8Array(link))
        link = chainHash(link)
      }
      return n === chainLength
    },
    chain: () => ({
      anchor: new Uint8Array(link),
      link: i => {
        const depth = chainLength - i
        let at = depth === chainLength ? link : kept[Math.floor(depth / spacing)]
        for (let left = depth % spacing; left > 0; left--) at = chainHash(at)
        return new Uint8Array(at)
      },
    }),
  }
}

/** The chain of one notice, derived: whoever has the secret can go on after a restart. ~60 ms of this thread; a server takes `createHeartbeats`. */
export function heartbeatChain(secret: Bytes, fleet: string, seq: number): HeartbeatChain {
  const deriving = derivation(secret, fleet, seq)
  deriving.go(chainLength)
  return deriving.chain()
}

export interface Heartbeats {
  /** The chain of notice `seq`: derived once, in slices of a few milliseconds, and kept while it is among the newest asked for. */
  chain(seq: number): Promise<HeartbeatChain>
}

// ~4 ms, so that nothing else on this thread waits longer.
const sliceSteps = 4096
// The newest notice's, the one being signed, and the next one's that is made ahead: 4 KB each.
const chainsKept = 4

export function createHeartbeats(secret: Bytes, fleet: string): Heartbeats {
  const chains = new Map<number, Promise<HeartbeatChain>>()

  async function derive(seq: number): Promise<HeartbeatChain> {
    const deriving = derivation(secret, fleet, seq)
    while (!deriving.go(sliceSteps)) await new Promise(resolve => setImmediate(resolve))
    return deriving.chain()
  }

  return {
    chain(seq) {
      const chain = chains.get(seq) ?? derive(seq)
      // Asked for last, forgotten last.
      chains.delete(seq)
      chains.set(seq, chain)
      if (chains.size > chainsKept) chains.delete(chains.keys().next().value ?? seq)
      return chain
    },
  }
}

export interface Heartbeat {
  seq: number
  i: number
  link: Bytes
}

export function encodeHeartbeat(beat: Heartbeat): Bytes {
  return encodeCbor([beat.seq, beat.i, beat.link])
}

/** Null for anything but `[seq, i, 16 bytes]` with i within a chain. */
export function decodeHeartbeat(payload: Bytes): Heartbeat | null {
  // Two integers of at most 9 bytes and 17 for the link.
  if (payload.length > 40) return null
  let value: ReturnType<typeof decodeCbor>
  try {
    value = decodeCbor(payload, { depthMax: 1, itemsMax: 4 })
  } catch {
    return null
  }
  if (!Array.isArray(value) || value.length !== 3) return null
  const [seq, i, link] = value
  if (typeof seq !== 'number' || typeof i !== 'number' || !(link instanceof Uint8Array)) return null
  return seq >= 1 && i >= 0 && i <= chainLength && link.length === linkBytes ? { seq, i, link } : null
}

/** Whether hashing `link` `steps` times gives `known`. */
export function chainsTo(link: Bytes, steps: number, known: Bytes): boolean {
  let at = link
  for (let n = 0; n < steps; n++) at = chainHash(at)
  return equalBytes(at, known)
}

/** The i-th of notice `seq`; null before the first and after the last. */
export function heartbeatOf({ seq, chain }: { seq: number; chain: HeartbeatChain }, i: number): Bytes | null {
  return i >= 0 && i <= chainLength ? encodeHeartbeat({ seq, i, link: chain.link(i) }) : null
}

/** What proves at `now`, in seconds, that `notice` is the newest. */
export function heartbeatAt(notice: Bytes, chain: HeartbeatChain, now: number): Bytes | null {
  const { seq, issuedAt, maxAgeSeconds } = noticeFacts(notice)
  return heartbeatOf({ seq, chain }, Math.floor((now - issuedAt) / stepSeconds(maxAgeSeconds)))
}
