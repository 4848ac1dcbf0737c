import { type Campaign, type ConsumerAnswer, type ConsumerProof, packNumbers } from '@birthmark/est-server'
import { expect, test } from 'vitest'
import { createConsumerView } from './consumer-view.ts'

const campaign = { id: 'one', state: 'committed' } as Campaign
const proof: ConsumerProof = {
  ...{ at: 1000, live: 2, unlisted: 0, certificates: 2, listed: 2 },
  ...{ lists: 1, read: 1, ocspRevoked: 1, shown: [] },
}
const seen = (more: Partial<ConsumerProof> = {}): ConsumerAnswer => ({ kind: 'seen', proof: { ...proof, ...more } })

/** A view whose consumers answer in this order, the last for good; `seconds`: what each asking takes. */
function asked(answers: ConsumerAnswer[], seconds = 0) {
  const clock = { at: 1000, now: () => clock.at }
  let times = 0
  const view = createConsumerView({
    store: {
      campaignSets: async () => ({ devices: packNumbers([1]), certificates: packNumbers([1, 2]), uncertified: packNumbers([]) }),
    },
    fleet: 'meters',
    certificateStatus: {
      async prove() {
        clock.at += seconds
        return answers[Math.min(times++, answers.length - 1)]
      },
    },
    clock,
    log: { info() {}, warn() {}, error() {} },
  })
  return { view, clock, times: () => times }
}

test('what is not proven is asked again until it is, and then no more', async () => {
  const partial = seen({ unlisted: 1, certificates: 1, listed: 1 })
  const away: ConsumerAnswer = { kind: 'unavailable', detail: 'issuer_failed' }
  const { view, times } = asked([partial, away, seen({ ocspRevoked: 0 }), seen()])
  expect(view.of(campaign)).toEqual({ kind: 'waiting' })
  for (const stage of [partial, away, seen({ ocspRevoked: 0 }), seen(), seen()]) {
    await view.ask(campaign)
    expect(view.of(campaign)).toEqual(stage)
  }
  expect(times()).toBe(4)
})

test('asking again takes at most a tenth of the time, and a clock that was set back puts nothing off', async () => {
  const { view, clock, times } = asked([seen({ listed: 1 })], 2)
  await view.ask(campaign)
  for (const [later, askedBy] of [
    [17, 1],
    [1, 2],
    [-3600, 3],
  ]) {
    clock.at += later
    await view.ask(campaign)
    expect(times()).toBe(askedBy)
  }
})
