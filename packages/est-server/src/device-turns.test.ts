import { expect, it } from 'vitest'
import { createTurns } from './device-turns.ts'

it('one id: one after the other, also after a failure; another id does not wait', async () => {
  const turns = createTurns()
  const seen: string[] = []
  let release = () => {}
  const first = turns.take('a', async () => {
    await new Promise<void>(done => {
      release = done
    })
    seen.push('a1')
    throw new Error('failed')
  })
  const second = turns.take('a', async () => seen.push('a2'))
  await turns.take('b', async () => seen.push('b1'))
  expect(seen).toEqual(['b1'])
  release()
  await expect(first).rejects.toThrow('failed')
  expect(await second).toBe(3)
  expect(seen).toEqual(['b1', 'a1', 'a2'])
})

it('turns away beyond the bound and starts anew afterwards', async () => {
  const turns = createTurns()
  const all = await Promise.all(Array.from({ length: 70 }, (_, i) => turns.take('a', async () => i)))
  expect(all.slice(0, 64)).toEqual(Array.from({ length: 64 }, (_, i) => i))
  expect(all.slice(64)).toEqual(Array.from({ length: 6 }, () => null))
  expect(await turns.take('a', async () => 'again')).toBe('again')
})
