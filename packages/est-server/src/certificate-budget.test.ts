import { expect, test } from 'vitest'
import { createCertificateBudget } from './certificate-budget.ts'

test('a device that renews in a loop gets its burst, then one a minute; the first refusal of a run is marked, and others are not touched', () => {
  let now = 1_800_000_000
  const budget = createCertificateBudget({ now: () => now })
  const take = (device: string) => {
    const over = budget.over(device)
    if (over === null) budget.spend(device)
    return over
  }
  for (let i = 0; i < 64; i++) expect(take('f/loop')).toBeNull()
  expect(take('f/loop')).toEqual({ retryAfterSeconds: 60, isFirst: true })
  now += 20
  expect(take('f/loop')).toEqual({ retryAfterSeconds: 40, isFirst: false })
  expect(take('f/other')).toBeNull()
  now += 40
  expect(take('f/loop')).toBeNull()
  expect(take('f/loop')).toMatchObject({ isFirst: true })
  // A clock that goes back gives nothing and takes nothing.
  now -= 1000
  expect(take('f/loop')).toMatchObject({ isFirst: false })
  now += 64 * 60 + 2000
  for (let i = 0; i < 64; i++) expect(take('f/loop')).toBeNull()
})

test('what was not spent is still there, however often it was asked for', () => {
  const budget = createCertificateBudget({ now: () => 1_800_000_000 })
  for (let i = 0; i < 200; i++) expect(budget.over('f/failing')).toBeNull()
  for (let i = 0; i < 64; i++) budget.spend('f/failing')
  expect(budget.over('f/failing')).toEqual({ retryAfterSeconds: 60, isFirst: true })
})
