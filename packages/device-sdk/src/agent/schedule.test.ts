import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { renewalTime, retryDelay } from './schedule.ts'

const hash = { sha256: (bytes: Uint8Array) => new Uint8Array(createHash('sha256').update(bytes).digest()) }

describe('renewal', () => {
  it('comes between two thirds and five sixths of the life, the same for the same device and generation', () => {
    const times = new Set<number>()
    for (let generation = 1; generation <= 50; generation++) {
      const at = renewalTime(hash, 'dev-1', generation, 1_000_000, 1_600_000)
      expect(at).toBeGreaterThanOrEqual(1_400_000)
      expect(at).toBeLessThan(1_500_000)
      expect(renewalTime(hash, 'dev-1', generation, 1_000_000, 1_600_000)).toBe(at)
      times.add(at)
    }
    expect(times.size).toBeGreaterThan(45)
  })
})

describe('retry', () => {
  const none = new Uint8Array(3)
  const most = new Uint8Array([255, 255, 255])

  it('doubles from 10 s to an hour, and adds up to as much again', () => {
    expect([1, 2, 3, 9, 10, 1000].map(failures => retryDelay(failures, 0, none))).toEqual([10, 20, 40, 2560, 3600, 3600])
    expect(retryDelay(1000, 0, most)).toBeLessThan(7200)
    expect(retryDelay(1000, 0, most)).toBeGreaterThan(7199)
  })

  it('never comes before the server wants it', () => {
    expect(retryDelay(0, 300, none)).toBe(300)
    expect(retryDelay(0, 300, most)).toBeLessThan(600)
    expect(retryDelay(1, 300, none)).toBe(300)
    expect(retryDelay(20, 300, none)).toBe(3600)
  })
})
