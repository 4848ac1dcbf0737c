// Whether notices that were published fit the store: one that does not shows that the store was put back, or is a fork of what the world has seen.

import { type Bytes, equalBytes } from '@birthmark/device-sdk/core'
import type { Store } from '@birthmark/est-server'
import { type NoticeBody, noticeSha256, type RuleSet } from '@birthmark/fleet-revocation'
import { storedRules } from './recorded-rules.ts'

/** Why the first one that does not fit does not; null where all do. `notices`: verified, or of this machine's own record. Rejects when the store does not answer. */
export async function unfit(
  store: Pick<Store, 'newestNotice' | 'notice' | 'rules' | 'standingSets'>,
  fleet: string,
  notices: { notice: Bytes; body: Pick<NoticeBody, 'seq' | 'rules' | 'floor'> }[],
): Promise<string | null> {
  const newest = (await store.newestNotice(fleet))?.seq ?? 0
  let standing: RuleSet | null = null
  for (const { notice, body } of notices) {
    const { seq, rules, floor } = body
    if (seq > newest) return `it ends at notice ${newest}, and notice ${seq} was published: it is an older copy`
    const held = await store.notice(fleet, seq)
    // Not by its bytes: whoever sees a signature can write another that verifies.
    if (held && equalBytes(held.sha256, noticeSha256(notice))) continue
    const fork = `its notice ${seq} is not the one that was published: it is a fork`
    if (seq === newest) return fork
    // A restore signs above the newest what such a notice revokes. Then it says nothing new.
    standing ??= await storedRules(store, fleet)
    if (standing.merge(rules, floor)) return fork
  }
  return null
}
