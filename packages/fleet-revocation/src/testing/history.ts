// A run of notices that name one another, as the server makes them.

import type { Bytes } from '@birthmark/device-sdk/core'
import { heartbeatChain } from '../heartbeat.ts'
import type { Rule } from '../rule.ts'
import { type NoticeKey, noticeSha256, signNotice } from '../sign-notice.ts'

export interface TestHistory {
  notices: { seq: number; notice: Bytes }[]
  add(rules: Rule[], options?: { issuedAt?: number; floor?: number; heartbeats?: boolean }): Promise<Bytes>
}

export const historyStart = 1_800_000_000
export const heartbeatSecret = new Uint8Array(32).fill(3)

/** Heartbeat chains take a while to derive: `heartbeats` only where one is looked at. */
export function createTestHistory(key: NoticeKey, { fleet = 'acme', heartbeats = false } = {}): TestHistory {
  const notices: { seq: number; notice: Bytes }[] = []
  return {
    notices,
    add: async (rules, { issuedAt = historyStart + notices.length, floor = 0, heartbeats: shown = heartbeats } = {}) => {
      const before = notices.at(-1)
      const seq = (before?.seq ?? 0) + 1
      const notice = await signNotice(
        {
          fleet,
          seq,
          previousSha256: before ? noticeSha256(before.notice) : null,
          issuedAt,
          maxAgeSeconds: 30,
          heartbeatAnchor: shown ? heartbeatChain(heartbeatSecret, fleet, seq).anchor : new Uint8Array(16),
          rules,
          root: null,
          floor,
        },
        key,
      )
      notices.push({ seq, notice })
      return notice
    },
  }
}
