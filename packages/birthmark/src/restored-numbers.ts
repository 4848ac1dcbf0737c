// How a store that was put back goes on: above every number that was given out since, as far as anybody knows, and with every notice that was
// published since. What is known comes from the mark and the notices of this machine, from whoever else holds notices, and from the operator.

import { join } from 'node:path'
import { type Bytes, equalBytes } from '@birthmark/device-sdk/core'
import {
  blockSize,
  countNumbers,
  issuerName,
  listNumber,
  type NoticeInput,
  readIssuerCertificate,
  type Store,
  type StoreNumbers,
} from '@birthmark/est-server'
import {
  createHeartbeats,
  type NoticeBody,
  nodeVerify,
  noticeSha256,
  openNotice,
  systemClock,
  unpackRules,
} from '@birthmark/fleet-revocation'
import { CommandError } from './command-error.ts'
import type { Settings } from './configuration.ts'
import { heartbeatSecret, noticeKeysOf, noticeSigner, noticeSigners } from './notice-signing.ts'
import { writeMark } from './published.ts'
import { partsOf, storedRules } from './recorded-rules.ts'

/**
 * How far above the last mark the numbers go on. The mark is at most a second old, in which no server gives out a tenth of this; without a mark
 * there is only the backup's word, which may be months old.
 */
const margins = { marked: { idx: 65_536, gid: 1024, crl: 4096 }, unmarked: { idx: 4_194_304, gid: 4096, crl: 1_048_576 } }
/** As in a notice that revokes nothing. */
const standingRulesMax = 63

/** A notice that verified under a key of the configuration. */
export interface VerifiedNotice {
  notice: Bytes
  body: NoticeBody
}

/** What the world has seen, as far as it could be learnt. */
export interface Known {
  /** This machine's mark, or the numbers of the backup. */
  seen: StoreNumbers | null
  /** It is a mark, and no notice is above the number that it says. */
  isMarked: boolean
  /** Oldest first. */
  notices: VerifiedNotice[]
  /** Numbers of published lists. */
  lists: { issuer: Bytes; number: number }[]
  /** The operator's word that nothing published has a higher number; null for none. */
  above: number | null
}

export interface Restored {
  idx: number
  seq: number
  /** Of the notices that are known, those that the store has only now. */
  adopted: number
  /** Numbers under which something else was published than the store has: what that revoked was signed again, under later numbers. */
  taken: number[]
  /** The mark is of the last moment that anybody knows of: no notice is beyond it, and none has the number of another. */
  isMarked: boolean
  /** From the first to the last number of a notice that was published, and that nobody here has. */
  missing: { from: number; to: number } | null
  lost: { from: number; to: number } | null
}

/** Those that verify, oldest first, each once, two of one number in the order given; and how many do not. */
export async function verifiedNotices(
  { notices: { keys }, fleet }: Pick<Settings, 'notices' | 'fleet'>,
  notices: Bytes[],
): Promise<{ verified: VerifiedNotice[]; others: number }> {
  const signers = noticeSigners(keys)
  const byHash = new Map<string, VerifiedNotice>()
  let others = 0
  for (const notice of notices)
    await new Promise<void>(done =>
      openNotice(notice, fleet, signers, nodeVerify(), (_problem, body) => {
        if (body === null) others++
        else byHash.set(Buffer.from(noticeSha256(notice)).toString('hex'), { notice, body })
        done()
      }),
    )
  return { verified: [...byHash.values()].sort((a, b) => a.body.seq - b.body.seq), others }
}

/** The issuer and number of a list that somebody downloaded; null for what none of the configured issuers signed. */
export function listFacts({ issuer }: Pick<Settings, 'issuer'>, der: Bytes): { issuer: Bytes; number: number } | null {
  for (const [certificate] of [issuer.certificates, ...(issuer.next ? [issuer.next.certificates] : []), ...issuer.previous]) {
    const { keyId, certificate: parsed } = readIssuerCertificate({ certificate })
    const number = listNumber(der, parsed.spki)
    if (number !== null) return { issuer: keyId, number }
  }
  return null
}

