// The notices of a store that was put back: those that were published since are taken in, and what has no place among its own any more is signed
// again above them. Rules only grow, whatever the number under which they were said.

import { join } from 'node:path'
import { type Bytes, hexOf } from '@birthmark/device-sdk/core'
import { type AuditEntry, countNumbers, type NoticeInput, type Store } from '@birthmark/est-server'
import {
  createHeartbeats,
  createRuleSet,
  type NoticeBody,
  nodeVerify,
  noticeFacts,
  noticeSha256,
  openNotice,
  ringSize,
  unpackRules,
} from '@birthmark/fleet-revocation'
import { CommandError } from './command-error.ts'
import type { Settings } from './configuration.ts'
import { heartbeatSecret, noticeKeysOf, noticeSigner, noticeSigners } from './notice-signing.ts'
import { partsOf, storedRules } from './recorded-rules.ts'

/** As in a notice that revokes nothing. */
const standingRulesMax = 63

/** A notice that verified under a key of the configuration. */
export interface VerifiedNotice {
  notice: Bytes
  body: NoticeBody
}

export interface PublishedNotices {
  /** Oldest first. */
  notices: VerifiedNotice[]
  /** The last one that the store had before any was taken in; 0 for none. */
  ended: number
  /** The highest number that was given out, as far as anybody knows. */
  seq: number
  /** The operator's word that none is higher; 0 for none. */
  above: number
}

export interface TakenIn {
  /** Of the newest notice. */
  seq: number
  /** Of the notices that are known, those that the store has only now. */
  adopted: number
  /** Numbers under which something else was published than the store has: what both revoke was signed again, under later numbers. */
  taken: number[]
  /** From the first to the last number of a notice that was published, and that nobody here has. */
  missing: { from: number; to: number } | null
}

/** Those that verify, as of `inOrder`; and how many do not. */
export async function verifiedNotices(
  { notices: { keys }, fleet }: Pick<Settings, 'notices' | 'fleet'>,
  notices: Bytes[],
): Promise<{ verified: VerifiedNotice[]; others: number }> {
  const signers = noticeSigners(keys)
  const verified: VerifiedNotice[] = []
  let others = 0
  for (const notice of notices)
    await new Promise<void>(done =>
      openNotice(notice, fleet, signers, nodeVerify(), (_problem, body) => {
        if (body === null) others++
        else verified.push({ notice, body })
        done()
      }),
    )
  return { verified: inOrder(verified), others }
}

/** Oldest first, each once, two of one number in the order given. */
export function inOrder(notices: VerifiedNotice[]): VerifiedNotice[] {
  const bySha256 = new Map(notices.map(verified => [hexOf(noticeSha256(verified.notice)), verified]))
  return [...bySha256.values()].sort((a, b) => a.body.seq - b.body.seq)
}

/** To a store that permits the next gap (raiseNumbers). Once more with the same changes nothing, so a crash in between loses nothing. */
export async function takeIn(
  store: Store,
  settings: Settings,
  { notices, ended, seq: last, above }: PublishedNotices,
  at: number,
  audit: (detail: string) => AuditEntry,
): Promise<TakenIn> {
  const { fleet } = settings
  const own = (await store.newestNotice(fleet))?.seq ?? 0
  const taken: VerifiedNotice[] = []
  let [adopted, seq] = [0, own]
  for (const verified of notices) {
    const { rules, certificates } = partsOf(verified.body.rules)
    const detail = `notice ${verified.body.seq}, ${rules.length} group rules, ${countNumbers(certificates)} certificates`
    const outcome = await adopt(store, fleet, verified, audit(detail))
    if (outcome === 'taken') taken.push(verified)
    if (outcome !== 'adopted') continue
    adopted++
    seq = verified.body.seq
  }
  const sign = restoringSigner(store, settings, at)
  if (Math.max(last, above) > seq) {
    seq = Math.max(last, above) + 1
    const { rules, floor } = await store.draftSet(fleet, standingRulesMax)
    await sign(seq, rules, floor, audit(`notice ${seq}, signed anew above those that are missing`))
  }
  const standing = await storedRules(store, fleet)
  const again = async ({ rules, floor }: Spoken, which: string): Promise<void> => {
    seq++
    await sign(seq, unpackRules(rules), floor, audit(`notice ${seq}, signed anew for ${which}`))
  }
  for (const { body } of taken) {
    // Whoever holds it takes no other of its number, so both are said above it.
    const ours = await unheard(store, fleet, body.seq, seq)
    if (ours) await again(ours, `notice ${body.seq}, which was published as another`)
    const grew = standing.merge(body.rules, body.floor)
    if (grew || body.seq === seq) await again(body, `a published notice ${body.seq}, whose number is taken here`)
    adopted += grew ? 1 : 0
  }
  return {
    seq,
    adopted,
    taken: [...new Set(taken.map(({ body }) => body.seq))],
    missing: await missingOf(store, fleet, ended + 1, last, notices),
  }
}

