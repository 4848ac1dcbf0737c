import { type Campaign, type ConsumerAnswer, type ConsumerProof, packNumbers } from '@birthmark/est-server'
import { expect, test } from 'vitest'
import { createConsumerView } from './consumer-view.ts'

const campaign = { id: 'one', state: 'committed' } as Campaign
const proof: ConsumerProof = {
  ...{ at: 1000, live: 2, unlisted: 0, certificates: 2, listed: 2 },
  ...{ lists: 1, read: 1, ocspRevoked: 1, shown: [] },
}
const seen = (more: Partial<ConsumerProof> = {}): ConsumerAnswer => ({ kind: 'seen', proof: { ...proof, ...more } })

/** A view whose consumers answer in this order, the last for good, an error by not answering; `seconds`: what each asking takes. */
function asked(answers: (ConsumerAnswer | Error)[], seconds = 0) {
  const elapsed = { at: 1000 }
  let times = 0
  const view = createConsumerView({
    store: {
      campaignSets: async () => ({ devices: packNumbers([1]), certificates: packNumbers([1, 2]), uncertified: packNumbers([]) }),
    },
    fleet: 'meters',
    certificateStatus: {
      async prove() {
        elapsed.at += seconds
        const answer = answers[Math.min(times++, answers.length - 1)]
        if (answer instanceof Error) throw answer
        return answer
      },
    },
    elapsed: () => elapsed.at,
    log: { info() {}, warn() {}, error() {} },
  })
  return { view, elapsed, times: () => times }
}

test('what is not proven is asked again until it is, and then no more', async () => {
  const partial = seen({ unlisted: 1, certificates: 1, listed: 1 })
  const away: ConsumerAnswer = { kind: 'unavailable', detail: 'issuer_failed' }
  const { view, elapsed, times } = asked([partial, away, seen({ ocspRevoked: 0 }), seen()])
  expect(view.of(campaign)).toEqual({ kind: 'waiting' })
  for (const stage of [partial, away, seen({ ocspRevoked: 0 }), seen(), seen()]) {
    await view.ask(campaign)
    expect(view.of(campaign)).toEqual(stage)
    elapsed.at += 5
  }
  expect(times()).toBe(4)
})

test('asking again takes at most a tenth of the time, however long it takes', async () => {
  for (const seconds of [2, 60, 1000]) {
    const { view, elapsed, times } = asked([seen({ listed: 1 })], seconds)
    await view.ask(campaign)
    elapsed.at += 9 * seconds - 1
    await view.ask(campaign)
    expect(times()).toBe(1)
    elapsed.at += 1
    await view.ask(campaign)
    expect(times()).toBe(2)
  }
})

test('those that could not be asked, or gave nothing, are left alone for five seconds, or for nine times what that took', async () => {
  for (const failure of [new Error('the store is away'), { kind: 'unavailable', detail: 'issuer_failed' } as const])
    for (const [seconds, rest] of [
      [0, 5],
      [0.1, 5],
      [2, 18],
    ]) {
      const { view, elapsed, times } = asked([seen({ listed: 1 }), failure], seconds)
      await view.ask(campaign)
      elapsed.at += rest
      await view.ask(campaign)
      expect(view.of(campaign)).toEqual(failure instanceof Error ? seen({ listed: 1 }) : failure)
      elapsed.at += rest - 0.5
      await view.ask(campaign)
      expect(times()).toBe(2)
      elapsed.at += 0.5
      await view.ask(campaign)
      expect(times()).toBe(3)
    }
})
