// The third story: revocation lists for standard consumers. A list is signed when somebody asks for it and kept until it grows old or something
// was revoked; what a revocation costs is therefore nothing, however many certificates it takes. Promises: a number is spent in the store before
// the key is asked and never again; whoever asks after a revocation was recorded gets a list that knows of it, or none; what cannot be signed is
// said in the log and by `problem`, and from its nextUpdate on no list is answered rather than an old one.

import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Bytes } from '@birthmark/device-sdk/core'
import { type CrlShape, crlEnvelope, crlFrame, entriesBytes, type RevocationFact, type RevokedRun, writeEntries } from './ca/crl.ts'
import type { Issuer } from './ca/issuer-key.ts'
import { EstServerError, failureCode } from './errors.ts'
import { createFullLists, type FullList } from './full-revocation-list.ts'
import { recentlyUsed } from './node-crypto.ts'
import type { Clock, Failpoint, Log } from './ports.ts'
import { clockToleranceSeconds } from './recorded-time.ts'
import { createRuleView, type RevocationRules } from './revocation-rules.ts'
import { crlFile, crlFolder, issuerName, shardBits, shardOf } from './status-urls.ts'
import type { CrlHead } from './store/crl.ts'
import type { PlacedSerial } from './store/revoked-lists.ts'
import type { Store } from './store/store.ts'

export interface RevocationListOptions {
  store: Store
  /** Those whose keys are here; the one that signs now first. */
  issuers: readonly Issuer[]
  /** Seconds from thisUpdate to nextUpdate. */
  lifetimeSeconds: number
  /** What the URLs of certificates began with before the present `statusUrl`; lists answer to those names as well. */
  formerUrls?: readonly string[]
  /** For full lists while they are made and served. Made when needed; what is in it may be lost. */
  folder: string
  clock: Clock
  log: Log
  /** Called with each of `crlFailpoints`. */
  failpoint?: Failpoint
}

export const crlFailpoints = ['crl-read', 'crl-numbered', 'crl-signed', 'crl-recorded'] as const

export interface SignedList extends CrlHead {
  der: Bytes
}

export type ListAnswer<L> =
  | { kind: 'list'; list: L }
  /** No such issuer, fleet or shard. */
  | { kind: 'unknown' }
  | { kind: 'unavailable'; retryAfterSeconds: number; detail: string }

export interface RevocationLists {
  /** The list of one shard. `issuer`: as issuerName() has it. Never rejects. */
  shard(issuer: string, fleet: string, shard: number): Promise<ListAnswer<SignedList>>
  /** The list of all certificates of an issuer, in a file. Never rejects. */
  full(issuer: string): Promise<ListAnswer<FullList>>
  /** Signs anew what is asked for and about to grow old, and tries the key if nothing is. To be called every minute or so. */
  refresh(): Promise<void>
  /** Why lists cannot be had at present, or null. */
  problem(): string | null
  /** Signatures made so far. */
  readonly signatures: number
  close(): Promise<void>
}

/** A list is signed anew after this part of its life, so that whoever fetches one gets at least the rest of it … */
const refreshFraction = 1 / 3
/** … and when this part is over and nothing could be signed, it is an alarm: half of the life is left to do something. */
const alarmFraction = 1 / 2

/** Lists that wait for their turn. At 10 ms each nobody waits longer than some seconds; a fleet of four million may ask for all its shards. */
const waitingMax = 1024
/** Lists kept in memory, the largest 200 KB each: beyond, they come from the store again. */
const rememberedMax = 64
/** How often a list that was overtaken by a revocation, or by another process, is looked at again. */
const attemptsMax = 4

/** A list that ended stays a while on the lists that follow: RFC 5280 3.3 wants it on one beyond its end. */
export const keptAfterEndLifetimes = 2

interface Kind {
  issuer: Issuer
  fleet: string
  shard: number
  /** As CrlRecord.list. */
  name: string
}

