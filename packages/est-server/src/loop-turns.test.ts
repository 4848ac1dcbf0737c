import { expect, test } from 'vitest'
import { createLoopTurns } from './loop-turns.ts'

const nextTurn = () => new Promise(resolve => setImmediate(resolve))
const turnsOfLoop = async (count: number) => {
  for (let i = 0; i < count; i++) await nextTurn()
}

function pending<T>() {
  let resolve!: (value: T) => void
  let reject!: (error: Error) => void
  const promise = new Promise<T>((done, failed) => {
    resolve = done
    reject = failed
  })
  return { promise, resolve, reject }
}

/** Timers that go off when told to. */
function standingTimers() {
  const timers: { seconds: number; callback: () => void }[] = []
  const setTimer = (seconds: number, callback: () => void) => {
    const timer = { seconds, callback }
    timers.push(timer)
    return () => void timers.splice(timers.indexOf(timer), 1)
  }
  return { timers, setTimer }
}

test('pieces come in their order, a few a turn, and others get in between', async () => {
  const { turn } = createLoopTurns()
  const order: string[] = []
  const pieces = Array.from({ length: 10 }, (_, i) => turn().then(() => order.push(String(i))))
  setImmediate(() => setImmediate(() => order.push('another')))
  await Promise.all(pieces)
  expect(order.filter(one => one !== 'another')).toEqual(Array.from({ length: 10 }, (_, i) => String(i)))
  expect(order.indexOf('another')).toBeLessThan(10)
  await turn()
})

test('pieces wait for those ahead, until the last of these has settled, well or not', async () => {
  const { timers, setTimer } = standingTimers()
  const { turn, ahead } = createLoopTurns(setTimer)
  const [one, other] = [pending<string>(), pending<string>()]
  const [first, second] = [ahead(() => one.promise), ahead(() => other.promise)]
  const done: number[] = []
  const pieces = Array.from({ length: 6 }, (_, i) => turn().then(() => done.push(i)))
  await turnsOfLoop(5)
  expect([done, timers.length]).toEqual([[], 1])
  one.resolve('served')
  expect(await first).toBe('served')
  await turnsOfLoop(5)
  expect(done).toEqual([])
  other.reject(new Error('not served'))
  await expect(second).rejects.toThrow('not served')
  await Promise.all(pieces)
  expect([done, timers]).toEqual([[0, 1, 2, 3, 4, 5], []])
})

test('whoever has made way for a while goes, a few a turn; those that came later wait their own while', async () => {
  const { timers, setTimer } = standingTimers()
  const { turn, ahead } = createLoopTurns(setTimer)
  const served = pending<void>()
  const work = ahead(() => served.promise)
  const done: number[] = []
  const pieces = Array.from({ length: 6 }, (_, i) => turn().then(() => done.push(i)))
  expect(timers).toEqual([expect.objectContaining({ seconds: 0.02 })])
  timers.shift()!.callback()
  const late = turn().then(() => done.push(6))
  await nextTurn()
  expect(done).toEqual([0, 1, 2, 3])
  await turnsOfLoop(3)
  expect([done, timers.length]).toEqual([[0, 1, 2, 3, 4, 5], 1])
  timers.shift()!.callback()
  await Promise.all([...pieces, late])
  served.resolve()
  await work
  expect(timers).toEqual([])
})
