import fc from 'fast-check'
import { expect, it } from 'vitest'
import type { CborValue } from '../core/cbor.ts'
import { fakeClock } from '../testing/clock.ts'
import type { HttpResponse } from './ports.ts'
import { encodeFrame, frameReader } from './stream-frames.ts'
import { streamLink } from './stream-link.ts'

const request = {
  method: 'GET' as const,
  path: '/.well-known/est/cacerts',
  headers: { accept: 'application/pkcs7-mime' },
  body: null,
  bodyBytesMax: 100,
  timeoutSeconds: 60,
}

it('[RFC 1055] frames arrive whole, however the line cuts them up and whatever lies between them', () => {
  const body = fc.uint8Array({ maxLength: 300 })
  // What noise spells may be a message, but none with this name in it.
  const name = 'longer than any noise'
  fc.assert(
    fc.property(
      fc.array(body, { maxLength: 6 }),
      fc.uint8Array({ maxLength: name.length - 1 }),
      fc.integer({ min: 1, max: 50 }),
      (bodies, noise, size) => {
        const seen: CborValue[] = []
        const read = frameReader(400, message => seen.push(message))
        const line = [...bodies.flatMap(one => [...noise, ...encodeFrame([name, one])])]
        for (let at = 0; at < line.length; at += size) read(new Uint8Array(line.slice(at, at + size)))
        // Ours are all there and in order.
        const ours = seen.filter(one => Array.isArray(one) && one[0] === name) as [string, Uint8Array][]
        expect(ours.map(([, bytes]) => [...bytes])).toEqual(bodies.map(one => [...one]))
      },
    ),
    { examples: [[[new Uint8Array(0)], new Uint8Array([130, 0, 0]), 1]] },
  )
})

it('[F20] keeps no more of a frame than its bound, and reads the next one', () => {
  const seen: CborValue[] = []
  const read = frameReader(64, message => seen.push(message))
  read(encodeFrame(new Uint8Array(100)))
  for (let i = 0; i < 1000; i++) read(new Uint8Array(1000).fill(7))
  read(encodeFrame('next'))
  expect(seen).toEqual(['next'])
})

it.each(['valueOf', '__proto__', 'toString', true, null, [1], new Uint8Array([49])])(
  'an answer numbered %o is passed over',
  number => {
    const link = streamLink(() => {}, fakeClock(1_800_000_000))
    const ended: unknown[] = []
    link.exchange(request, error => ended.push(error))
    const frame = encodeFrame([number, 200, [], new Uint8Array(0)])
    expect(() => link.receive(frame)).not.toThrow()
    expect(ended).toEqual([])
  },
)

it('matches answers to requests by number, gives up by time, and takes neither a late answer nor one that is too long', async () => {
  const clock = fakeClock(1_800_000_000)
  const sent: CborValue[] = []
  const read = frameReader(1000, message => sent.push(message))
  const link = streamLink(read, clock)
  const ended: string[] = []
  const ask = (name: string) =>
    link.exchange(request, (error, response) => ended.push(`${name} ${error ? error.code : (response as HttpResponse).status}`))
  const answer = (number: number, status: number, length: number) =>
    link.receive(encodeFrame([number, status, ['content-type', 'text/plain'], new Uint8Array(length)]))
  ask('first')
  ask('second')
  const cancel = ask('third')
  expect(sent).toEqual([1, 2, 3].map(number => [number, 'GET', request.path, ['accept', 'application/pkcs7-mime'], null]))
  answer(2, 200, 100)
  answer(2, 404, 0)
  answer(9, 200, 0)
  link.receive(encodeFrame([1, '200', [], new Uint8Array(0)]))
  link.receive(encodeFrame([1, 200, ['odd'], new Uint8Array(0)]))
  cancel()
  answer(3, 200, 0)
  await clock.advance(60)
  answer(1, 200, 0)
  ask('fourth')
  answer(4, 200, 101)
  expect(ended).toEqual(['second 200', 'first timeout', 'fourth est_response_malformed'])
})
