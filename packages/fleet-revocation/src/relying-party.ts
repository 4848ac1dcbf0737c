// A relying party's memory of revocation: a broker, gateway or API that must refuse what is revoked, with or without the publisher in
// reach. It takes notices from a bus and from a pull, in any order; denies first, then has sessions cut, then saves, then acknowledges.
// It is fresh only while it can prove that it missed nothing; who is not fresh refuses new connections. How sessions are cut is the
// caller's.

import type { Bytes, Membership } from '@birthmark/device-sdk/core'
import { equalBytes } from '@birthmark/device-sdk/core'
import { createAcknowledger } from './acknowledger.ts'
import { RevocationError } from './errors.ts'
import { chainsTo, decodeHeartbeat, stepSeconds } from './heartbeat.ts'
import { headTopic, heartbeatTopic, type NoticeBody, type NoticeProblem, openNotice } from './notice.ts'
import { oneByOne } from './one-by-one.ts'
import type { Bus, Clock, Log } from './ports.ts'
import type { Pulled } from './pull.ts'
import { decodeRelyingPartyState, emptyState, encodeRelyingPartyState, recentMax } from './relying-party-state.ts'
import { repeat } from './repeat.ts'
import { certificatesNamed, type Rule } from './rule.ts'
import { unpackRules } from './rule-packing.ts'
import { createRuleSet, type RuleSet, type Status, statusOf } from './rule-set.ts'
import { createSettlement } from './settlement.ts'
import { noticeSha256 } from './sign-notice.ts'
import type { NoticeSigner } from './signed.ts'
import { openSnapshot, type SnapshotBody, snapshotTopic } from './snapshot.ts'
import { nodeVerify } from './verify.ts'

export interface RelyingPartyOptions {
  /** Its name in acknowledgements; the broker knows it by a certificate with this common name. */
  name: string
  fleet: string
  signers: NoticeSigner[]
  /**
   * A notice that revokes more certificates than `most` must be signed by two of `signers`; one that isn't is refused. `groupSize`: for a party
   * that knows its devices. Without this, one signature does.
   */
  oneSignature?: { most: number; groupSize?: (gid: number) => number }
  /** `save` has reached the medium when it resolves, and is atomic. */
  state: { load(): Promise<Bytes | null>; save(state: Bytes): Promise<void> }
  bus?: Bus
  /** What came after notice `seq`, from the server over HTTPS: the guarantee where the bus is only the fast path. `createPull` makes one. */
  pull?: (seq: number) => Promise<Pulled>
  /** Between two pulls while nothing is missing. Without a bus 5 s: a pull is then all that brings a revocation; with one, never. */
  pullSeconds?: number
  /** Cuts what the rule set revokes; called after the deny state stands. */
  enforce?: () => Promise<{ cut: number }>
  clock: Clock
  log: Log
  onEvent?: (event: RelyingPartyEvent) => void
}

export type RelyingPartyEvent =
  | { type: 'applied'; seq: number; grew: boolean; cut: number }
  | { type: 'refused'; problem: NoticeProblem }
  /** Somebody must look: `gap` a notice is missing, `stale` nothing proves freshness, `unsupported` a newer version is needed, `forked` two histories, or two notices of one number. */
  | { type: 'alarm'; reason: 'gap' | 'stale' | 'unsupported' | 'forked' }
  | { type: 'fresh' }

export type Receipt =
  | { kind: 'applied'; seq: number; cut: number }
  | { kind: 'known'; seq: number }
  | { kind: 'refused'; problem: NoticeProblem }

export interface RelyingParty {
  readonly rules: RuleSet
  /**
   * Judges one notice from anywhere. Rejects with `state_not_saved` or as `enforce` did: then it is denied in memory and not acknowledged, and what
   * failed is done again by itself, and when a notice comes.
   */
  receive(notice: Bytes): Promise<Receipt>
  /** Judges one shard of a snapshot, as `receive` does a notice. Once every shard is there, its notice counts as taken in. */
  receiveSnapshot(snapshot: Bytes): Promise<Receipt>
  heartbeat(payload: Bytes): void
  /** Nothing is missing and the newest proof of freshness is not older than the notice's max-age. */
  fresh(): boolean
  /** `unknown` when not fresh: refuse new connections, keep the old ones. */
  status(membership: Membership | null, issuerKeyId: Bytes | null): Status
  progress(): { through: number; newest: number; provenAt: number }
  close(): void
}

// Notices that wait for their turn; a flood beyond is dropped, since ring, head and pull bring everything again.
const queueMax = 256
// What a revocation may take where nothing pushes it.
const pullSecondsAlone = 5
// A disk that was full has room again, a broker answers its management.
const makeUpSeconds = 5
// Notices held beyond a gap.
const beyondMax = 1024

