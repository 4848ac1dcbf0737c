import { describe, expect, it } from 'vitest'
import { createAftermath } from './aftermath.ts'

const turn = () => new Promise<void>(resolve => setImmediate(resolve))

/** How much of it was done at the end of each turn of the event loop, until all was. */
async function pace(done: number[], all: number): Promise<number[]> {
  const counts: number[] = []
  for (let i = 0; i < all && done.length < all; i++) {
    await turn()
    counts.push(done.length)
  }
  return counts
}

describe('what follows the end of sessions', () => {
  it('is done in order, a few a turn, so that who comes again is answered in between', async () => {
    const aftermath = createAftermath()
    const done: number[] = []
    for (let i = 0; i < 100; i++) aftermath.postpone(() => done.push(i))
    expect(done, 'before the event loop turned').toEqual([])
    const counts = await pace(done, 100)
    expect(done).toEqual(Array.from({ length: 100 }, (_, i) => i))
    expect(counts.length).toBeGreaterThanOrEqual(5)
    for (const [i, count] of counts.entries()) expect(count - (counts[i - 1] ?? 0)).toBeLessThanOrEqual(20)
  })

  it('waits until the last of those who hold it has let go', async () => {
    const aftermath = createAftermath()
    const done: number[] = []
    const [first, second] = [aftermath.hold(), aftermath.hold()]
    aftermath.postpone(() => done.push(1))
    first()
    for (let i = 0; i < 5; i++) await turn()
    expect(done).toEqual([])
    second()
    expect(await pace(done, 1)).toEqual([1])
  })

  it('stops between two slices when it is held again', async () => {
    const aftermath = createAftermath()
    const done: number[] = []
    for (let i = 0; i < 60; i++) aftermath.postpone(() => done.push(i))
    await turn()
    const release = aftermath.hold()
    const held = done.length
    for (let i = 0; i < 5; i++) await turn()
    expect(held).toBeGreaterThan(0)
    expect(done.length).toBe(held)
    release()
    await pace(done, 60)
    expect(done.length).toBe(60)
  })
})