export function createRevocationLists(options: RevocationListOptions): RevocationLists {
  const { store, issuers, lifetimeSeconds, clock, log } = options
  for (const { statusUrl } of issuers)
    if (!statusUrl)
      throw new EstServerError('issuer_unusable', 'revocation lists need the URL that the certificates of their issuer name')
  const rulesOf = createRuleView(store)
  const queue = createQueue()
  const remembered = recentlyUsed<SignedList>(rememberedMax)
  /**
   * Lists that say all there is to say after so many revocations, under the addresses that are configured: those that this process signed, and those
   * it found in the store and held against what it would write itself.
   */
  const vouched = recentlyUsed<{ number: number; revocations: number }>(rememberedMax * 16)
  /** What was asked for since it was last signed, to be kept fresh. */
  const asked = new Map<string, Kind>()
  const problems = new Map<string, { since: number; detail: string; alarmed: boolean }>()
  const building = new Map<string, { revocations: number; done: Promise<unknown> }>()
  let signatures = 0
  const at = () => Math.floor(clock.now())
  const pass = async (name: (typeof crlFailpoints)[number]) => options.failpoint?.(name)
  const idOf = ({ issuer, name }: Kind) => `${issuerName(issuer.keyId)}/${name}`

  const isYoung = (head: CrlHead, now: number) =>
    now < head.thisUpdate + (head.nextUpdate - head.thisUpdate) * refreshFraction && now >= head.thisUpdate - clockToleranceSeconds

  async function requireForwardClock(now: number): Promise<void> {
    const last = await store.lastTime()
    if (now < last - clockToleranceSeconds)
      throw new EstServerError('clock_regressed', `the clock says ${iso(now)}, the last record is of ${iso(last)}`)
  }

  /** Entries of a shard; reads at most 4,096 rows, in one go but for the bounds inside. */
  async function entriesOf({ issuer, fleet, shard }: Kind, rules: RevocationRules, now: number): Promise<Bytes> {
    const runs: RevokedRun[] = []
    for await (const run of revokedRuns(store, issuer, fleet, shard, rules, now - keptAfterEndLifetimes * lifetimeSeconds))
      runs.push(run)
    const entries = Buffer.allocUnsafe(runs.reduce((sum, run) => sum + entriesBytes(run), 0))
    runs.reduce((at, run) => writeEntries(run, entries, at), 0)
    return entries
  }

  const urlsOf = ({ issuer, fleet, shard }: Kind): string[] =>
    [issuer.statusUrl ?? '', ...(options.formerUrls ?? [])].map(base => `${base}${crlFolder(issuer.keyId, fleet)}${crlFile(shard)}`)

  function tbsOf(kind: Kind, shape: Omit<CrlShape, 'distributionPoint'>, entries: Bytes): Buffer {
    const { before, after } = crlFrame(kind.issuer, { ...shape, distributionPoint: urlsOf(kind) }, entries.length)
    return Buffer.concat([before, entries, after])
  }

  /** A list that knows of `revocations`: the one there is, when nothing on it has changed, or a new one. */
  async function build(kind: Kind, revocations: number): Promise<SignedList> {
    const { issuer, name } = kind
    const now = at()
    await requireForwardClock(now)
    const rules = await rulesOf(kind.fleet, revocations)
    const entries = await entriesOf(kind, rules, now)
    await pass('crl-read')
    const before = await store.crl(issuer.keyId, name)
    if (before && isYoung(before, now)) {
      // What it would be if it were made now, with its own number and times.
      const tbs = tbsOf(kind, before, entries)
      if (Buffer.from(before.der).includes(tbs)) {
        vouched.set(idOf(kind), { number: before.number, revocations })
        return before
      }
    }
    // A crash from here on leaves a number that no list has.
    const number = await store.reserveCrlNumber(issuer.keyId, now)
    await pass('crl-numbered')
    const shape = { number, thisUpdate: now, nextUpdate: now + lifetimeSeconds }
    const tbs = tbsOf(kind, shape, entries)
    let signature: Bytes
    try {
      signature = await issuer.sign(tbs)
    } catch (error) {
      throw new EstServerError('issuer_failed', 'the issuer key did not sign', error)
    }
    signatures++
    // A faulty signature may give the key away: it does not leave this process.
    if (!issuer.verify(tbs, signature))
      throw new EstServerError('signature_wrong', 'the issuer key gave a signature that does not verify')
    await pass('crl-signed')
    const envelope = crlEnvelope(issuer, signature, tbs.length)
    const list = { ...shape, revocations, der: Buffer.concat([envelope.before, tbs, envelope.after]) }
    // Another process may have been faster; its list is as good, and everybody serves the same.
    if ((await store.recordCrl({ issuer: issuer.keyId, list: name, ...list })) === 'conflict')
      return (await store.crl(issuer.keyId, name)) ?? list
    vouched.set(idOf(kind), { number, revocations })
    await pass('crl-recorded')
    return list
  }

  const knows = (id: string, head: CrlHead, revocations: number) => {
    const known = vouched.get(id)
    return known !== undefined && known.number === head.number && known.revocations === revocations
  }

  async function shardList(kind: Kind): Promise<SignedList> {
    const id = idOf(kind)
    for (let i = 0; i < attemptsMax; i++) {
      const revocations = await store.revocations(kind.fleet)
      const head = await store.crlHead(kind.issuer.keyId, kind.name)
      const current = head !== null && knows(id, head, revocations)
      if (current && isYoung(head, at())) return await bytesOf(kind, head)
      const under = building.get(id)
      if (under !== undefined && under.revocations !== revocations) {
        // It began before the last revocation: it is waited for, and then looked at again.
        await under.done.catch(() => {})
        continue
      }
      try {
        await buildOnce(kind, id, revocations)
        solved(id)
      } catch (error) {
        complain(id, kind, error, current ? head : null)
        // It still says all there is to say, until its nextUpdate; an old one that lacks a revocation is as good as none.
        if (current && at() < head.nextUpdate) return await bytesOf(kind, head)
        throw error
      }
    }
    throw new EstServerError('store_busy', `${kind.name} is revoked from faster than it is signed`)
  }

  function buildOnce(kind: Kind, id: string, revocations: number): Promise<unknown> {
    const under = building.get(id)
    if (under !== undefined && under.revocations === revocations) return under.done
    const done = queue.take(() => build(kind, revocations)).then(list => remembered.set(id, list))
    const entry = { revocations, done }
    building.set(id, entry)
    const over = () => {
      if (building.get(id) === entry) building.delete(id)
    }
    done.then(over, over)
    return done
  }

  async function bytesOf(kind: Kind, head: CrlHead): Promise<SignedList> {
    const id = idOf(kind)
    const known = remembered.get(id)
    if (known?.number === head.number) return known
    const read = await store.crl(kind.issuer.keyId, kind.name)
    if (read === null) throw new EstServerError('store_failed', `${kind.name} is gone`)
    remembered.set(id, read)
    return read
  }

  function complain(id: string, kind: Kind, error: unknown, standing: CrlHead | null): void {
    const now = at()
    const problem = problems.get(id) ?? { since: now, detail: '', alarmed: false }
    problem.detail = `CRL ${kind.name === '' ? 'of everything' : kind.name} cannot be signed since ${iso(problem.since)} (${failureCode(error) ?? 'error'})`
    problems.set(id, problem)
    const urgent = standing === null || now >= standing.thisUpdate + (standing.nextUpdate - standing.thisUpdate) * alarmFraction
    const fields = { list: id, code: failureCode(error), err: error, nextUpdate: standing && iso(standing.nextUpdate) }
    if (!urgent) log.warn(fields, 'a CRL could not be signed anew; the one before it is young')
    else if (!problem.alarmed)
      log.error(fields, standing ? 'a CRL cannot be signed and half its life is over' : 'a CRL cannot be signed')
    problem.alarmed ||= urgent
  }

  function solved(id: string): void {
    if (problems.get(id)?.alarmed) log.info({ list: id }, 'the CRL was signed again')
    problems.delete(id)
  }

  const fulls = createFullLists({
    ...{ store, lifetimeSeconds, folder: options.folder, clock, rulesOf, requireForwardClock, pass, isYoung },
    since: now => now - keptAfterEndLifetimes * lifetimeSeconds,
  })

  async function fullList(issuer: Issuer): Promise<FullList> {
    const kind: Kind = { issuer, fleet: '', shard: -1, name: '' }
    const id = idOf(kind)
    const given = await fulls.get(issuer)
    if (given.kind === 'fresh') {
      if (given.signed) {
        signatures++
        solved(id)
      }
      return given.list
    }
    complain(id, kind, given.error, given.standing)
    if (given.standing !== null && at() < given.standing.nextUpdate) return given.standing
    throw given.error
  }

  async function answer<L>(find: () => Promise<L | null>): Promise<ListAnswer<L>> {
    try {
      const list = await find()
      return list === null ? { kind: 'unknown' } : { kind: 'list', list }
    } catch (error) {
      const code = failureCode(error)
      if (code === null) log.error({ err: error }, 'a CRL could not be made')
      return { kind: 'unavailable', retryAfterSeconds: code === 'store_busy' ? 1 : 30, detail: code ?? 'internal' }
    }
  }

  const byName = (name: string) => issuers.find(issuer => issuerName(issuer.keyId) === name)

  return {
    shard: (issuerId, fleet, shard) =>
      answer(async () => {
        const issuer = byName(issuerId)
        // Beyond the last index there is nothing to list, and anybody could have the key sign for ever.
        if (issuer === undefined || shard > shardOf(await store.lastIdx(fleet))) return null
        const kind = { issuer, fleet, shard, name: `${fleet}/${shard}` }
        if ((await store.crlHead(issuer.keyId, kind.name)) === null && !(await store.fleets()).includes(fleet)) return null
        // Also one that cannot be had now: it is tried again, and a problem with it does not outlast its cause.
        asked.set(idOf(kind), kind)
        return await shardList(kind)
      }),

    full: issuerId =>
      answer(async () => {
        const issuer = byName(issuerId)
        return issuer === undefined ? null : await fullList(issuer)
      }),

    async refresh() {
      const kinds = [...asked.values()]
      asked.clear()
      if (kinds.length === 0 && problems.size > 0)
        // Whether the key is back shows only when it is asked.
        for (const issuer of issuers)
          for (const fleet of await store.fleets()) kinds.push({ issuer, fleet, shard: 0, name: `${fleet}/0` })
      for (const kind of kinds) {
        try {
          const before = await store.crlHead(kind.issuer.keyId, kind.name)
          const { number } = await shardList(kind)
          // What was signed anew and is not asked for again ends in its own time.
          if (before?.number === number) asked.set(idOf(kind), kind)
        } catch {
          // complain() has said so; it is tried again as long as it is wanted.
          asked.set(idOf(kind), kind)
        }
      }
      // The list of everything is dear: not while the key is known to be away.
      const afflicted = (issuer: Issuer) => [...problems.keys()].filter(id => id.startsWith(`${issuerName(issuer.keyId)}/`))
      for (const issuer of issuers)
        if (afflicted(issuer).join() === `${issuerName(issuer.keyId)}/`) await fullList(issuer).catch(() => {})
    },

    problem: () => [...problems.values()].find(({ alarmed }) => alarmed)?.detail ?? null,

    get signatures() {
      return signatures
    },

    close: () => fulls.close(),
  }
}

