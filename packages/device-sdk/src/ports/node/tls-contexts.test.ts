import type { SecureContextOptions } from 'node:tls'
import { expect, it } from 'vitest'
import { tlsContexts } from './tls-contexts.ts'

function counted() {
  const made: SecureContextOptions[] = []
  let collected = 0
  const contexts = tlsContexts(
    options => ({ context: made.push(options) }),
    () => collected++,
  )
  return { contexts, made, collected: () => collected }
}

it('one context serves an identity and whom it trusts, however often and in whatever turns it is asked for', () => {
  const { contexts, made } = counted()
  for (let turn = 0; turn < 5; turn++)
    for (const ca of ['root', 'broker root'])
      expect(contexts.of('op-0', 'key', { cert: 'leaf', ca: [ca] })).toEqual({ context: ca === 'root' ? 1 : 2 })
  expect(made).toEqual([
    { key: 'key', cert: 'leaf', ca: ['root'] },
    { key: 'key', cert: 'leaf', ca: ['broker root'] },
  ])
})

it('another key or certificate in the slot ends the contexts of the one before, and other slots keep theirs', () => {
  const { contexts, made } = counted()
  const other = contexts.of('op-1', 'key', { cert: 'leaf' })
  contexts.of('op-0', 'key', { cert: 'leaf' })
  contexts.of('op-0', 'key', { cert: 'next leaf' })
  contexts.of('op-0', 'next key', { cert: 'next leaf' })
  contexts.of('op-0', 'key', { cert: 'leaf' })
  contexts.drop('op-0')
  contexts.of('op-0', 'key', { cert: 'leaf' })
  expect(made).toHaveLength(6)
  expect(contexts.of('op-1', 'key', { cert: 'leaf' })).toBe(other)
})

it('a slot has three at most: the oldest goes, and what went is let go before the next is made', () => {
  const { contexts, made, collected } = counted()
  const ask = (ca: string) => contexts.of('op-0', 'key', { cert: 'leaf', ca: [ca] })
  for (const ca of ['a', 'b', 'c', 'd']) ask(ca)
  for (const ca of ['b', 'c', 'd']) ask(ca)
  expect([made.length, collected()]).toEqual([4, 4])
  ask('a')
  expect([made.length, collected()]).toEqual([5, 5])
})
