import { expect, test } from 'vitest'
import { createCertificateBudget } from './certificate-budget.ts'

test('a device that renews in a loop gets its burst, then one a minute; the first refusal of a run is marked, and others are not touched', () => {
  let now = 1_800_000_000
  const budget = createCertificateBudget({ now: () => now })
  for (let i = 0; i < 64; i++) expect(budget.take('f/loop')).toBeNull()
  expect(budget.take('f/loop')).toEqual({ retryAfterSeconds: 60, isFirst: true })
  now += 20
  expect(budget.take('f/loop')).toEqual({ retryAfterSeconds: 40, isFirst: false })
  expect(budget.take('f/other')).toBeNull()
  now += 40
  expect(budget.take('f/loop')).toBeNull()
  expect(budget.take('f/loop')).toMatchObject({ isFirst: true })
  // A clock that goes back gives nothing and takes nothing.
  now -= 1000
  expect(budget.take('f/loop')).toMatchObject({ isFirst: false })
  now += 64 * 60 + 2000
  for (let i = 0; i < 64; i++) expect(budget.take('f/loop')).toBeNull()
})