const iso = (seconds: number) => new Date(seconds * 1000).toISOString()

/** Indices of one read. What it gives is small enough to be forgotten with the youngest garbage; four times as many stay until memory is short. */
const pieceIndices = 1024

/** What is revoked of one shard, in pieces, with the event loop between the pieces where there are many. */
export async function* revokedRuns(
  store: Store,
  issuer: Issuer,
  fleet: string,
  shard: number,
  rules: RevocationRules,
  since: number,
): AsyncGenerator<RevokedRun> {
  const from = shard * 2 ** shardBits
  const to = from + 2 ** shardBits
  const cuts = [from, ...rules.cuts(from, to)]
  for (let at = from + pieceIndices; at < to; at += pieceIndices) cuts.push(at)
  const starts = [...new Set(cuts)].sort((a, b) => a - b)
  for (let i = 0; i < starts.length; i++) {
    if (i % 16 === 15) await nextTurn()
    const end = starts[i + 1] ?? to
    if (rules.isListed(starts[i], end)) {
      yield* listedRuns(await store.placedSerials({ issuer: issuer.keyId, fleet, from: starts[i], to: end, since }), rules, issuer)
      // Four times the work of a piece in which groups say it.
      await nextTurn()
      continue
    }
    const runs = await store.serials({ issuer: issuer.keyId, fleet, from: starts[i], to: end, since })
    for (const { gids, serialBytes, serials } of runs) {
      const fact = rules.verdict(starts[i], gids, issuer.keyId)
      if (fact !== null) yield { serials, serialBytes, fact }
    }
  }
}

