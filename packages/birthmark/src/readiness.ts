// What /readyz says of the parts beside the enrollment front: clock, notices and disk, looked at every few seconds and never while somebody
// asks, so that asking costs nothing and cannot hang.

import { statfsSync } from 'node:fs'
import { clockToleranceSeconds, type Store } from '@birthmark/est-server'
import { type Clock, repeat } from '@birthmark/fleet-revocation'

const lookSeconds = 5
/** A certificate takes some 4 KB of the store: room for the last 16,000, and for the write-ahead log to be folded in. */
const freeBytesMin = 64 * 1024 * 1024
/** A broker that restarts is back before that. */
const undeliveredSecondsMax = 120

export interface ReadinessParts {
  store: Pick<Store, 'lastTime' | 'outboxPending'>
  fleet: string
  clock: Clock
  freeBytes(): number
}

export interface Readiness {
  /** Why an enrollment would not be served, or null. Undelivered notices do not stop enrollments. */
  unready(): string | null
  /** A line each. */
  lines(): string[]
  close(): void
}

export const freeBytesOf = (folder: string) => () => {
  const { bavail, bsize } = statfsSync(folder)
  return bavail * bsize
}

export async function watchReadiness({ store, fleet, clock, freeBytes }: ReadinessParts): Promise<Readiness> {
  const found: Record<'clock' | 'publisher' | 'disk', { ok: boolean; text: string }> = {
    clock: { ok: true, text: 'not looked at yet' },
    publisher: { ok: true, text: 'not looked at yet' },
    disk: { ok: true, text: 'not looked at yet' },
  }

  async function look(): Promise<void> {
    const free = freeBytes()
    found.disk = { ok: free >= freeBytesMin, text: `${Math.floor(free / 1_048_576)} MiB free` }
    const behind = (await store.lastTime()) - clock.now()
    found.clock =
      behind > clockToleranceSeconds
        ? { ok: false, text: `clock_regressed: ${Math.round(behind)} s behind the last record` }
        : { ok: true, text: 'not behind the records' }
    const [oldest] = await store.outboxPending(fleet, 1)
    const waits = oldest ? clock.now() - oldest.at : 0
    found.publisher =
      waits > undeliveredSecondsMax
        ? { ok: false, text: `notice ${oldest.seq} has waited ${Math.round(waits)} s for the broker` }
        : { ok: true, text: 'delivers' }
  }
  // A store that does not answer says so by itself; what was found last stands.
  await look().catch(() => {})
  const close = repeat(clock, lookSeconds, look, () => {})
  return {
    unready() {
      if (!found.clock.ok) return found.clock.text
      return found.disk.ok ? null : `disk_full: ${found.disk.text}`
    },
    lines: () => Object.entries(found).map(([name, { text }]) => `${name}: ${text}`),
    close,
  }
}
