import { expect, it } from 'vitest'
import { createAddressBudget } from './address-budget.ts'

it('an address has so much at once, then so much a second, and takes nothing of another', () => {
  const clock = { at: 1000, now: () => clock.at }
  const budget = createAddressBudget(4, 2, clock)
  const spendAll = () => {
    let spent = 0
    while (spent < 100 && budget.wait('192.0.2.1') === 0) {
      budget.spend('192.0.2.1')
      spent++
    }
    return spent
  }
  // One more than the burst, since the last is judged before it is spent.
  expect(spendAll()).toBe(5)
  expect([budget.wait('192.0.2.1'), budget.wait('192.0.2.2'), budget.wait('::ffff:192.0.2.1')]).toEqual([1, 0, 1])
  clock.at += 1
  expect(spendAll()).toBe(2)
  clock.at += 3600
  expect(spendAll()).toBe(5)
})

it('an address of IPv6 is its network of 64 bits', () => {
  const budget = createAddressBudget(1, 1, { now: () => 5 })
  for (const end of ['1', '2', '3']) budget.spend(`2001:db8::${end}`)
  expect(budget.wait('2001:db8::99')).toBeGreaterThan(0)
  expect(budget.wait('2001:db8:0:1::1')).toBe(0)
})
