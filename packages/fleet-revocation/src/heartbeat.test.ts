import { encodeCbor } from '@birthmark/device-sdk/core'
import { describe, expect, it } from 'vitest'
import { chainHash, chainLength, chainsTo, decodeHeartbeat, encodeHeartbeat, heartbeatChain, stepSeconds } from './heartbeat.ts'

const secret = new Uint8Array(32).fill(7)
const chain = heartbeatChain(secret, 'acme', 5)

describe('a heartbeat chain', () => {
  it('leads from every link to the anchor', () => {
    for (const i of [0, 1, 2, 255, 256, 257, 1000, chainLength - 1, chainLength])
      expect(chainsTo(chain.link(i), i, chain.anchor)).toBe(true)
    expect(new Uint8Array(chainHash(chain.link(1)))).toEqual(chain.anchor)
    expect(chainsTo(chain.link(3), 2, chain.anchor)).toBe(false)
  })

  it('is the same after a restart, and another for every number and fleet', () => {
    expect(heartbeatChain(secret, 'acme', 5).anchor).toEqual(chain.anchor)
    expect(heartbeatChain(secret, 'acme', 6).anchor).not.toEqual(chain.anchor)
    expect(heartbeatChain(secret, 'acme-5', 5).anchor).not.toEqual(chain.anchor)
  })

  it('lets two heartbeats be lost within max-age', () => {
    expect(stepSeconds(30)).toBe(10)
    expect(stepSeconds(1)).toBe(1)
  })
})

describe('a heartbeat', () => {
  it('is read back', () => {
    const beat = { seq: 9, i: 3, link: chain.link(3) }
    expect(decodeHeartbeat(encodeHeartbeat(beat))).toEqual(beat)
  })

  it('[F7] of any other form is nothing', () => {
    const link = chain.link(1)
    for (const other of [
      [1, 2],
      [0, 1, link],
      [1, -1, link],
      [1, chainLength + 1, link],
      [1, 1, new Uint8Array(15)],
      [1, 1, 'x'],
      [1, 1, link, 1],
      5,
    ])
      expect(decodeHeartbeat(encodeCbor(other))).toBeNull()
    expect(decodeHeartbeat(new Uint8Array(0))).toBeNull()
    expect(decodeHeartbeat(new Uint8Array(1 << 20))).toBeNull()
  })
})
