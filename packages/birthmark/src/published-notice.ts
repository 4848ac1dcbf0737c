// Whether a notice that was published fits the store: one that does not shows that the store was put back, or is a fork of what the world has seen.

import { type Bytes, equalBytes } from '@birthmark/device-sdk/core'
import type { Store } from '@birthmark/est-server'
import { type NoticeBody, noticeSha256 } from '@birthmark/fleet-revocation'
import { storedRules } from './recorded-rules.ts'

/** Null where it fits. `notice`: verified, or of this machine's own record; `body` is its own. Rejects when the store does not answer. */
export async function unfit(
  store: Pick<Store, 'newestNotice' | 'notice' | 'rules' | 'standingSets'>,
  notice: Bytes,
  body: Pick<NoticeBody, 'fleet' | 'seq' | 'rules' | 'floor'>,
): Promise<string | null> {
  const { fleet, seq, rules, floor } = body
  const newest = (await store.newestNotice(fleet))?.seq ?? 0
  if (seq > newest) return `it ends at notice ${newest}, and notice ${seq} was published: it is an older copy`
  const held = await store.notice(fleet, seq)
  // Not by its bytes: whoever sees a signature can write another that verifies.
  if (held && equalBytes(held.sha256, noticeSha256(notice))) return null
  // A restore signs above the newest what such a notice revokes. Then it says nothing new.
  if (seq < newest && !(await storedRules(store, fleet)).merge(rules, floor)) return null
  return `its notice ${seq} is not the one that was published: it is a fork`
}
