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

/** A clock that stands, and what is to happen later. */
function standingClock() {
  const timers: { seconds: number; callback: () => void }[] = []
  const setTimer = (seconds: number, callback: () => void) => {
    const timer = { seconds, callback }
    timers.push(timer)
    return () => void timers.splice(timers.indexOf(timer), 1)
  }
  return {
    at: 5000,
    timers,
    setTimer,
    now: function () {
      return this.at
    },
  }
}

test('pieces come in their order, a few a turn, and others get in between', async () => {
  const { turn, ahead } = createLoopTurns()
  await ahead(async () => {})
  const order: string[] = []
  const pieces = Array.from({ length: 10 }, (_, i) => turn().then(() => order.push(String(i))))
  setImmediate(() => setImmediate(() => order.push('another')))
  await Promise.all(pieces)
  expect(order.filter(one => one !== 'another')).toEqual(Array.from({ length: 10 }, (_, i) => String(i)))
  expect(order.indexOf('another')).toBeLessThan(10)
  await turn()
})

test('pieces wait for those ahead, until the last of these has settled, well or not', async () => {
  const clock = standingClock()
  const { timers } = clock
  const { turn, ahead } = createLoopTurns(clock)
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
  const clock = standingClock()
  const { timers } = clock
  const { turn, ahead } = createLoopTurns(clock)
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

test('who is served one after the other, with no turn in between, is waited for as long as one who is served all that time', async () => {
  const clock = standingClock()
  const { timers } = clock
  const { turn, ahead } = createLoopTurns(clock)
  const [one, other] = [pending<void>(), pending<void>()]
  const first = ahead(() => one.promise)
  let isDone = false
  const piece = turn().then(() => {
    isDone = true
  })
  const [patience] = timers
  one.resolve()
  await first
  const second = ahead(() => other.promise)
  await turnsOfLoop(3)
  expect([isDone, timers]).toEqual([false, [patience]])
  timers.shift()!.callback()
  await piece
  other.resolve()
  await second
  expect(timers).toEqual([])
})

test('as many as SCEP has in work have one turn, once nobody was served ahead for a second', async () => {
  const clock = standingClock()
  const { turn, ahead } = createLoopTurns(clock)
  const ofOneTurn = async () => {
    let done = 0
    const pieces = Array.from({ length: 20 }, () => turn().then(() => done++))
    await nextTurn()
    const first = done
    await Promise.all(pieces)
    return first
  }
  expect(await ofOneTurn()).toBe(16)
  await ahead(async () => {})
  expect(await ofOneTurn()).toBe(4)
  clock.at += 1
  expect(await ofOneTurn()).toBe(4)
  clock.at += 0.1
  expect(await ofOneTurn()).toBe(16)
})
