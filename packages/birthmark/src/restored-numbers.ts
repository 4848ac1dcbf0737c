// How a store that was put back goes on: above every number that was given out since, as far as anybody knows, and with every notice that was
// published since. What is known comes from the mark and the notices of this machine, from whoever else holds notices, and from the operator.

import type { Bytes } from '@birthmark/device-sdk/core'
import { blockSize, issuerName, listNumber, readIssuerCertificate, type Store, type StoreNumbers } from '@birthmark/est-server'
import { systemClock } from '@birthmark/fleet-revocation'
import { CommandError } from './command-error.ts'
import type { Settings } from './configuration.ts'
import { doubledNotices, noteDoubled } from './doubled-notices.ts'
import { writeMark } from './published.ts'
import { partsOf } from './recorded-rules.ts'
import { type TakenIn, takeIn, type VerifiedNotice } from './restored-notices.ts'
import { endBeforeRestore, endText } from './unfinished-restore.ts'

/**
 * How far above the last mark the numbers go on. The mark is at most a second old, in which no server gives out a tenth of this; without a mark
 * there is only the backup's word, which may be months old.
 */
const margins = { marked: { idx: 65_536, gid: 1024, crl: 4096 }, unmarked: { idx: 4_194_304, gid: 4096, crl: 1_048_576 } }

/** What the world has seen, as far as it could be learnt. */
export interface Known {
  /** This machine's mark, or the numbers of the backup. */
  seen: StoreNumbers | null
  /** It is a mark, and no notice is above the number that it says. */
  isMarked: boolean
  /** Oldest first. */
  notices: VerifiedNotice[]
  /** Of those whose number is another's as well, the ones beyond which this machine has gone on already (doubled-notices.ts). */
  doubled: ReadonlySet<string>
  /** Numbers of published lists. */
  lists: { issuer: Bytes; number: number }[]
  /** The operator's word that nothing published has a higher number; null for none. */
  above: number | null
}

export interface Restored extends TakenIn {
  idx: number
  /** The mark is of the last moment that anybody knows of. */
  isMarked: boolean
  /** A number is another notice's as well, and no restore has gone on beyond that notice yet. */
  isForked: boolean
  /** Indices that may have been given out and are not in the store. */
  lost: { from: number; to: number } | null
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

/**
 * Rejects with `store_unsound`, or with `store_in_use` where another server goes on writing. The mark is written once the store has all: until then
 * the server does not start. That the machine has gone on beyond a fork is noted after it, so that a crash in between makes it do so once more.
 */
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
  // What is lost begins where the store ended, and not at what a restore that was cut short made of it.
  const end = await endBeforeRestore(store, known.seen, own, found.audit.n)
  const before = lastOf(known, { ...own, ...end })
  // Numbers that were spent twice show that the machine went back and signed on: its mark is then of that second life. Once it lies beyond the
  // first life as well, the same notices show nothing more.
  const doubled = await doubledNotices(store, fleet, known.notices)
  const isForked = doubled.some(sha256 => !known.doubled.has(sha256))
  const isMarked = known.isMarked && !isForked
  const isBehind = before.idx > end.idx || !isMarked || (known.seen !== null && known.seen.audit.n > end.audit)
  const margin = isMarked ? margins.marked : margins.unmarked
  const idx = Math.max(last.idx + margin.idx, (known.above ?? 0) + 1)
  // First of all: it permits the gap that a missing notice leaves.
  await store.raiseNumbers({
    fleets: [{ fleet, idx, gid: last.gid + margin.gid }],
    crls: listsAbove([...issuersOf(settings), ...found.crls, ...(known.seen?.crls ?? []), ...known.lists], margin.crl, known.above),
    audit: audit('store_restored', `${endText({ ...own, audit: found.audit.n })}; goes on at index ${idx}`),
  })
  const published = { notices: known.notices, ended: end.seq, seq: before.seq, above: known.above ?? 0 }
  const outcome = await takeIn(store, settings, published, at, detail => audit('notice_adopted', detail))
  const after = await store.numbers([fleet])
  writeMark(state, after)
  if (isForked) noteDoubled(state, doubled)
  return {
    ...outcome,
    idx: after.fleets[0].idx,
    isMarked: known.isMarked,
    isForked,
    lost: isBehind ? { from: end.idx, to: idx - 1 } : null,
  }
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
