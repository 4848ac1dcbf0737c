// Every certificate is handed over once it is one, whatever its neighbours do.

import type { IssuanceRow } from '@birthmark/est-server'
import { expect, test } from 'vitest'
import { createIssuanceFeed } from './issuance-feed.ts'

type Row = Pick<IssuanceRow, 'key' | 'state' | 'fleet' | 'startedAt'>

function feedOf(rows: Row[], alone = true) {
  const time = { now: 1000 }
  const store = {
    issuances: async (after: number, limit: number) =>
      rows.filter(({ key }) => key > after).slice(0, limit) as unknown as IssuanceRow[],
  }
  const feed = createIssuanceFeed({ store, fleet: 'acme', alone, now: () => time.now })
  const taken: number[] = []
  const next = () => feed.next(async issued => void taken.push(...issued.map(({ key }) => key)))
  return { feed, next, taken, time }
}
const row = (key: number, state: Row['state'] = 'issued', startedAt = 0): Row => ({ key, state, fleet: 'acme', startedAt })

test('an intent is waited for without holding up who comes after it, and nobody is handed over twice', async () => {
  const rows = [row(1), row(2, 'intent'), row(3), row(4, 'void'), { ...row(5), fleet: 'other' }]
  const { next, taken } = feedOf(rows)
  expect([await next(), await next()]).toEqual([false, false])
  expect(taken).toEqual([1, 3])
  rows[1].state = 'issued'
  rows.push(row(6))
  await next()
  await next()
  expect(taken).toEqual([1, 3, 2, 6])
})

test('where other servers write too, a row that becomes visible behind a newer one is not missed', async () => {
  const rows = [row(2, 'issued', 999)]
  const { next, taken, time } = feedOf(rows, false)
  await next()
  rows.unshift(row(1, 'issued', 999))
  await next()
  time.now += 10
  await next()
  expect(taken).toEqual([2, 1])
})

test('what could not be taken is handed over again; a full page says that there is more', async () => {
  const rows = Array.from({ length: 700 }, (_, i) => row(i + 1))
  const { feed, next, taken } = feedOf(rows)
  await expect(feed.next(() => Promise.reject(new Error('the broker is away')))).rejects.toThrow('away')
  expect([await next(), await next()]).toEqual([true, false])
  expect(taken).toEqual(rows.map(({ key }) => key))
  feed.rewind()
  await next()
  expect(taken).toHaveLength(1200)
})
