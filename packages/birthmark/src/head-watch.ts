// Whether the world has seen a notice that the store does not know: then the whole machine was put back, store, mark and all, and only the broker
// outside remembers. Looked at whenever the broker shows the head that it retains; until that is done, and for good where it shows so, ours is not
// written over it.

import type { Log } from '@birthmark/est-server'
import {
  type Clock,
  headTopic,
  type NoticeBody,
  nodeVerify,
  openNotice,
  type PublishBus,
  RevocationError,
} from '@birthmark/fleet-revocation'
import type { MqttBus } from '@birthmark/fleet-revocation/broker'
import { brokerAnswer } from './broker-answer.ts'
import { CommandError } from './command-error.ts'
import type { Settings } from './configuration.ts'
import { noticeSigners } from './notice-signing.ts'
import type { Published } from './published.ts'
import { unfit } from './published-notice.ts'

// A store that is away comes back within seconds or ends the process by itself.
const retrySeconds = 1

export interface HeadWatchParts {
  bus: Pick<MqttBus, 'subscribe' | 'connected' | 'onConnect' | 'onClose'>
  settings: Pick<Settings, 'fleet' | 'notices'>
  store: Parameters<typeof unfit>[0]
  published: Pick<Published, 'before'>
  clock: Clock
  log: Log
  /** The store is an older copy or a fork: end the process. The notice that shows it is noted by then, so that no later start overlooks it. */
  onFatal(error: Error): void
}

export interface HeadWatch {
  /** Resolves when the broker was asked, or will be as soon as there is a connection. Rejects where it does not let us read. */
  asked: Promise<void>
  /**
   * `bus`, on which notices wait until the broker has shown what it holds, for which it has a second from the grant, and that is known to fit the store. Rejects with `head_unread` where it is
   * not shown in time, and for good with `store_older` where it does not fit.
   */
  behind(bus: PublishBus): PublishBus
  close(): void
}

export function watchHead({ bus, settings, store, published, clock, log, onFatal }: HeadWatchParts): HeadWatch {
  const { fleet, notices } = settings
  const signers = noticeSigners(notices.keys)
  const head = headTopic(fleet)
  const answer = brokerAnswer(bus, clock)
  /** What is being compared, one after the other. */
  let compared: Promise<unknown> = Promise.resolve()
  let unknown: CommandError | null = null
  let closed = false

  /** Asked until the store answers: what the broker shows may be shown this once. */
  async function whyNot(notice: Uint8Array, body: NoticeBody): Promise<string | null> {
    while (!closed)
      try {
        return await unfit(store, notice, body)
      } catch (error) {
        log.warn({ err: error, seq: body.seq }, 'the head that the broker holds can not be compared with the store; trying again')
        await new Promise<void>(resolve => clock.setTimer(retrySeconds, resolve))
      }
    return null
  }

  async function compare(notice: Uint8Array, body: NoticeBody): Promise<void> {
    const why = await whyNot(notice, body)
    if (why === null || unknown !== null) return
    unknown = new CommandError(
      'store_older',
      `the broker holds notice ${body.seq} of this fleet, and the store was put back: ${why}`,
      'birthmark restore --in-place --config FILE makes it go on above every number that was given out; docs/stores.md says what is lost',
      'refused',
    )
    try {
      await published.before([{ seq: body.seq, notice }])
    } catch (error) {
      // The broker still has it, and ours is not written over it.
      log.error({ err: error, seq: body.seq }, 'the notice that the broker holds could not be noted')
    }
    onFatal(unknown)
  }

  /** A broker that lets nobody read it may hold anything. */
  async function fits(): Promise<void> {
    let done: Promise<unknown>
    do {
      if (!(await answer.given()))
        throw new CommandError(
          'head_unread',
          'the broker does not show the head that it holds, so no notice is written over it',
          `let this server read ${head}, in the broker's access list`,
          'failed',
        )
      done = compared
      await done
      // Another connection may stand by now, to a broker that holds something else.
    } while (answer.awaited() || done !== compared)
  }

  return {
    asked: bus.subscribe(
      head,
      (_topic, payload) =>
        openNotice(payload, fleet, signers, nodeVerify(), (_problem, body) => {
          // What does not verify is nobody's head: the publisher writes ours over it.
          if (body !== null) compared = compared.then(() => compare(payload, body))
          answer.shown()
        }),
      answer.granted,
    ),
    behind: to =>
      Object.assign(Object.create(to) as PublishBus, {
        async publish(...[topic, payload, options]: Parameters<PublishBus['publish']>) {
          // Heartbeats are no notices, and relying parties do not wait for a store.
          if (options.qos === 1) await fits()
          if (unknown !== null || closed) throw unknown ?? new RevocationError('bus_closed', topic)
          return to.publish(topic, payload, options)
        },
      }),
    close: () => {
      closed = true
    },
  }
}
