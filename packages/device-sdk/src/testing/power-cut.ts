// Power cuts, so that a test can enumerate them: `powerCutStore` for a Store of your own, `crashDisk` for the file stores of the Node
// port, where each write, fsync and rename is a moment at which the plug may be pulled.

import type { Store } from '../agent/ports.ts'
import type { Bytes } from '../core/bytes.ts'
import type { Disk } from '../ports/node/disk.ts'

/** Thrown by everything that touches the medium once the power is gone. It has no `code`: a dead device handles nothing. */
export class PowerCut extends Error {
  override readonly name = 'PowerCut'
}

export interface PowerCutStore extends Store {
  /** Writes so far. */
  writes(): number
  /** Power is back: what had reached the medium, in a store that works until its own cut. */
  reboot(cutAfter?: number): PowerCutStore
}

/**
 * A store in memory whose power goes at a write: `cutAfter` writes succeed, the next one throws PowerCut and changes nothing, and so does
 * everything after it. Run a story for each `cutAfter` from 0, reboot, and look whether the device still finds its way: since a Store's
 * writes are atomic, that replays every prefix of them. The write that lands but never returns is the prefix one longer.
 */
export function powerCutStore(cutAfter = Number.POSITIVE_INFINITY, medium: ReadonlyMap<string, Bytes> = new Map()): PowerCutStore {
  const records = new Map(medium)
  let writes = 0
  let dead = false
  const write = (apply: () => void) => {
    dead ||= writes >= cutAfter
    if (dead) throw new PowerCut(`after ${cutAfter} writes`)
    writes++
    apply()
  }
  return {
    get(name) {
      if (dead) throw new PowerCut('reading')
      return records.get(name) ?? null
    },
    put: (name, value) => write(() => void records.set(name, value.slice())),
    remove: name => write(() => void records.delete(name)),
    writes: () => writes,
    reboot: (next = Number.POSITIVE_INFINITY) => powerCutStore(next, records),
  }
}

interface File {
  bytes: Bytes
  /** What is on the platter: null when nothing of this file's content is yet. */
  synced: Bytes | null
}

/** How much of what was not yet synced a power cut leaves: nothing, everything, or names without their contents and contents by half. */
export type CrashOutcome = 'nothing' | 'everything' | 'torn'

export interface CrashDisk extends Disk {
  /** Calls so far that change the medium. */
  operations(): number
  /** The disk as found after the cut. */
  reboot(outcome: CrashOutcome, cutAfter?: number): CrashDisk
}

/**
 * A disk in memory with a write cache, as POSIX allows it: contents last from `sync` on, names from `syncFolder` on. Power goes at the
 * operation after `cutAfter`. `error`: throws that system error from every writing call instead (ENOSPC, EROFS, EIO).
 */
export function crashDisk(
  cutAfter = Number.POSITIVE_INFINITY,
  medium: ReadonlyMap<string, Bytes> = new Map(),
  error: () => string | null = () => null,
): CrashDisk {
  // Names as the running system sees them, and as the folder on the platter has them.
  const live = new Map<string, File>([...medium].map(([name, bytes]) => [name, { bytes, synced: bytes }]))
  let durable = new Map(live)
  let operations = 0
  let dead = false
  const change = <T>(apply: () => T): T => {
    dead ||= operations >= cutAfter
    if (dead) throw new PowerCut(`after ${cutAfter} operations`)
    const code = error()
    if (code) throw Object.assign(new Error(code), { code })
    operations++
    return apply()
  }
  const missing = (path: string) => Object.assign(new Error(`ENOENT ${path}`), { code: 'ENOENT' })
  return {
    read(path) {
      if (dead) throw new PowerCut('reading')
      return live.get(path)?.bytes ?? null
    },
    write: (path, bytes) => change(() => void live.set(path, { bytes: bytes.slice(), synced: null })),
    sync: path =>
      change(() => {
        const file = live.get(path)
        if (!file) throw missing(path)
        file.synced = file.bytes
      }),
    rename: (from, to) =>
      change(() => {
        const file = live.get(from)
        if (!file) throw missing(from)
        live.set(to, file)
        live.delete(from)
      }),
    remove: path => change(() => void live.delete(path)),
    makeFolder() {},
    syncFolder: () =>
      change(() => {
        durable = new Map(live)
      }),
    operations: () => operations,
    reboot(outcome, next) {
      const found = new Map<string, Bytes>()
      for (const [name, file] of outcome === 'nothing' ? durable : live) {
        if (outcome === 'everything') found.set(name, file.bytes)
        else if (file.synced) found.set(name, file.synced)
        else found.set(name, outcome === 'torn' ? file.bytes.slice(0, file.bytes.length >> 1) : new Uint8Array(0))
      }
      return crashDisk(next, found)
    },
  }
}
