// A publisher's outbox that is given its notices by the test.

import type { Outbox, OutboxNotice } from '../publisher.ts'

export interface MemoryOutbox {
  outbox: Outbox
  /** Ascending by seq; to be added to. */
  notices: OutboxNotice[]
  /** Their seqs. */
  delivered: ReadonlySet<number>
}

export function createMemoryOutbox(): MemoryOutbox {
  const notices: OutboxNotice[] = []
  const delivered = new Set<number>()
  const outbox: Outbox = {
    pending: async limit => notices.filter(({ seq }) => !delivered.has(seq)).slice(0, limit),
    delivered: async seq => void delivered.add(seq),
    recent: async limit => notices.slice(-limit),
  }
  return { outbox, notices, delivered }
}