export async function createRelyingParty(options: RelyingPartyOptions): Promise<RelyingParty> {
  const { fleet, clock, log } = options
  const emit = options.onEvent ?? (() => {})
  const verifier = nodeVerify()
  const saved = await options.state.load()
  const state = saved ? decodeRelyingPartyState(saved, fleet) : emptyState()
  const rules = createRuleSet(state.rules, state.floor)
  const judge = statusOf(rules, fleet)
  let newest = Math.max(state.through, state.head?.seq ?? 0, ...state.beyond.map(entry => entry.seq))
  let provenAt = state.head?.issuedAt ?? 0
  let link = { i: 0, bytes: state.head?.anchor ?? null }
  let outdated = false
  let wasFresh = false
  let closed = false
  let queued = 0
  /** By shard, the newest of its snapshots that was merged since the start. */
  const shards = new Map<number, { seq: number; of: number; sha256: Bytes }>()
  let cancelWatch = () => {}
  const acknowledger = options.bus
    ? createAcknowledger({ fleet, name: options.name, bus: options.bus, before: state.word, clock, log })
    : null
  const settlement = createSettlement({
    ...{ state, save, enforce: options.enforce, clock },
    say: word => acknowledger?.say(word),
    onSettled(settled) {
      emit({ type: 'applied', ...settled })
      watch()
    },
  })

  function tooMuchForOne({ rules: told, floor }: { rules: Rule[]; floor: number }): boolean {
    const { oneSignature } = options
    if (oneSignature === undefined) return false
    // What a notice repeats was signed by two when it was new, and takes nobody out any more.
    const fresh = unpackRules(told).filter(
      rule => rule.kind !== 'group' || !rules.isRevoked({ idx: rule.bound - 1, gids: [rule.gid] }, null),
    )
    return certificatesNamed(fresh, floor - rules.floor, oneSignature.groupSize) > oneSignature.most
  }

  function open(notice: Bytes): Promise<NoticeBody | NoticeProblem> {
    return new Promise(resolve =>
      openNotice(notice, fleet, options.signers, verifier, (problem, body, countersigned) =>
        resolve(body && !countersigned && tooMuchForOne(body) ? 'notice_one_signature' : (body ?? problem ?? 'notice_malformed')),
      ),
    )
  }

  function alarm(reason: 'gap' | 'stale' | 'unsupported' | 'forked', facts: object): void {
    log.error(
      { reason, through: state.through, newest, ...facts },
      'revocation state can not be relied on; new connections are refused',
    )
    emit({ type: 'alarm', reason })
  }

  function fork(seq: number): void {
    if (state.forked) return
    state.forked = true
    alarm('forked', { seq })
  }

  /** Moves `through` over what is contiguous, checking that each notice names the one before it. */
  function advance(): void {
    for (;;) {
      const at = state.beyond.findIndex(entry => entry.seq === state.through + 1)
      if (at < 0) return
      const [entry] = state.beyond.splice(at, 1)
      const before = state.recent.at(-1) ?? null
      const linked = before === null ? entry.previous === null : entry.previous !== null && equalBytes(entry.previous, before)
      if (!linked) fork(entry.seq)
      state.through = entry.seq
      state.recent = [...state.recent.slice(1 - recentMax), entry.sha256]
    }
  }

  /** What notice `seq` was known by when it was taken in; null when that is longer ago than `recentMax`, undefined when it never was. */
  function takenIn(seq: number): Bytes | null | undefined {
    if (seq > state.through) return state.beyond.find(entry => entry.seq === seq)?.sha256
    return state.recent.at(seq - state.through - 1) ?? null
  }

  /** Says nothing new; what could not be done when it did is done now. */
  async function heardBefore(seq: number): Promise<Receipt> {
    await settlement.makeUp()
    return { kind: 'known', seq }
  }

  /**
   * Denies what is said as soon as it is read, however long those before it take to be cut and saved: rules only grow, so that their order is no matter.
   * Also for a number that was seen before: a publisher that was restored from a backup spends numbers twice, and both notices are signed and meant.
   * True when that is more than before.
   */
  function deny(body: { seq: number; rules: Rule[]; floor: number }): boolean {
    try {
      const grew = rules.merge(body.rules, body.floor)
      if (grew) settlement.denied(body.seq)
      // Not kept while it waits for its turn.
      body.rules = []
      return grew
    } catch (error) {
      // What it revokes is not denied here: from now on nobody is called good.
      newest = Math.max(newest, body.seq)
      throw error
    }
  }

  async function apply(notice: Bytes, body: NoticeBody, grew: boolean): Promise<Receipt> {
    const { seq } = body
    const sha256 = noticeSha256(notice)
    newest = Math.max(newest, seq)
    const before = takenIn(seq)
    if (before !== undefined) {
      const other = before === null ? grew : !equalBytes(before, sha256)
      // Known from a snapshot, but its heartbeats are not.
      const unheard = seq > (state.head?.seq ?? 0)
      if ((!other || (state.forked && !grew)) && !unheard) return heardBefore(seq)
      if (other) fork(seq)
    } else if (body.unknownRules > 0) {
      // What it revokes can't be said, so it doesn't count as taken in: the gap stays until a newer version reads it again.
      alarm('unsupported', { seq })
    } else if (state.beyond.length < beyondMax) {
      state.beyond.push({ seq, sha256, previous: body.previousSha256 })
      advance()
    }
    if (seq >= (state.head?.seq ?? 0)) {
      state.head = { seq, issuedAt: body.issuedAt, maxAge: body.maxAgeSeconds, anchor: new Uint8Array(body.heartbeatAnchor) }
      provenAt = Math.max(provenAt, body.issuedAt)
      link = { i: 0, bytes: state.head.anchor }
    }
    return { kind: 'applied', seq, cut: (await settlement.settle(seq, grew)).cut }
  }

  /** The notice up to which every shard is complete, and what it is known by; null while a shard is missing. */
  function coveredBySnapshots(): { seq: number; sha256: Bytes } | null {
    const all = [...shards.values()]
    const oldest = all.reduce((least, shard) => (shard.seq < least.seq ? shard : least), all[0])
    const newest = all.reduce((most, shard) => (shard.seq > most.seq ? shard : most), all[0])
    for (let shard = 0; shard < newest.of; shard++) if (!shards.has(shard)) return null
    return { seq: oldest.seq, sha256: oldest.sha256 }
  }

  async function applySnapshot(body: SnapshotBody, grew: boolean): Promise<Receipt> {
    const { seq, shard } = body
    if ((shards.get(shard)?.seq ?? 0) >= seq && state.through >= seq) return heardBefore(seq)
    if (body.unknownRules > 0) alarm('unsupported', { seq, shard })
    else if (seq >= (shards.get(shard)?.seq ?? 0))
      shards.set(shard, { seq, of: body.shards, sha256: new Uint8Array(body.noticeSha256) })
    const covered = shards.size > 0 ? coveredBySnapshots() : null
    const known = covered && takenIn(covered.seq)
    if (covered && known && !equalBytes(known, covered.sha256)) fork(covered.seq)
    const reached = covered !== null && covered.seq > state.through
    if (reached) {
      // What lay before is in it; the notices after it go on from here.
      state.through = covered.seq
      state.recent = [covered.sha256]
      state.beyond = state.beyond.filter(entry => entry.seq > covered.seq)
      newest = Math.max(newest, covered.seq)
      advance()
    }
    if (!grew && !reached) return heardBefore(seq)
    return { kind: 'applied', seq, cut: (await settlement.settle(seq, grew)).cut }
  }

  async function save(): Promise<void> {
    state.rules = rules.rules()
    state.floor = rules.floor
    try {
      await options.state.save(encodeRelyingPartyState(fleet, state))
    } catch (error) {
      throw new RevocationError('state_not_saved', 'the rules are in force, and would be forgotten by a restart', error)
    }
  }

  function refuse(problem: NoticeProblem, bytes: number): Receipt {
    if (problem === 'notice_unsupported' && !outdated) {
      outdated = true
      alarm('unsupported', {})
    }
    log.warn({ problem, bytes }, 'notice refused')
    emit({ type: 'refused', problem })
    return { kind: 'refused', problem }
  }

  /** Read and denied in the order in which they came. */
  const reading = oneByOne()
  /** One after the other, so that a save never holds an older state than the save before it. */
  const inTurn = oneByOne()

  /** Reads at once, applies in its turn. */
  function take<Body extends { seq: number; rules: Rule[]; floor: number }>(
    bytes: Bytes,
    read: () => Promise<Body | NoticeProblem>,
    applyIt: (body: Body, grew: boolean) => Promise<Receipt>,
  ): Promise<Receipt> {
    const denied = reading(async () => {
      const body = await read()
      return typeof body === 'string' ? body : { body, grew: deny(body) }
    })
    return inTurn(async () => {
      const known = await denied
      return typeof known === 'string' ? refuse(known, bytes.length) : applyIt(known.body, known.grew)
    })
  }

  function receive(notice: Bytes): Promise<Receipt> {
    return take(
      notice,
      () => open(notice),
      (body, grew) => apply(notice, body, grew),
    )
  }

  function openShard(snapshot: Bytes): Promise<SnapshotBody | NoticeProblem> {
    return new Promise(resolve =>
      openSnapshot(snapshot, fleet, options.signers, verifier, (problem, read, countersigned) =>
        resolve(read && !countersigned && tooMuchForOne(read) ? 'notice_one_signature' : (read ?? problem ?? 'notice_malformed')),
      ),
    )
  }

  const receiveSnapshot = (snapshot: Bytes): Promise<Receipt> => take(snapshot, () => openShard(snapshot), applySnapshot)

  function heartbeat(payload: Bytes): void {
    const beat = decodeHeartbeat(payload)
    const { head } = state
    if (!beat || !head || beat.seq !== head.seq || beat.i <= link.i || !link.bytes) return
    const at = head.issuedAt + beat.i * stepSeconds(head.maxAge)
    // From the future: either our clock is behind, and then we can't tell fresh from old, or it is forged.
    if (at > clock.now() + head.maxAge) return
    if (!chainsTo(beat.link, beat.i - link.i, link.bytes)) return
    link = { i: beat.i, bytes: new Uint8Array(beat.link) }
    provenAt = Math.max(provenAt, at)
    watch()
  }

  function fresh(): boolean {
    if (!state.head || outdated || state.forked || newest > state.through) return false
    return Math.abs(clock.now() - provenAt) <= state.head.maxAge
  }

  /** Notices the change, and asks the server directly for as long as anything is missing. */
  function watch(): void {
    if (closed) return
    cancelWatch()
    const now = fresh()
    if (now !== wasFresh) {
      wasFresh = now
      if (now) emit({ type: 'fresh' })
      else alarm(newest > state.through ? 'gap' : 'stale', {})
    }
    cancelWatch = clock.setTimer(stepSeconds(state.head?.maxAge ?? 30), () => {
      if (!fresh()) pull()
      watch()
    })
  }

  function pull(): void {
    options
      .pull?.(state.through)
      .then(async ({ snapshots, notices, heartbeat: beat }) => {
        // All of them are denied before the first is cut, and one that fails holds up none.
        const taken = await Promise.allSettled([...snapshots.map(receiveSnapshot), ...notices.map(receive)])
        if (beat) heartbeat(beat)
        for (const one of taken) if (one.status === 'rejected') throw one.reason
      })
      .catch((error: unknown) => log.warn({ err: error }, 'notices not pulled'))
  }

  let cancelPull = () => {}
  function pullLater(): void {
    const seconds = options.pullSeconds ?? (options.bus ? null : pullSecondsAlone)
    if (seconds === null || closed) return
    cancelPull = clock.setTimer(seconds, () => {
      pull()
      pullLater()
    })
  }

  const endMakingUp = repeat(
    clock,
    makeUpSeconds,
    async () => settlement.owes() && inTurn(settlement.makeUp),
    (error: unknown) => log.error({ err: error }, 'what is denied is not cut and saved yet; trying again'),
  )

  const snapshots = snapshotTopic(fleet, '+').slice(0, -1)
  function onMessage(topic: string, payload: Bytes): void {
    if (topic === heartbeatTopic(fleet)) heartbeat(payload)
    else if (queued < queueMax) {
      queued++
      const taken = topic.startsWith(snapshots) ? receiveSnapshot(payload) : receive(payload)
      taken
        .then(({ kind }) => {
          // The head is shown again to a broker that forgot it, and for as long as a word is missing: perhaps this one's.
          if (kind === 'known' && topic === headTopic(fleet)) acknowledger?.again()
        })
        .catch((error: unknown) => log.error({ err: error }, 'notice not taken in'))
        .finally(() => queued--)
    }
  }

  for (const topic of [headTopic(fleet), `fr/1/${fleet}/n/+`, heartbeatTopic(fleet), snapshotTopic(fleet, '+')])
    await options.bus?.subscribe(topic, onMessage)
  pull()
  watch()
  pullLater()

  return {
    rules,
    receive,
    receiveSnapshot,
    heartbeat,
    fresh,
    status: (membership, issuerKeyId) => {
      const status = judge(membership, issuerKeyId)
      return status === 'good' && !fresh() ? 'unknown' : status
    },
    progress: () => ({ through: state.through, newest, provenAt }),
    close: () => {
      closed = true
      cancelWatch()
      cancelPull()
      endMakingUp()
      acknowledger?.close()
    },
  }
}
