// Every row of issuance, page by page, for whoever checks the whole store. Part of the store's contract.

import type { Bytes } from '@birthmark/device-sdk/core'
import type { NoticeRecord } from './store.ts'

export interface IssuanceRow {
  /** Grows with each issuance. */
  key: number
  state: 'intent' | 'issued' | 'void'
  issuer: Bytes
  serial: Bytes
  fleet: string
  deviceId: string
  idx: number
  gids: number[]
  spkiSha256: Bytes
  notBefore: number
  notAfter: number
  startedAt: number
  /** The certificate; what was to be signed while it is an intent or void. */
  der: Bytes
}

export interface IssuancePages {
  /** Rows behind the key `after`, in order, at most pageRowsMax. */
  issuances(after: number, limit: number): Promise<IssuanceRow[]>
  /** Notices behind `after`, in order, delivered or not, at most pageRowsMax. */
  notices(fleet: string, after: number, limit: number): Promise<(NoticeRecord & { previousSha256: Bytes | null })[]>
}
