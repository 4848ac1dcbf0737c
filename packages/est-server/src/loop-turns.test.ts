import { expect, test } from 'vitest'
import { createLoopTurns } from './loop-turns.ts'

test('pieces come in their order, a few a turn, and others get in between', async () => {
  const turn = createLoopTurns()
  const order: string[] = []
  const pieces = Array.from({ length: 10 }, (_, i) => turn().then(() => order.push(String(i))))
  setImmediate(() => setImmediate(() => order.push('another')))
  await Promise.all(pieces)
  expect(order.filter(one => one !== 'another')).toEqual(Array.from({ length: 10 }, (_, i) => String(i)))
  expect(order.indexOf('another')).toBeLessThan(10)
  await turn()
})
