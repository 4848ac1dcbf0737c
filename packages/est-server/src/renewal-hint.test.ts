import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { renewAfterSeconds } from './renewal-hint.ts'

const renewal = {
  windowFraction: 0,
  graceSeconds: 0,
  nameMayChange: false,
  labels: [null],
  issuers: null,
  byEnrolling: 'always' as const,
}
const keyOf = (i: number) => createHash('sha256').update(String(i)).digest()
const day = 86_400

it('[F60] a fleet enrolled in one second renews over a sixth of its certificates’ life', () => {
  const span = { notBefore: -300, notAfter: 90 * day }
  const perDay = new Map<number, number>()
  for (let i = 0; i < 10_000; i++) {
    const after = renewAfterSeconds({ renewal, backdateSeconds: 300 }, span, keyOf(i), 0)
    expect(after).toBeGreaterThanOrEqual(60 * day)
    expect(after).toBeLessThanOrEqual(75 * day)
    const at = Math.floor(after / day)
    perDay.set(at, (perDay.get(at) ?? 0) + 1)
  }
  // Fifteen days of a fifteenth each, none with a tenth more than half as many again.
  expect(perDay.size).toBe(15)
  expect(Math.max(...perDay.values())).toBeLessThan(1000)
})

it('is the same moment whoever answers and whenever, and never before the window that the profile opens', () => {
  fc.assert(
    fc.property(
      fc.record({
        life: fc.integer({ min: 600, max: 30 * 366 * day }),
        backdate: fc.integer({ min: 0, max: day }),
        windowFraction: fc.double({ min: 0, max: 0.89, noNaN: true }),
        later: fc.integer({ min: 0, max: 300 }),
        key: fc.integer(),
      }),
      ({ life, backdate, windowFraction, later, key }) => {
        const profile = { renewal: { ...renewal, windowFraction }, backdateSeconds: backdate }
        const span = { notBefore: -backdate, notAfter: life }
        const after = renewAfterSeconds(profile, span, keyOf(key), 0)
        expect(after).toBeGreaterThanOrEqual(Math.floor((life * 2) / 3))
        expect(after).toBeLessThan(life)
        expect(after + 1).toBeGreaterThanOrEqual(span.notBefore + (life + backdate) * windowFraction)
        expect(renewAfterSeconds(profile, span, keyOf(key), later)).toBe(Math.max(1, after - later))
      },
    ),
  )
})
