// What a campaign shows of standard consumers: asked once after it was carried out, of the lists and answers that they get, and remembered. Asking
// again would sign nothing new and find the same: what is revoked stays so.

import { type Campaign, type Log, type Store, unpackNumbers } from '@birthmark/est-server'
import type { ConsumerStage } from './campaign-administration.ts'
import type { CertificateStatus } from './certificate-status.ts'

export interface ConsumerView {
  /** What is known now. */
  of(campaign: Campaign): ConsumerStage
  /** Resolves when they have been asked, or when there is nothing to ask. Never rejects. */
  ask(campaign: Campaign): Promise<void>
}

/** Campaigns whose answer is remembered; others are asked about anew. */
const rememberedMax = 64

export function createConsumerView({
  store,
  fleet,
  certificateStatus,
  log,
}: {
  store: Pick<Store, 'campaignSets'>
  fleet: string
  certificateStatus: Pick<CertificateStatus, 'prove'> | null
  log: Log
}): ConsumerView {
  const known = new Map<string, ConsumerStage>()
  const asking = new Map<string, Promise<void>>()

  async function askNow(id: string): Promise<void> {
    const sets = await store.campaignSets(fleet, id)
    if (certificateStatus === null || sets === null) return
    const answer = await certificateStatus.prove(fleet, unpackNumbers(sets.certificates))
    const [oldest] = known.keys()
    if (known.size >= rememberedMax) known.delete(oldest)
    known.set(id, answer)
  }

  return {
    of: ({ id }) => (certificateStatus === null ? { kind: 'not offered' } : (known.get(id) ?? { kind: 'waiting' })),
    ask({ id, state }) {
      if (state !== 'committed' || certificateStatus === null || known.get(id)?.kind === 'seen') return Promise.resolve()
      const before = asking.get(id)
      if (before) return before
      const done = askNow(id)
        .catch((error: unknown) => log.error({ campaign: id, err: error }, 'lists and OCSP could not be asked about a campaign'))
        .finally(() => asking.delete(id))
      asking.set(id, done)
      return done
    },
  }
}
