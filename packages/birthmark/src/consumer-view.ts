// What a campaign shows of standard consumers: asked after it was carried out, of the lists and answers that they get, until they prove it. That is
// remembered: asking again would sign nothing new and find the same, for what is revoked stays so. Anything less is asked again.

import { type Campaign, type ConsumerAnswer, isProven, type Log, type Store, unpackNumbers } from '@birthmark/est-server'
import type { ConsumerStage } from './campaign-administration.ts'
import type { CertificateStatus } from './certificate-status.ts'

export interface ConsumerView {
  /** What is known now. */
  of(campaign: Campaign): ConsumerStage
  /** Resolves when they have been asked, or when there is nothing to ask, or nothing to ask again yet. Never rejects. */
  ask(campaign: Campaign): Promise<void>
}

/** Campaigns whose answer is remembered; others are asked about anew. */
const rememberedMax = 64
/** What was not proven is asked again after so many times as long as asking took: looks in a row at a campaign cost at most a tenth of the time. */
const restPerAsking = 9
/** What cannot be asked fails at once, and a look every second shall not ask it every second. */
const failedRestSecondsMin = 5

const waiting: ConsumerStage = { kind: 'waiting' }

interface Known {
  stage: ConsumerStage
  proven: boolean
  /** Until `elapsed` says so, it is not asked again. */
  restsUntil: number
}

export function createConsumerView({
  store,
  fleet,
  certificateStatus,
  elapsed = () => performance.now() / 1000,
  log,
}: {
  store: Pick<Store, 'campaignSets'>
  fleet: string
  certificateStatus: Pick<CertificateStatus, 'prove'> | null
  /** Seconds from anywhere, never set: how long asking took is not a matter of the date. */
  elapsed?: () => number
  log: Log
}): ConsumerView {
  const known = new Map<string, Known>()
  const asking = new Map<string, Promise<void>>()

  /** Null where there is nothing to ask about. */
  async function answerOf(id: string): Promise<ConsumerAnswer | null> {
    const sets = await store.campaignSets(fleet, id)
    return certificateStatus === null || sets === null ? null : certificateStatus.prove(fleet, unpackNumbers(sets.certificates))
  }

  async function askNow(id: string): Promise<void> {
    const began = elapsed()
    const answer = await answerOf(id).catch((error: unknown) => {
      log.error({ campaign: id, err: error }, 'lists and OCSP could not be asked about a campaign')
      return 'failed' as const
    })
    if (answer === null) return
    const ended = elapsed()
    // What they said before is still what was last heard of them.
    const stage = answer === 'failed' ? (known.get(id)?.stage ?? waiting) : answer
    const [oldest] = known.keys()
    if (known.size >= rememberedMax && !known.has(id)) known.delete(oldest)
    const proven = stage.kind === 'seen' && isProven(stage.proof)
    const failed = answer === 'failed' || answer.kind === 'unavailable'
    const restSeconds = Math.max(failed ? failedRestSecondsMin : 0, restPerAsking * (ended - began))
    known.set(id, { stage, proven, restsUntil: ended + restSeconds })
  }

  function isSettled(id: string): boolean {
    const before = known.get(id)
    return before !== undefined && (before.proven || elapsed() < before.restsUntil)
  }

  return {
    of: ({ id }) => (certificateStatus === null ? { kind: 'not offered' } : (known.get(id)?.stage ?? waiting)),
    ask({ id, state }) {
      if (state !== 'committed' || certificateStatus === null || isSettled(id)) return Promise.resolve()
      const before = asking.get(id)
      if (before) return before
      const done = askNow(id).finally(() => asking.delete(id))
      asking.set(id, done)
      return done
    },
  }
}
