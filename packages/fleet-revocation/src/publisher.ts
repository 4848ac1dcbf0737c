// From the record to the wire: drains the outbox of signed notices to a broker, in order and at least once, keeps the retained head, ring
// and snapshots there, and shows heartbeats. It holds nothing that a crash could lose: what was not marked as delivered is published again, and a
// broker that forgot is filled up again. It signs nothing and decides nothing.

import type { Bytes } from '@birthmark/device-sdk/core'
import { type Confirmations, createConfirmations } from './confirmations.ts'
import { RevocationError } from './errors.ts'
import { chainLength, type HeartbeatChain, type Heartbeats, heartbeatOf, stepSeconds } from './heartbeat.ts'
import { headTopic, heartbeatTopic, ringSize, ringTopic } from './notice.ts'
import { noticeFacts } from './notice-facts.ts'
import type { Bus, Clock, Log, PublishBus } from './ports.ts'
import { type Snapshots, snapshotTopic } from './snapshot.ts'

export interface OutboxNotice {
  seq: number
  notice: Bytes
}

export interface Outbox {
  /** Undelivered notices, ascending by seq. */
  pending(limit: number): Promise<OutboxNotice[]>
  delivered(seq: number): Promise<void>
  /** The newest notices whether delivered or not, ascending: what a broker that lost its retained messages is given again. */
  recent(limit: number): Promise<OutboxNotice[]>
}

export interface PublisherOptions {
  outbox: Outbox
  bus: PublishBus & Partial<Pick<Bus, 'subscribe' | 'subscribeAgain' | 'onConnect'>>
  fleet: string
  clock: Clock
  log: Log
  /** From the secret that the notices' anchors were derived from. Without it no heartbeat is sent. */
  heartbeats?: Heartbeats
  /** Shown again whenever they are another. */
  snapshots?: Snapshots
  /** Relying parties whose acknowledgement is waited for: the head is published again until each has confirmed it. */
  relyingParties?: string[]
  /**
   * Asked when the newest notice's heartbeats run out (a week at 10 s a step), and with 0 when there is no notice at all: sign one more, with
   * no rules if there are none. Asked again a step later when it rejects. Who enforces by heartbeats admits nobody before the first notice.
   */
  renew?: (seq: number) => Promise<void>
}

export interface Publisher {
  /** To be called after a commit. Returns at once. */
  wake(): void
  /** Resolves when nothing is pending that was committed before the call; rejects when the publisher is closed first. */
  drained(): Promise<void>
  readonly confirmations: Confirmations
  close(): void
}

// A batch holds at most 64 × 8 KiB.
const batchMax = ringSize
const retrySecondsMin = 0.2
const retrySecondsMax = 30
// Time for a relying party to verify, cut sessions and answer, before the head is shown again; doubled each time up to the maximum.
const confirmSecondsMin = 30
const confirmSecondsMax = 600
// Between two requests for the acknowledgements that the broker retains. A node of a cluster that has just started may grant a subscription and deliver
// nothing for 20 s and more; a relying party that is away for days costs a packet a minute.
const listenSecondsMin = 10
const listenSecondsMax = 60

