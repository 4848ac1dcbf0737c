import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Rule } from './notice.ts'
import { createRuleSet, type RuleSet, statusOf } from './rule-set.ts'

const rule: fc.Arbitrary<Rule> = fc
  .record({ gid: fc.integer({ min: 1, max: 5 }), bound: fc.integer({ min: 0, max: 12 }), reason: fc.integer({ min: 0, max: 3 }) })
  .map(({ gid, bound, reason }) => (reason === 0 ? { kind: 'group', gid, bound } : { kind: 'group', gid, bound, reason }))
const batch = fc.record({ rules: fc.array(rule, { maxLength: 6 }), floor: fc.integer({ min: 0, max: 4 }) })
const member = fc.record({ idx: fc.nat(14), gids: fc.uniqueArray(fc.integer({ min: 1, max: 6 }), { maxLength: 4 }) })

type Batch = { rules: Rule[]; floor: number }

function setOf(...batches: Batch[]): RuleSet {
  const set = createRuleSet()
  for (const { rules, floor } of batches) set.merge(rules, floor)
  return set
}

const contents = (set: RuleSet) => ({ rules: set.rules(), floor: set.floor })

describe('the rule set is a lattice', () => {
  it('[F47] order of arrival leaves no trace', () => {
    fc.assert(
      fc.property(batch, batch, (a, b) => {
        expect(contents(setOf(a, b))).toEqual(contents(setOf(b, a)))
      }),
    )
  })

  it('nor does grouping', () => {
    fc.assert(
      fc.property(batch, batch, batch, (a, b, c) => {
        const right = setOf(b, c)
        expect(contents(setOf(a, { rules: right.rules(), floor: right.floor }))).toEqual(contents(setOf(a, b, c)))
      }),
    )
  })

  it('[F53] the same notice twice is as once', () => {
    fc.assert(
      fc.property(batch, batch, (a, b) => {
        const set = setOf(a, b)
        const before = contents(set)
        expect(set.merge(a.rules, a.floor)).toBe(false)
        expect(contents(set)).toEqual(before)
      }),
    )
  })

  it('only ever grows, and says whether it did', () => {
    fc.assert(
      fc.property(batch, batch, fc.array(member), (a, b, members) => {
        const set = setOf(a)
        const before = members.map(m => set.isRevoked(m, null))
        const grew = set.merge(b.rules, b.floor)
        const after = members.map(m => set.isRevoked(m, null))
        before.forEach((was, i) => {
          if (was) expect(after[i]).toBe(true)
          if (!grew) expect(after[i]).toBe(was)
        })
      }),
    )
  })

  it('agrees with the definition: idx < floor, or idx < bound of some gid', () => {
    fc.assert(
      fc.property(fc.array(batch), member, (batches, { idx, gids }) => {
        const expected = batches.some(
          ({ rules, floor }) => idx < floor || rules.some(({ gid, bound }) => gids.includes(gid) && idx < bound),
        )
        expect(setOf(...batches).isRevoked({ idx, gids }, null)).toBe(expected)
      }),
    )
  })
})

describe('statusOf', () => {
  const status = statusOf(createRuleSet([{ kind: 'group', gid: 7, bound: 10 }]), 'acme')

  it('knows good from revoked', () => {
    expect(status({ fleet: 'acme', idx: 9, gids: [7] }, null)).toBe('revoked')
    expect(status({ fleet: 'acme', idx: 10, gids: [7] }, null)).toBe('good')
    expect(status({ fleet: 'acme', idx: 9, gids: [8] }, null)).toBe('good')
  })

  it('calls another fleet, and no fleet, unknown', () => {
    expect(status({ fleet: 'other', idx: 99, gids: [] }, null)).toBe('unknown')
    expect(status(null, null)).toBe('unknown')
  })
})