/** Rejects with `store_unsound`. The mark is written last: until then the server does not start. */
export async function goOn(store: Store, settings: Settings, known: Known): Promise<Restored> {
  const { fleet, state } = settings
  const broken = await store.check()
  if (broken.length > 0)
    throw new CommandError('store_unsound', `the store is damaged: ${broken[0]}`, 'restore another backup', 'failed')
  const at = Math.max(Math.floor(systemClock.now()), await store.lastTime())
  const audit = (kind: 'notice_adopted' | 'store_restored', detail: string) => ({
    ...{ at, kind, requestId: '', fleet, device: '', by: 'birthmark restore', code: '', detail },
  })
  const found = await store.numbers([fleet])
  const [own] = found.fleets
  const last = lastOf(known, own)
  // Numbers that were spent twice show that the machine went back and signed on: its mark is then of that second life.
  const isMarked = known.isMarked && !(await isForked(store, fleet, known.notices))
  const isBehind = last.idx > own.idx || !isMarked || (known.seen !== null && known.seen.audit.n > found.audit.n)
  const margin = isMarked ? margins.marked : margins.unmarked
  const idx = Math.max(last.idx + margin.idx, (known.above ?? 0) + 1)
  // First of all: it permits the gap that a missing notice leaves.
  await store.raiseNumbers({
    fleets: [{ fleet, idx, gid: last.gid + margin.gid }],
    crls: listsAbove([...issuersOf(settings), ...found.crls, ...(known.seen?.crls ?? []), ...known.lists], margin.crl, known.above),
    audit: audit(
      'store_restored',
      `the store ended at audit record ${found.audit.n}, index ${own.idx}, notice ${own.seq}; goes on at index ${idx}`,
    ),
  })
  let adopted = 0
  let seq = own.seq
  const taken: VerifiedNotice[] = []
  for (const verified of known.notices) {
    const { rules, certificates } = partsOf(verified.body.rules)
    const detail = `notice ${verified.body.seq}, ${rules.length} group rules, ${countNumbers(certificates)} certificates`
    const outcome = await adopt(store, fleet, verified, audit('notice_adopted', detail))
    if (outcome === 'taken') taken.push(verified)
    if (outcome !== 'adopted') continue
    adopted++
    seq = verified.body.seq
  }
  const missing = missingOf(own.seq + 1, last.seq, known.notices)
  const published = Math.max(last.seq, known.above ?? 0)
  const sign = restoringSigner(store, settings, at)
  if (published > seq) {
    seq = published + 1
    const { rules, floor } = await store.draftSet(fleet, standingRulesMax)
    await sign(seq, rules, floor, audit('notice_adopted', `notice ${seq}, signed anew above those that are missing`))
  }
  // A notice that has no place here revokes all the same: rules only grow, whatever the number under which they were said.
  const standing = await storedRules(store, fleet)
  for (const { body } of taken) {
    const grew = standing.merge(body.rules, body.floor)
    // Whoever holds it takes no other of its number: the next thing that is shown has to be above it.
    if (!grew && body.seq !== seq) continue
    adopted += grew ? 1 : 0
    seq++
    const detail = `notice ${seq}, signed anew for a published notice ${body.seq}, whose number is taken here`
    await sign(seq, unpackRules(body.rules), body.floor, audit('notice_adopted', detail))
  }
  const after = await store.numbers([fleet])
  writeMark(state, after)
  const lost = isBehind ? { from: own.idx, to: idx - 1 } : null
  return { idx: after.fleets[0].idx, seq, adopted, taken: [...new Set(taken.map(({ body }) => body.seq))], isMarked, missing, lost }
}

/** From the first to the last number between these that no notice has. */
function missingOf(from: number, to: number, notices: VerifiedNotice[]): Restored['missing'] {
  const present = new Set(notices.map(({ body }) => body.seq))
  while (present.has(from)) from++
  while (present.has(to)) to--
  return from <= to ? { from, to } : null
}

/** Whether a number has two notices: among those that are known, or between them and the store. */
async function isForked(store: Store, fleet: string, notices: VerifiedNotice[]): Promise<boolean> {
  for (const [i, { notice, body }] of notices.entries()) {
    if (notices[i + 1]?.body.seq === body.seq) return true
    const held = await store.notice(fleet, body.seq)
    if (held && !equalBytes(held.sha256, noticeSha256(notice))) return true
  }
  return false
}

/** The highest numbers that anybody has noted. */
function lastOf({ seen, notices }: Known, own: { fleet: string; idx: number; gid: number; seq: number }) {
  const noted = seen?.fleets.find(({ fleet }) => fleet === own.fleet) ?? own
  let idx = Math.max(own.idx, noted.idx)
  let gid = Math.max(own.gid, noted.gid)
  for (const { body } of notices) {
    const { rules, certificates } = partsOf(body.rules)
    // A bound is the lowest idx that nobody had been given when the notice was signed.
    idx = Math.max(idx, body.floor, ...rules.map(rule => rule.bound), ...certificates.map(({ block }) => (block + 1) * blockSize))
    gid = Math.max(gid, ...rules.map(rule => rule.gid))
  }
  return { idx, gid, seq: Math.max(own.seq, noted.seq, notices.at(-1)?.body.seq ?? 0) }
}

/** All that are configured: a backup may be older than the first list of one. */
function issuersOf({ issuer }: Settings): { issuer: Bytes; number: number }[] {
  const chains = [issuer.certificates, ...(issuer.next ? [issuer.next.certificates] : []), ...issuer.previous]
  return chains.map(([certificate]) => ({ issuer: readIssuerCertificate({ certificate }).keyId, number: 0 }))
}

function listsAbove(
  all: { issuer: Bytes; number: number }[],
  margin: number,
  above: number | null,
): { issuer: Bytes; number: number }[] {
  const highest = new Map<string, { issuer: Bytes; number: number }>()
  for (const one of all) {
    const name = issuerName(one.issuer)
    if (one.number > (highest.get(name)?.number ?? -1)) highest.set(name, one)
  }
  return [...highest.values()].map(({ issuer, number }) => ({ issuer, number: Math.max(number + margin, above ?? 0) }))
}

function adopt(store: Store, fleet: string, { notice, body }: VerifiedNotice, audit: Parameters<Store['adoptNotice']>[0]['audit']) {
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
  return async (
    seq: number,
    rules: NoticeInput['rules'],
    floor: number,
    audit: Parameters<Store['adoptNotice']>[0]['audit'],
  ): Promise<void> => {
    const previousSha256 = (await store.newestNotice(fleet))?.sha256 ?? null
    const { notice } = await signNotice({ fleet, seq, previousSha256, issuedAt, devices: 0, rules, floor, followed: true })
    const [verified] = (await verifiedNotices({ fleet, notices: { keys, countersignAbove } }, [notice])).verified
    await adopt(store, fleet, verified, audit)
  }
}
