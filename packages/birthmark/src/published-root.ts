// The root in the notices: the tree of all that is revoked, whatever rule revoked it, follows the store, and a notice that revokes nothing carries
// its root soon after one that did. Denial waits for none of it: a group notice stays small and is signed at once. Who asks gets a proof under
// the newest root.

import { setImmediate as nextTurn } from 'node:timers/promises'
import { type Bytes, equalBytes } from '@birthmark/device-sdk/core'
import { blockSize, type Log, type Store } from '@birthmark/est-server'
import { type Clock, createRevokedTree, noticeFacts } from '@birthmark/fleet-revocation'

/** After a revocation: several that follow one another share a root, and the cutting of sessions comes first. */
const sealSeconds = 10

export interface PublishedRoot {
  /** For notice `seq`, which revokes nothing: null when the tree does not stand at the notice before. */
  rootFor(seq: number): Promise<Bytes | null>
  /** A block proof under the root that notice `seq` carries; null when it carries none, or not that of now. */
  prove(seq: number, idx: number): Promise<Bytes | null>
  /** Something was revoked, here or by another server. */
  later(): void
  close(): void
}

export interface PublishedRootParts {
  store: Store
  fleet: string
  clock: Clock
  log: Log
  /** Signs and records a notice that revokes nothing, and has it published. */
  seal(): Promise<void>
}

export function createPublishedRoot({ store, fleet, clock, log, seal }: PublishedRootParts): PublishedRoot {
  const tree = createRevokedTree()
  const groups = new Set<number>()
  let through = 0
  let setsThrough = 0
  let following: Promise<number> | null = null
  let carried: { seq: number; root: Bytes | null } = { seq: 0, root: null }
  let cancel = () => {}
  let waiting = false
  let closed = false

  const addRuns = (indices: number[]) => {
    for (let i = 0; i < indices.length; ) {
      let end = i + 1
      while (end < indices.length && indices[end] === indices[end - 1] + 1) end++
      tree.add(indices[i], end - i)
      i = end
    }
  }

  /** Every idx that these groups, or this issuer, ever had: a millisecond or so a piece. */
  async function addOf(of: { gids: number[] } | { issuer: Bytes }, end: number): Promise<void> {
    for (let from = 0; from < end; from += blockSize)
      addRuns(await store.indicesOf({ fleet, ...of, from, to: Math.min(end, from + blockSize) }))
  }

  async function follow(): Promise<number> {
    // The number first: what is recorded in between is in the tree without being counted, and found again the next time.
    const newest = (await store.newestNotice(fleet))?.seq ?? 0
    if (newest === through) return through
    const { idxNext } = await store.draftSet(fleet, 0)
    for (const set of await store.datedSets(fleet, setsThrough)) {
      if (set.kind === 'range') tree.add(set.start, set.length)
      if (set.kind === 'floor') tree.add(0, set.start)
      if (set.issuer) await addOf({ issuer: set.issuer }, idxNext)
      for (const [i, { block, bits }] of set.blocks.entries()) {
        tree.addBits(block * blockSize, bits)
        // Hashed as it grows: a quarter of a million at once would hold up everything else.
        if (i % 16 === 15) {
          tree.root()
          await nextTurn()
        }
      }
      setsThrough = set.seq
    }
    const fresh = (await store.rules(fleet)).filter(({ gid }) => !groups.has(gid))
    if (fresh.length > 0) {
      await addOf({ gids: fresh.map(({ gid }) => gid) }, Math.max(...fresh.map(({ bound }) => bound)))
      for (const { gid } of fresh) groups.add(gid)
    }
    through = newest
    return newest
  }

  /** One at a time; the notice at which the tree stands. */
  function current(): Promise<number> {
    following ??= follow().finally(() => {
      following = null
    })
    return following
  }

  async function rootIn(seq: number): Promise<Bytes | null> {
    if (carried.seq !== seq) {
      const record = await store.notice(fleet, seq)
      carried = { seq, root: record && noticeFacts(record.notice).root }
    }
    return carried.root
  }

  async function isCarried(seq: number): Promise<boolean> {
    const root = await rootIn(seq)
    return root !== null && equalBytes(root, tree.root())
  }

  async function look(): Promise<void> {
    const seq = await current()
    if (seq > 0 && !(await isCarried(seq))) await seal()
  }

  function later(): void {
    if (waiting || closed) return
    waiting = true
    cancel = clock.setTimer(sealSeconds, () => {
      waiting = false
      look().catch((error: unknown) => {
        if (closed) return
        log.warn({ err: error }, 'no root could be published; trying again')
        later()
      })
    })
  }

  // What was revoked before a restart may not have its root yet.
  later()
  return {
    rootFor: async seq => ((await current()) === seq - 1 ? tree.root() : null),
    async prove(seq, idx) {
      await current()
      return (await isCarried(seq)) ? tree.prove(seq, idx) : null
    },
    later,
    close() {
      closed = true
      cancel()
    },
  }
}
