import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parsePattern, patternsMax } from './pattern.ts'

const fits = (pattern: string | string[], text: string) => parsePattern(pattern).test(text)

describe('a pattern', () => {
  it('matches the whole text: a run, one character, one of a set, itself', () => {
    expect(fits('GW-2026-*', 'GW-2026-0001')).toBe(true)
    expect(fits('GW-2026-*', 'GW-2025-0001')).toBe(false)
    expect(fits('GW-*', 'xGW-1')).toBe(false)
    expect(fits('GW-??', 'GW-12')).toBe(true)
    expect(fits('GW-??', 'GW-123')).toBe(false)
    expect(fits('[A-F0-9][!0-9]-', 'Bx-')).toBe(true)
    expect(fits('[A-F0-9][!0-9]-', 'G1-')).toBe(false)
    expect(fits('a.c', 'abc')).toBe(false)
    expect(fits('[]a]', ']')).toBe(true)
    expect(fits('[a-]', '-')).toBe(true)
    expect(fits('*a*b', 'xaxbxab')).toBe(true)
  })

  it('of a list, one is enough', () => {
    expect(fits(['A*', 'B*'], 'B1')).toBe(true)
    expect(fits(['A*', 'B*'], 'C1')).toBe(false)
    expect(parsePattern(['A*', 'B*']).source).toBe('A* or B*')
  })

  it.each(['', 'a b', '[a', '[z-a]', 'x'.repeat(257), 'é'])('%j is refused', pattern => {
    expect(() => parsePattern(pattern)).toThrow()
    expect(() => parsePattern(Array(patternsMax + 1).fill('a'))).toThrow()
  })

  it('agrees with the regular expression that means the same', () => {
    const step = fc.constantFrom('*', '?', 'a', 'b', '[ab]', '[!a]')
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 8 }), fc.stringMatching(/^[abc]{0,10}$/), (steps, text) => {
        const regex = steps.map(s => (s === '*' ? '.*' : s === '?' ? '.' : s.replace('!', '^'))).join('')
        expect(fits(steps.join(''), text)).toBe(new RegExp(`^${regex}$`).test(text))
      }),
      { numRuns: 2000 },
    )
  })

  it('[F1] takes no more than its length times the text, whatever the pattern', () => {
    const pattern = parsePattern(`${'*a'.repeat(127)}b`)
    const before = performance.now()
    for (let i = 0; i < 1000; i++) expect(pattern.test('a'.repeat(255))).toBe(false)
    // 1000 × 255 × 255 steps; a backtracking engine would not end.
    expect(performance.now() - before).toBeLessThan(30_000)
  })
})