export function createPublisher(options: PublisherOptions): Publisher {
  const { outbox, bus, fleet, clock, log } = options
  let closed = false
  let working = false
  let wanted = true
  let refill = true
  let retrySeconds = retrySecondsMin
  let cancelRetry = () => {}
  let cancelBeat = () => {}
  let waiting: { resolve: () => void; reject: (error: Error) => void }[] = []
  let head: OutboxNotice | null = null
  let settledSeq = 0
  let beat: { seq: number; issuedAt: number; step: number; chain: HeartbeatChain } | null = null
  let renewing = false
  let shown: { shards: readonly Bytes[]; next: number } = { shards: [], next: 0 }
  const confirmations = createConfirmations(options)

  async function publish(entry: OutboxNotice): Promise<void> {
    // The ring before the head: who sees the head and a gap finds the ring filled.
    await bus.publish(ringTopic(fleet, entry.seq), entry.notice, { qos: 1, retain: true })
    if (head && head.seq > entry.seq) return
    await bus.publish(headTopic(fleet), entry.notice, { qos: 1, retain: true })
    head = entry
  }

  /** Once a batch, not once a notice: a chain takes ~60 ms to derive. The next notices don't wait for it. */
  function settleHead(): void {
    if (!head) renew(0)
    if (!head || head.seq === settledSeq) return
    const { seq, notice } = head
    settledSeq = seq
    showing.begin()
    listening.begin()
    options.heartbeats?.chain(seq).then(
      chain => {
        if (closed || settledSeq !== seq) return
        const facts = noticeFacts(notice)
        beat = { seq, issuedAt: facts.issuedAt, step: stepSeconds(facts.maxAgeSeconds), chain }
        cancelBeat()
        showBeat()
      },
      (error: unknown) => log.error({ err: error, seq }, 'no heartbeats'),
    )
  }

  function renew(seq: number): void {
    if (renewing || !options.renew) return
    renewing = true
    options
      .renew(seq)
      .then(() => wake())
      .catch((error: unknown) => log.error({ err: error, seq }, 'no new notice to carry heartbeats; trying again'))
      .finally(() => {
        renewing = false
      })
  }

  /** After the notices, and left for later when there are more of them. */
  async function showSnapshots(): Promise<void> {
    const shards = (await options.snapshots?.current()) ?? []
    if (shards !== shown.shards) shown = { shards, next: 0 }
    for (; shown.next < shards.length && !wanted && !closed; shown.next++)
      await bus.publish(snapshotTopic(fleet, shown.next), shards[shown.next], { qos: 1, retain: true })
  }

  function showBeat(): void {
    if (!beat || closed) return
    const now = clock.now()
    const i = Math.floor((now - beat.issuedAt) / beat.step)
    const payload = heartbeatOf(beat, i)
    if (payload) {
      bus
        .publish(heartbeatTopic(fleet), payload, { qos: 0, retain: false })
        .catch((error: unknown) => log.warn({ err: error }, 'heartbeat not sent'))
    }
    if (i >= chainLength * 0.75) {
      log.info({ seq: beat.seq, left: chainLength - i }, 'heartbeats of the newest notice run out; it is time for another notice')
      renew(beat.seq)
    }
    const next = beat.issuedAt + Math.max(i + 1, 0) * beat.step
    cancelBeat = clock.setTimer(Math.max(0.05, next - now), showBeat)
  }

  function unconfirmed(): string[] {
    const names = options.relyingParties ?? []
    return head === null ? [] : names.filter(name => confirmations.seqOf(name) < (head?.seq ?? 0))
  }

  /** `work` again and again, with pauses that double, until every relying party's word for the head is heard. Begun anew with each head. */
  function untilConfirmed(secondsMin: number, secondsMax: number, work: (missing: string[]) => void) {
    let cancel = () => {}
    function later(seconds: number): void {
      cancel()
      if (unconfirmed().length === 0) return
      cancel = clock.setTimer(seconds, () => {
        const missing = unconfirmed()
        if (missing.length === 0 || closed) return
        work(missing)
        later(Math.min(seconds * 2, secondsMax))
      })
    }
    return { begin: () => later(secondsMin), end: () => cancel() }
  }

  /** A broker may acknowledge and then lose what it took: only a relying party's word ends the repetition. */
  const showing = untilConfirmed(confirmSecondsMin, confirmSecondsMax, missing => {
    log.warn({ seq: head?.seq, missing }, 'notice not confirmed yet; showing it again')
    refill = true
    wake()
  })

  /** And the word may be there, unheard. */
  const listening = untilConfirmed(listenSecondsMin, listenSecondsMax, () => confirmations.listenAgain())

  async function work(): Promise<void> {
    while (wanted && !closed) {
      wanted = false
      if (refill) {
        refill = false
        try {
          shown = { shards: [], next: 0 }
          for (const entry of await outbox.recent(ringSize)) await publish(entry)
        } catch (error) {
          refill = true
          throw error
        }
      }
      for (let batch = await outbox.pending(batchMax); batch.length > 0 && !closed; batch = await outbox.pending(batchMax)) {
        for (const entry of batch) {
          await publish(entry)
          // A crash before this line publishes it once more; receivers take a notice any number of times.
          await outbox.delivered(entry.seq)
        }
      }
      settleHead()
      await showSnapshots()
    }
  }

  function wake(): void {
    wanted = true
    if (working || closed) return
    working = true
    cancelRetry()
    work().then(
      () => {
        working = false
        retrySeconds = retrySecondsMin
        if (wanted && !closed) return wake()
        const done = waiting
        waiting = []
        for (const waiter of done) waiter.resolve()
      },
      (error: unknown) => {
        working = false
        wanted = true
        if (closed) return
        log.warn({ err: error, retrySeconds }, 'notices not delivered; trying again')
        cancelRetry = clock.setTimer(retrySeconds, wake)
        retrySeconds = Math.min(retrySeconds * 2, retrySecondsMax)
      },
    )
  }

  bus.onConnect?.(() => {
    refill = true
    wake()
  })
  wake()

  return {
    wake,
    drained: () =>
      new Promise<void>((resolve, reject) => {
        if (closed) return reject(new RevocationError('bus_closed', 'the publisher is closed'))
        waiting.push({ resolve, reject })
        wake()
      }),
    confirmations,
    close: () => {
      closed = true
      cancelRetry()
      cancelBeat()
      showing.end()
      listening.end()
      for (const waiter of waiting) waiter.reject(new RevocationError('bus_closed', 'the publisher is closed'))
      waiting = []
    },
  }
}
