import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createPacketScanner } from './packet-guard.ts'

const limits = { connectBytesMax: 100, controlBytesMax: 50, publishBytesMax: 1000 }

function lengthOf(length: number): number[] {
  const bytes: number[] = []
  let rest = length
  do {
    bytes.push((rest % 128) | (rest >= 128 ? 0x80 : 0))
    rest = Math.floor(rest / 128)
  } while (rest > 0)
  return bytes
}

const packet = (type: number, length: number) => [type << 4, ...lengthOf(length), ...new Array<number>(length).fill(0x10)]
const scan = (bytes: number[], cuts = 1) => {
  const scanner = createPacketScanner(limits)
  for (let at = 0; at < bytes.length; at += cuts) {
    const problem = scanner.scan(new Uint8Array(bytes.slice(at, at + cuts)))
    if (problem) return { problem, at }
  }
  return null
}

describe('the packet guard', () => {
  it('passes what clients send, cut anywhere', () => {
    const bytes = [packet(1, 20), packet(8, 30), packet(3, 1000), packet(12, 0), packet(3, 0), packet(4, 2), packet(14, 0)].flat()
    fc.assert(fc.property(fc.integer({ min: 1, max: 1200 }), cuts => scan(bytes, cuts) === null))
  })

  it('[F52] ends a CONNECT of 256 MB at its header', () => {
    expect(scan([0x10, 0xff, 0xff, 0xff, 0x7f])).toMatchObject({ at: 1 })
    expect(scan([0x10, 0x80, 0x80, 0x80, 0x80, 1])).toMatchObject({ at: 4 })
  })

  it('[F52] ends a packet one byte above its limit, and not one at it', () => {
    expect(scan(packet(1, 100))).toBeNull()
    expect(scan(packet(1, 101))?.problem).toBe('a packet of 101 bytes')
    expect(scan([packet(1, 9), packet(3, 1000)].flat())).toBeNull()
    expect(scan([packet(1, 9), packet(3, 1001)].flat())?.problem).toBe('a packet of 1001 bytes')
    expect(scan([packet(1, 9), packet(8, 51)].flat())?.problem).toBe('a packet of 51 bytes')
  })

  it('wants CONNECT first and once', () => {
    expect(scan(packet(3, 5))?.problem).toBe('a packet before CONNECT')
    expect(scan([packet(1, 9), packet(1, 9)].flat())?.problem).toBe('packet type 1')
  })

  it('[F18] refuses the types that are a server’s, or nobody’s', () => {
    for (let type = 0; type < 16; type++)
      expect(scan([packet(1, 9), packet(type, 2)].flat()) === null, `type ${type}`).toBe(
        [3, 4, 5, 6, 7, 8, 10, 12, 14].includes(type),
      )
  })

  it('refuses a length of five bytes, minimal or not', () => {
    expect(scan([0x10, 9, ...new Array<number>(9).fill(0), 0x30, 0x80, 0x80, 0x80, 0x80, 0])?.problem).toBe(
      'a length of more than four bytes',
    )
  })
})
