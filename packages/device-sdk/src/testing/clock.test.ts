import { describe, expect, it } from 'vitest'
import { fakeClock } from './clock.ts'

describe('fakeClock', () => {
  it('fires in order, each at its own moment, and what a timer sets falls due within the same advance', async () => {
    const clock = fakeClock(1000)
    const seen: [string, number][] = []
    clock.setTimer(30, () => seen.push(['late', clock.now()]))
    const cancel = clock.setTimer(20, () => seen.push(['never', clock.now()]))
    clock.setTimer(10, () => {
      seen.push(['early', clock.now()])
      clock.setTimer(5, () => seen.push(['nested', clock.now()]))
    })
    cancel()
    expect(clock.timers()).toEqual([10, 30])
    await clock.advance(40)
    expect(seen).toEqual([
      ['early', 1010],
      ['nested', 1015],
      ['late', 1030],
    ])
    expect(clock.now()).toBe(1040)
  })

  it('runs timers without knowing the time', async () => {
    const clock = fakeClock(-1)
    let fired = 0
    clock.setTimer(10, () => fired++)
    await clock.advance(10)
    expect([fired, clock.now()]).toEqual([1, -1])
  })
})
