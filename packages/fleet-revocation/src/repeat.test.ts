import { expect, it } from 'vitest'
import { repeat } from './repeat.ts'
import { createManualClock } from './testing/manual-clock.ts'

/** Turns that take so long, and those that fail by their number. */
function turns(seconds: number, failing: number[] = []) {
  const clock = createManualClock(0)
  const [begun, failures] = [[] as number[], [] as string[]]
  const end = repeat(
    clock,
    10,
    async () => {
      begun.push(clock.now())
      const number = begun.length
      await new Promise<void>(resolve => clock.setTimer(seconds, resolve))
      if (failing.includes(number)) throw new Error(`turn ${number}`)
    },
    error => failures.push((error as Error).message),
  )
  return { clock, begun, failures, end }
}

it('a turn comes so long after the last has ended', async () => {
  const { clock, begun } = turns(3)
  await clock.advance(40)
  expect(begun).toEqual([10, 23, 36])
})

it('what a turn rejects with is told, and the next comes all the same', async () => {
  const { clock, begun, failures } = turns(0, [1])
  await clock.advance(20)
  expect(begun).toEqual([10, 20])
  expect(failures).toEqual(['turn 1'])
})

it('when it is ended no turn comes, and nothing is heard of one that was under way', async () => {
  const { clock, begun, failures, end } = turns(5, [1])
  await clock.advance(12)
  end()
  await clock.advance(60)
  expect(begun).toEqual([10])
  expect(failures).toEqual([])
})
