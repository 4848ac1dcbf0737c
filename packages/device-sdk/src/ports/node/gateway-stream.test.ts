import { Duplex } from 'node:stream'
import { expect, it } from 'vitest'
import { encodeFrame } from '../../agent/stream-frames.ts'
import { serveStream } from './gateway-stream.ts'

it('[F20] a peer that asks and does not read is answered four times at most, and further ones once it has read', async () => {
  const taken: (() => void)[] = []
  const line = new Duplex({ read() {}, write: (_part, _encoding, done) => void taken.push(done) })
  let asked = 0
  const forward = async () => {
    asked++
    return { status: 200, headers: {}, body: new Uint8Array(60_000) }
  }
  const turn = () => new Promise(resolve => setImmediate(resolve))
  const ask = async (count: number) => {
    for (let i = 0; i < count; i++) {
      line.push(encodeFrame([i, 'GET', '/.well-known/est/cacerts', [], null]))
      await turn()
    }
  }
  const stop = serveStream({ forward }, line)
  await ask(100)
  expect(asked).toBe(4)
  expect(line.writableLength).toBeLessThan(4 * 62_000)
  for (let i = 0; i < 4; i++) {
    taken.shift()?.()
    await turn()
  }
  expect(line.writableLength).toBe(0)
  await ask(1)
  expect(asked).toBe(5)
  // Nobody is there to answer any more.
  taken.shift()?.()
  line.destroy()
  stop()
})