/** Certificate by certificate, those that were revoked together side by side. */
function listedRuns(placed: PlacedSerial[], rules: RevocationRules, issuer: Issuer): RevokedRun[] {
  const together = new Map<RevocationFact, Map<number, Bytes[]>>()
  for (const { idx, gids, serial } of placed) {
    const fact = rules.verdict(idx, gids, issuer.keyId)
    if (fact === null) continue
    const byLength = together.get(fact) ?? new Map<number, Bytes[]>()
    together.set(fact, byLength)
    const serials = byLength.get(serial.length)
    if (serials) serials.push(serial)
    else byLength.set(serial.length, [serial])
  }
  return [...together].flatMap(([fact, byLength]) =>
    [...byLength].map(([serialBytes, serials]) => ({ serials: Buffer.concat(serials), serialBytes, fact })),
  )
}

/** One piece of work after the other, each in a turn of the event loop of its own. */
function createQueue(): { take<T>(work: () => Promise<T>): Promise<T> } {
  let last: Promise<unknown> = Promise.resolve()
  let waiting = 0
  return {
    take(work) {
      if (waiting >= waitingMax) return Promise.reject(new EstServerError('store_busy', `${waiting} lists are waiting`))
      waiting++
      const done = last.then(() => nextTurn()).then(work)
      const over = () => {
        waiting--
      }
      last = done.then(over, over)
      return done
    },
  }
}
