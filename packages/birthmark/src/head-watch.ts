// Whether the world has seen a notice that the store does not know: then the whole machine was put back, store, mark and all, and only the broker
// outside remembers. Looked at whenever the broker shows the head that it retains; until that is done, and for good where it shows so, ours is not
// written over it.

import { equalBytes } from '@birthmark/device-sdk/core'
import type { Log } from '@birthmark/est-server'
import { type Clock, headTopic, nodeVerify, openNotice, type PublishBus, RevocationError } from '@birthmark/fleet-revocation'
import type { MqttBus } from '@birthmark/fleet-revocation/broker'
import { brokerAnswer } from './broker-answer.ts'
import { CommandError } from './command-error.ts'
import type { Settings } from './configuration.ts'
import { noticeSigners } from './notice-signing.ts'
import type { Published } from './published.ts'
import { unfit } from './published-notice.ts'
import { publishingThrough } from './publishing-through.ts'
import type { VerifiedNotice } from './restored-notices.ts'

/** Between two questions to a store that does not answer: PostgreSQL comes back by itself, whenever that is. */
const retrySeconds = 1
/** For the broker to show its head and the store to be asked about it: as long as for the acknowledgement of a publication. The outbox tries again. */
const waitSeconds = 10
/** A broker shows one at each connection, and then what is published: more than a few come only where somebody else publishes. */
const shownMax = 64

export interface HeadWatchParts {
  bus: Pick<MqttBus, 'subscribe' | 'connected' | 'onConnect' | 'onClose'>
  settings: Pick<Settings, 'fleet' | 'notices'>
  store: Parameters<typeof unfit>[0]
  published: Pick<Published, 'note'>
  clock: Clock
  log: Log
  /** The store is an older copy or a fork: end the process. The notice that shows it is noted by then, so that no later start overlooks it. */
  onFatal(error: Error): void
}

export interface HeadWatch {
  /**
   * `bus`, on which notices wait until the broker has shown what it holds, for which it has a second from the grant, and that is known to fit the store.
   * Rejects where that takes too long, with `head_unread` or `head_uncompared`, and for good with `store_older` where it does not fit.
   */
  behind(bus: PublishBus): PublishBus
  close(): void
}

export function watchHead({ bus, settings, store, published, clock, log, onFatal }: HeadWatchParts): HeadWatch {
  const { fleet, notices } = settings
  const signers = noticeSigners(notices.keys)
  const head = headTopic(fleet)
  const answer = brokerAnswer(bus, clock)
  /** To be compared, oldest first. */
  const shown: VerifiedNotice[] = []
  let comparing = Promise.resolve()
  let unknown: CommandError | null = null
  let closed = false

  const isComparing = (): boolean => shown.length > 0 && unknown === null && !closed

  /** Asked until the store answers: what the broker shows may be shown this once. */
  async function compare(): Promise<void> {
    for (let isAway = false; isComparing(); )
      try {
        const why = await unfit(store, fleet, [shown[0]])
        isAway = false
        if (why) end(shown[0], why)
        shown.shift()
      } catch (error) {
        if (!isAway)
          log.warn({ err: error }, 'the head that the broker holds can not be compared with the store; trying until it can')
        isAway = true
        await new Promise<void>(resolve => clock.setTimer(retrySeconds, resolve))
      }
  }

  function end({ notice, body: { seq } }: VerifiedNotice, why: string): void {
    unknown = new CommandError(
      'store_older',
      `the broker holds notice ${seq} of this fleet, and the store was put back: ${why}`,
      'birthmark restore --in-place --config FILE makes it go on above every number that was given out; docs/stores.md says what is lost',
      'refused',
    )
    try {
      published.note(notice)
    } catch (error) {
      // The broker still has it, and ours is not written over it.
      log.error({ err: error, seq }, 'the notice that the broker holds could not be noted')
    }
    onFatal(unknown)
  }

  function take(verified: VerifiedNotice): void {
    if (shown.some(({ notice }) => equalBytes(notice, verified.notice))) return
    // The last one is what the broker holds, and ours would be written over.
    if (shown.length === shownMax) shown.pop()
    shown.push(verified)
    // Whoever is at it goes on to this one.
    if (shown.length === 1) comparing = compare()
  }

  /** A broker that lets nobody read it may hold anything, and a store that does not answer may be any. */
  async function fits(): Promise<void> {
    let isLate = false
    let cancel = () => {}
    const late = new Promise<void>(resolve => {
      cancel = clock.setTimer(waitSeconds, () => {
        isLate = true
        resolve()
      })
    })
    // Once one connection's head is compared another connection may stand, to a broker that holds something else.
    while (!isLate && (answer.awaited() || isComparing())) await Promise.race([answer.awaited() ? answer.given() : comparing, late])
    cancel()
    if (!isLate) return
    if (answer.awaited())
      throw new CommandError(
        'head_unread',
        'the broker does not show the head that it holds, so no notice is written over it',
        `let this server read ${head}, in the broker's access list`,
        'failed',
      )
    throw new CommandError(
      'head_uncompared',
      'the store does not answer, so the head that the broker holds is not compared with it, and no notice is written over that head',
      'see to the store: the notices wait in it, and leave once it answers',
      'failed',
    )
  }

  bus
    .subscribe(
      head,
      (_topic, notice) =>
        openNotice(notice, fleet, signers, nodeVerify(), (_problem, body) => {
          // What does not verify is nobody's head: the publisher writes ours over it.
          if (body !== null) take({ notice, body })
          answer.shown()
        }),
      answer.granted,
    )
    .catch((error: unknown) => log.warn({ err: error }, 'the broker does not show the head that it holds'))
  return {
    behind: to =>
      publishingThrough(to, async (topic, payload, options) => {
        // Heartbeats are no notices, and relying parties do not wait for a store.
        if (options.qos === 1) await fits()
        if (unknown !== null || closed) throw unknown ?? new RevocationError('bus_closed', topic)
        return to.publish(topic, payload, options)
      }),
    close: () => {
      closed = true
    },
  }
}