type Spoken = Pick<NoticeBody, 'rules' | 'floor'>

/** The store's own notice of that number, unless those that are shown after it say as much. */
async function unheard(store: Store, fleet: string, number: number, newest: number): Promise<Spoken | null> {
  const said = createRuleSet()
  for (let seq = Math.max(number, newest - ringSize) + 1; seq <= newest; seq++) {
    const later = await store.notice(fleet, seq)
    if (later === null) continue
    const { rules, floor } = noticeFacts(later.notice)
    said.merge(rules, floor)
  }
  const own = await store.notice(fleet, number)
  const facts = own && noticeFacts(own.notice)
  return facts && said.merge(facts.rules, facts.floor) ? facts : null
}

/** From the first to the last number between these that no notice has, here or there. */
async function missingOf(
  store: Store,
  fleet: string,
  from: number,
  to: number,
  notices: VerifiedNotice[],
): Promise<TakenIn['missing']> {
  const known = new Set(notices.map(({ body }) => body.seq))
  const isPresent = async (seq: number) => known.has(seq) || (await store.notice(fleet, seq)) !== null
  while (from <= to && (await isPresent(from))) from++
  while (from <= to && (await isPresent(to))) to--
  return from <= to ? { from, to } : null
}

function adopt(store: Store, fleet: string, { notice, body }: VerifiedNotice, audit: AuditEntry) {
  const { seq, previousSha256, issuedAt: at, floor } = body
  return store.adoptNotice({
    fleet,
    seq,
    notice,
    sha256: noticeSha256(notice),
    previousSha256,
    at,
    floor,
    ...partsOf(body.rules),
    audit,
  })
}

/** Signs a notice above every other and takes it in as published: the first one that is shown after a restore, or one of them. */
function restoringSigner(store: Store, { fleet, state, notices: { keys, countersignAbove } }: Settings, issuedAt: number) {
  // Whom it takes back is not counted here; where that may take two keys, both sign.
  const countersign = async () => countersignAbove !== null && keys.length > 1
  const heartbeats = createHeartbeats(heartbeatSecret(join(state, 'heartbeat.key')), fleet)
  const signNotice = noticeSigner(noticeKeysOf(keys), heartbeats, { countersign })
  return async (seq: number, rules: NoticeInput['rules'], floor: number, audit: AuditEntry): Promise<void> => {
    const previousSha256 = (await store.newestNotice(fleet))?.sha256 ?? null
    const { notice } = await signNotice({ fleet, seq, previousSha256, issuedAt, devices: 0, rules, floor, followed: true })
    const [verified] = (await verifiedNotices({ fleet, notices: { keys, countersignAbove } }, [notice])).verified
    if ((await adopt(store, fleet, verified, audit)) === 'adopted') return
    throw new CommandError(
      'store_in_use',
      `somebody else wrote to the store meanwhile: notice ${seq} has no place there`,
      'stop every server of this fleet, and run the same command again',
      'refused',
    )
  }
}
