// The query language: what it reads, and how it says what it cannot read.

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { compareVersions } from '../store/version-order.ts'
import { matchesSelector, parseSelector, selectorText } from './selector.ts'

const wrong = (text: string) => {
  try {
    parseSelector(text)
  } catch (error) {
    return (error as Error).message
  }
  throw new Error(`${text} was read`)
}

describe('a selector', () => {
  it('reads the forms that operators know', () => {
    expect(
      parseSelector(
        ' model = gw-2, batch in (2026-W41, 2026-W42) ,firmware<2.3,!retired,pilot,site!="Frankfurt (Main)",id notin(a)',
      ),
    ).toEqual([
      { name: 'model', test: 'in', values: ['gw-2'] },
      { name: 'batch', test: 'in', values: ['2026-W41', '2026-W42'] },
      { name: 'firmware', test: '<', value: '2.3' },
      { name: 'retired', test: 'absent' },
      { name: 'pilot', test: 'exists' },
      { name: 'site', test: 'notin', values: ['Frankfurt (Main)'] },
      { name: 'id', test: 'notin', values: ['a'] },
    ])
    expect(parseSelector('')).toEqual([])
    expect(parseSelector('a==b')).toEqual(parseSelector('a=b'))
    expect(parseSelector('inside')).toEqual([{ name: 'inside', test: 'exists' }])
  })

  it('says what is wrong and at which character', () => {
    expect(wrong('model=')).toContain('it ends where a value is expected at character 7')
    expect(wrong('model=gw-2,,site')).toContain("',' where a name is expected at character 12")
    expect(wrong('batch in 2026')).toContain("'(' is expected behind in at character 9")
    expect(wrong('batch in (a b)')).toContain("'b' where a comma or ) is expected at character 13")
    expect(wrong('a b')).toContain("'b' where a comma or the end is expected at character 3")
    expect(wrong('site="x')).toContain('a quote that is not closed at character 6')
    expect(wrong('seen=today')).toContain('seen is an age')
    expect(wrong('seen<soon')).toContain("'soon' is no age")
    expect(wrong('id<5')).toContain('id is compared by')
  })

  it('is bounded in length, terms, values and words', () => {
    expect(wrong('a'.repeat(5000))).toContain('more than 4096')
    expect(wrong(Array.from({ length: 33 }, () => 'a').join(','))).toContain('more than 32 terms')
    expect(wrong(`a in (${Array.from({ length: 257 }, (_, i) => i).join(',')})`)).toContain('more than 256 values')
    expect(wrong(`a=${'b'.repeat(129)}`)).toContain('more than 128 characters')
  })

  it('never throws anything but its own error, whatever it is given', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'a=!<>,() "\\inot1.') }), text => {
        try {
          const selector = parseSelector(text)
          expect(parseSelector(selectorText(selector))).toEqual(selector)
        } catch (error) {
          expect(error).toMatchObject({ code: 'selector_invalid' })
        }
      }),
    )
  })

  it('takes != and notin for true where the name is absent, and comparisons for false', () => {
    const device = { id: 'a', groups: ['model=gw-2', 'pilot'], labels: {}, seenAt: 1000 }
    const matches = (text: string) => matchesSelector(parseSelector(text), device, 5000)
    expect(
      ['site!=fra', 'site notin (fra)', 'pilot', '!site', 'model', 'seen>1h', 'seen<2h'].filter(text => !matches(text)),
    ).toEqual([])
    expect(['firmware<9', 'site=fra', '!pilot', '!seen', 'seen<1h', 'model!=gw-2'].filter(matches)).toEqual([])
  })
})

describe('the order of versions', () => {
  it('goes by numbers, and puts what precedes a release before it', () => {
    const ordered = ['1', '1.9', '1.10', '2.3-rc9', '2.3-rc10', '2.3', '2.3.1', '2.10', '2026-W41', '2026-W42']
    expect([...ordered].reverse().sort(compareVersions)).toEqual(ordered)
    for (const [a, b] of [
      ['2.3', 'v2.3.0'],
      ['2.3+build7', '2.3'],
      ['02.3', '2.3'],
    ])
      expect(compareVersions(a, b)).toBe(0)
  })

  it('is a total order of any text', () => {
    const text = fc.string({ unit: fc.constantFrom(...'019.-+vab'), maxLength: 8 })
    fc.assert(
      fc.property(text, text, text, (a, b, c) => {
        const sign = (x: string, y: string) => Math.sign(compareVersions(x, y))
        // 0 - x: there is a negative zero.
        expect(sign(a, b)).toBe(0 - sign(b, a))
        expect(sign(a, a)).toBe(0)
        if (sign(a, b) <= 0 && sign(b, c) <= 0) expect(sign(a, c)).toBeLessThanOrEqual(0)
      }),
      { numRuns: 2000 },
    )
  })
})
