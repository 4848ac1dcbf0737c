// Notices that close no group: those that only carry heartbeats on, so that a quiet week leaves nobody in doubt.

import type { Bytes } from '@birthmark/device-sdk/core'
import type { AuditEntry, NoticeRecord } from './store.ts'

export interface PlainNotice {
  fleet: string
  seq: number
  previousSha256: Bytes | null
  notice: Bytes
  noticeSha256: Bytes
  at: number
  audit: AuditEntry
}

export interface NoticeStore {
  /** Null before the first. */
  newestNotice(fleet: string): Promise<NoticeRecord | null>
  /** Appends the notice to the outbox, with its audit record. `conflict`, and nothing is written: `seq` is not the next, or its previous hash is another's. */
  recordNotice(notice: PlainNotice): Promise<'recorded' | 'conflict'>
}
