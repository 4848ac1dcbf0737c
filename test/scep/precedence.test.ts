// SCEP makes way for EST on the thread that answers both, and is not kept from its end by it.

import { createLoopTurns, type LoopTurns } from '@birthmark/est-server'
import { expect, it, vi } from 'vitest'
import { rsaKey, startScepServer } from '../support/scep-server.ts'

it('each step of a message waits while somebody is served ahead, though not for long, and none is served ahead itself', async () => {
  const patience: (() => void)[] = []
  const real = createLoopTurns({
    now: () => performance.now() / 1000,
    setTimer(_, callback) {
      patience.push(callback)
      return () => void patience.splice(patience.indexOf(callback), 1)
    },
  })
  let served = 0
  const loopTurns: LoopTurns = {
    ...real,
    ahead(work) {
      served++
      return real.ahead(work)
    },
  }
  const server = await startScepServer({ loopTurns })
  try {
    const key = rsaKey()
    const { message } = server.request('router-1', await server.challenge('router-1'), key)
    let end = () => {}
    const ahead = real.ahead(
      () =>
        new Promise<void>(resolve => {
          end = resolve
        }),
    )
    let isAnswered = false
    const asked = server.ask(message, key.privateKey).finally(() => {
      isAnswered = true
    })
    let steps = 0
    for (;;) {
      await vi.waitFor(() => expect(patience.length === 1 || isAnswered).toBe(true), { timeout: 20_000 })
      if (isAnswered) break
      steps++
      patience.shift()?.()
    }
    expect((await asked).status).toBe('success')
    // To begin, and behind each use of a key: decrypted, signed by the issuer, to be sealed when that is recorded, signed by the RA.
    expect([steps, served]).toEqual([5, 0])
    end()
    await ahead
  } finally {
    await server.stop()
  }
})
