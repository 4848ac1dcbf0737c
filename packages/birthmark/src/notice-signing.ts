// What a notice says beside its rules, and the key that signs it: est-server asks for a signed notice and fleet-revocation knows how one
// is made; this joins the two.

import { createPublicKey, type KeyObject, randomBytes, sign } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import type { Bytes } from '@birthmark/device-sdk/core'
import type { NoticeInput, SignedNotice, Store } from '@birthmark/est-server'
import { writeDurably } from '@birthmark/factory-line'
import { heartbeatChain, noticeKeyId, noticeSha256, type Outbox, signNotice } from '@birthmark/fleet-revocation'

// A relying party that has heard nothing for this long refuses new connections; three heartbeats fit, so two may be lost.
const maxAgeSeconds = 30

/** The secret of the heartbeat chains, kept beside the store. Losing it costs the heartbeats of old notices, nothing else. */
export function heartbeatSecret(file: string): Bytes {
  if (!existsSync(file)) writeDurably(file, randomBytes(32), 0o600)
  return readFileSync(file)
}

/** SubjectPublicKeyInfo of the notice key, DER. */
export function noticeSpki(key: KeyObject): Bytes {
  return createPublicKey(key).export({ type: 'spki', format: 'der' })
}

/** Signs notices with a P-256 key. `next` is the number that the next notice will have. */
export function noticeSigner(
  key: KeyObject,
  secret: Bytes,
  fleet: string,
  next: number,
): (input: NoticeInput) => Promise<SignedNotice> {
  const keyId = noticeKeyId(noticeSpki(key))
  // Deriving a chain takes some 40 ms; the next one is made ahead, so that a revocation does not wait for it.
  let ahead = { seq: next, anchor: heartbeatChain(secret, fleet, next).anchor }
  return async input => {
    const anchor = ahead.seq === input.seq ? ahead.anchor : heartbeatChain(secret, fleet, input.seq).anchor
    const { seq, previousSha256, issuedAt, rules } = input
    const notice = await signNotice(
      { fleet, seq, previousSha256, issuedAt, maxAgeSeconds, heartbeatAnchor: anchor, rules, root: null, floor: 0 },
      {
        algorithm: -7,
        keyId,
        sign: async toBeSigned => new Uint8Array(sign('sha256', toBeSigned, { key, dsaEncoding: 'ieee-p1363' })),
      },
    )
    // Later than the cutting of sessions, which matters more than the next revocation's 40 ms.
    setTimeout(() => {
      ahead = { seq: seq + 1, anchor: heartbeatChain(secret, fleet, seq + 1).anchor }
    }, 2000).unref()
    return { notice, sha256: noticeSha256(notice) }
  }
}

/** The number of the newest notice, 0 before the first. Numbers are dense from 1, so doubling and halving finds the end. */
export async function newestNotice(store: Store, fleet: string): Promise<number> {
  const exists = async (seq: number): Promise<boolean> => (await store.notice(fleet, seq)) !== null
  let high = 1
  while (await exists(high)) high *= 2
  let low = Math.floor(high / 2)
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2)
    if (await exists(middle)) low = middle
    else high = middle
  }
  return low
}

/** The store's outbox as the publisher takes it. */
export function outboxOf(store: Store, fleet: string, now: () => number): Outbox {
  return {
    pending: limit => store.outboxPending(fleet, limit),
    delivered: seq => store.outboxDelivered(fleet, seq, Math.floor(now())),
    async recent(limit) {
      const newest = await newestNotice(store, fleet)
      const notices: { seq: number; notice: Bytes }[] = []
      for (let seq = Math.max(1, newest - limit + 1); seq <= newest; seq++) {
        const record = await store.notice(fleet, seq)
        if (record) notices.push({ seq, notice: record.notice })
      }
      return notices
    },
  }
}
