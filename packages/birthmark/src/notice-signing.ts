// What a notice says beside its rules, and the key that signs it: est-server asks for a signed notice and fleet-revocation knows how one
// is made; this joins the two.

import { createPublicKey, type KeyObject, randomBytes, sign } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import type { Bytes } from '@birthmark/device-sdk/core'
import type { NoticeInput, SignedNotice, Store } from '@birthmark/est-server'
import { writeDurably } from '@birthmark/factory-line'
import {
  type Heartbeats,
  type NoticeKey,
  type NoticeKeys,
  noticeKeyId,
  noticeSha256,
  type Outbox,
  packRules,
  signNotice,
} from '@birthmark/fleet-revocation'
import type { Published } from './published.ts'

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

/** Whose notices are ours, for a verifier. */
export function noticeSigners(keys: KeyObject[]) {
  return keys.map(noticeSpki).map(spki => ({ keyId: noticeKeyId(spki), algorithm: -7, spki }))
}

/** P-256 keys as signers of notices, in the order in which they are tried. */
export function noticeKeysOf(keys: KeyObject[]): NoticeKeys {
  const [first, ...others] = keys.map(noticeKeyOf)
  return [first, ...others]
}

function noticeKeyOf(key: KeyObject): NoticeKey {
  return {
    algorithm: -7,
    keyId: noticeKeyId(noticeSpki(key)),
    sign: async toBeSigned => new Uint8Array(sign('sha256', toBeSigned, { key, dsaEncoding: 'ieee-p1363' })),
  }
}

export interface NoticeSignerOptions {
  /** Whether two keys sign what takes back so many devices; never, if absent. */
  countersign?: (devices: number) => Promise<boolean>
  /** How many all rules of a notice name, those that it repeats among them, to somebody who has heard none of them before. */
  namedBy?: (input: NoticeInput) => Promise<number>
  /** The root of all that is revoked up to the notice before this one. */
  rootOf?: (seq: number) => Promise<Bytes | null>
}

export function noticeSigner(
  keys: NoticeKeys,
  heartbeats: Heartbeats,
  {
    countersign = async () => false,
    namedBy = async ({ devices }) => devices,
    rootOf = async () => null,
  }: NoticeSignerOptions = {},
): (input: NoticeInput) => Promise<SignedNotice> {
  async function signed(body: Parameters<typeof signNotice>[0], input: NoticeInput): Promise<Bytes> {
    const must = await countersign(input.devices)
    if (must || !(await countersign(await namedBy(input)))) return signNotice(body, keys, { countersign: must })
    // Repeated rules were signed twice before. Who missed that notice takes them under two signatures alone; but no revocation waits for a second
    // key on their account.
    return signNotice(body, keys, { countersign: true }).catch(() => signNotice(body, keys))
  }

  return async input => {
    const { fleet, seq, previousSha256, issuedAt, rules, floor, devices, followed } = input
    // Heartbeats are of the newest notice alone; an anchor that nobody has a chain to costs nothing to make.
    const anchor = followed ? randomBytes(16) : (await heartbeats.chain(seq)).anchor
    // Who is revoked by this very notice is not in a root yet; one that revokes nothing follows soon.
    const root = devices === 0 ? await rootOf(seq) : null
    const facts = { fleet, seq, previousSha256, issuedAt, maxAgeSeconds, heartbeatAnchor: anchor }
    const notice = await signed({ ...facts, rules: packRules(rules), root, floor }, input)
    // The next one's is made ahead, so that a revocation does not wait for it; and later than the cutting of sessions, which matters more.
    if (!followed) setTimeout(() => heartbeats.chain(seq + 1), 2000).unref()
    return { notice, sha256: noticeSha256(notice) }
  }
}

/** The store's outbox as the publisher takes it. */
export function outboxOf(store: Store, fleet: string, now: () => number, published: Pick<Published, 'before'>): Outbox {
  return {
    async pending(limit) {
      const notices = await store.outboxPending(fleet, limit)
      await published.before(notices)
      return notices
    },
    delivered: seq => store.outboxDelivered(fleet, seq, Math.floor(now())),
    async recent(limit) {
      const newest = (await store.newestNotice(fleet))?.seq ?? 0
      const notices: { seq: number; notice: Bytes }[] = []
      for (let seq = Math.max(1, newest - limit + 1); seq <= newest; seq++) {
        const record = await store.notice(fleet, seq)
        if (record) notices.push({ seq, notice: record.notice })
      }
      // Those that a restore signed were never pending.
      await published.before(notices)
      return notices
    },
  }
}
