import { expect, test } from 'vitest'
import { watchReadiness } from './readiness.ts'

test('readiness names clock, publisher and disk with what is wrong, and an undelivered notice does not stop enrollments', async () => {
  const state = { last: 100, free: 1e9, notices: [] as { seq: number; at: number }[] }
  let tick = () => {}
  const clock = {
    now: () => 1000,
    setTimer(_seconds: number, callback: () => void) {
      tick = callback
      return () => {}
    },
  }
  const store = { lastTime: async () => state.last, outboxPending: async () => state.notices }
  const watched = await watchReadiness({ store: store as never, fleet: 'f', clock, freeBytes: () => state.free })
  const look = async () => {
    tick()
    await new Promise(resolve => setTimeout(resolve, 5))
  }
  expect([watched.unready(), watched.lines()]).toEqual([
    null,
    ['clock: not behind the records', 'publisher: delivers', 'disk: 953 MiB free'],
  ])
  state.notices = [{ seq: 7, at: 700 }]
  await look()
  expect([watched.unready(), watched.lines()[1]]).toEqual([null, 'publisher: notice 7 has waited 300 s for the broker'])
  state.free = 1_048_576
  await look()
  expect(watched.unready()).toBe('disk_full: 1 MiB free')
  state.last = 1500
  await look()
  expect(watched.unready()).toBe('clock_regressed: 500 s behind the last record')
})
