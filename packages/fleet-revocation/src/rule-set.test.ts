import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { runsOf } from './list-encoder.ts'
import type { Rule } from './rule.ts'
import { packRules, ruleOfRuns, rulesByNotice, rulesOfIndices } from './rule-packing.ts'
import { createRuleSet, type RuleSet, statusOf } from './rule-set.ts'

const shard = 1 << 17
const issuers = [1, 2, 3].map(n => new Uint8Array(20).fill(n))

// Indices around the edges of shards too, where bits, whole shards and ranges meet.
const idx = fc.oneof(
  fc.nat(14),
  fc.integer({ min: shard - 4, max: shard + 4 }),
  fc.integer({ min: 2 * shard - 4, max: 2 * shard + 4 }),
)
const group: fc.Arbitrary<Rule> = fc
  .record({ gid: fc.integer({ min: 1, max: 5 }), bound: fc.integer({ min: 0, max: 12 }), reason: fc.integer({ min: 0, max: 3 }) })
  .map(({ gid, bound, reason }) => (reason === 0 ? { kind: 'group', gid, bound } : { kind: 'group', gid, bound, reason }))
const range: fc.Arbitrary<Rule> = fc
  .record({ start: idx, length: fc.oneof(fc.integer({ min: 1, max: 8 }), fc.integer({ min: shard - 9, max: 2 * shard })) })
  .map(({ start, length }) => ({ kind: 'range', start, length }))
const list: fc.Arbitrary<Rule> = fc
  .uniqueArray(idx, { minLength: 1, maxLength: 6 })
  .map(indices => ruleOfRuns(runsOf(indices.sort((a, b) => a - b))))
const issuer: fc.Arbitrary<Rule> = fc.constantFrom(...issuers).map(keyId => ({ kind: 'issuer', keyId }))
const batch = fc.record({
  rules: fc.array(fc.oneof(group, range, list, issuer), { maxLength: 6 }),
  floor: fc.oneof(fc.nat(4), fc.constantFrom(shard - 1, shard, shard + 1)),
})
const member = fc.record({
  idx,
  gids: fc.uniqueArray(fc.integer({ min: 1, max: 6 }), { maxLength: 4 }),
  issuerKeyId: fc.constantFrom(null, ...issuers),
})

type Batch = { rules: Rule[]; floor: number }

function setOf(...batches: Batch[]): RuleSet {
  const set = createRuleSet()
  for (const { rules, floor } of batches) set.merge(rules, floor)
  return set
}

const contents = (set: RuleSet) => ({ rules: set.rules(), floor: set.floor })

/** The definition, spelled out. */
function meant(
  rules: Rule[],
  { idx, gids, issuerKeyId }: { idx: number; gids: number[]; issuerKeyId: Uint8Array | null },
): boolean {
  return rules.some(rule => {
    if (rule.kind === 'group') return gids.includes(rule.gid) && idx < rule.bound
    if (rule.kind === 'range') return idx >= rule.start && idx < rule.start + rule.length
    if (rule.kind === 'issuer') return issuerKeyId !== null && rule.keyId.every((byte, i) => byte === issuerKeyId[i])
    return rule.kind === 'list' && createRuleSet([rule]).isRevoked({ idx, gids: [] }, null)
  })
}

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
        const before = members.map(m => set.isRevoked(m, m.issuerKeyId))
        const grew = set.merge(b.rules, b.floor)
        const after = members.map(m => set.isRevoked(m, m.issuerKeyId))
        before.forEach((was, i) => {
          if (was) expect(after[i]).toBe(true)
          if (!grew) expect(after[i]).toBe(was)
        })
      }),
    )
  })

  it('agrees with the definition', () => {
    fc.assert(
      fc.property(fc.array(batch, { maxLength: 4 }), member, (batches, m) => {
        const expected = batches.some(({ rules, floor }) => m.idx < floor || meant(rules, m))
        expect(setOf(...batches).isRevoked(m, m.issuerKeyId)).toBe(expected)
      }),
    )
  })

  it('takes certificates as bits as it takes them as runs, before a floor and after', () => {
    fc.assert(
      fc.property(fc.uniqueArray(idx, { minLength: 1, maxLength: 20 }), batch, fc.boolean(), (indices, other, first) => {
        const runs = indices.map((start): Rule => ({ kind: 'range', start, length: 1 }))
        const [whole, bits] = [createRuleSet(runs), createRuleSet()]
        if (first) bits.merge(other.rules, other.floor)
        for (const n of indices) {
          const start = n - (n % 4096)
          const block = new Uint8Array(512)
          block[(n - start) >> 3] = 1 << (n & 7)
          const before = bits.isRevoked({ idx: n, gids: [] }, null)
          expect(bits.mergeBits(start, block)).toBe(!before)
        }
        if (!first) bits.merge(other.rules, other.floor)
        whole.merge(other.rules, other.floor)
        expect(contents(bits)).toEqual(contents(whole))
      }),
    )
  })

  it('is the same told whole, packed, or shard by shard', () => {
    fc.assert(
      fc.property(batch, ({ rules, floor }) => {
        const set = setOf({ rules, floor })
        const shards = [...Array(set.shards).keys()].flatMap(set.shardRules)
        for (const told of [packRules(set.rules()), shards, packRules(shards)])
          expect(contents(setOf({ rules: told, floor }))).toEqual(contents(set))
      }),
    )
  })

  it('takes nothing of a batch in which something is wrong or too much', () => {
    const set = createRuleSet([{ kind: 'group', gid: 1, bound: 5 }])
    const good: Rule = { kind: 'range', start: 0, length: 9 }
    const coded = new Uint8Array([1, 1, 255])
    for (const bad of [
      { kind: 'list', base: 0, span: 9, codec: 2, coded },
      { kind: 'list', base: 2 ** 31 - 1, span: 9, codec: 2, coded },
      { kind: 'range', start: 9, length: 2 ** 31 },
      { kind: 'groups', coded: new Uint8Array([0, 1]) },
    ] as Rule[])
      expect(() => set.merge([good, bad])).toThrow(/notice_malformed/)
    // Every other shard, one certificate each: memory for a shard each time.
    const scattered = [...Array(8192).keys()].map((n): Rule => ({ kind: 'range', start: n * 2 * shard, length: 1 }))
    expect(() => set.merge([good, ...scattered])).toThrow(/rules_limit/)
    expect(() =>
      set.merge([...Array(257).keys()].map(n => ({ kind: 'issuer', keyId: new Uint8Array([n >> 8, n & 255]) }))),
    ).toThrow(/rules_limit/)
    expect(set.rules()).toEqual([{ kind: 'group', gid: 1, bound: 5 }])
    // All that there can be takes no memory at all.
    expect(set.merge([{ kind: 'range', start: 0, length: 2 ** 31 }])).toBe(true)
    expect(set.isRevoked({ idx: 2 ** 31 - 1, gids: [] }, null)).toBe(true)
  })
})

describe('certificates one by one', () => {
  it('fill as many notices as they need, and come out the same', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.nat(3_000_000), { minLength: 1, maxLength: 3000 }),
        fc.integer({ min: 500, max: 4096 }),
        (some, bytesMax) => {
          const indices = some.sort((a, b) => a - b)
          const rules = rulesOfIndices(indices, bytesMax)
          expect(contents(createRuleSet(rules))).toEqual(
            contents(createRuleSet(indices.map(start => ({ kind: 'range', start, length: 1 })))),
          )
          expect(rulesByNotice(rules, bytesMax).flat()).toEqual(rules)
        },
      ),
      { numRuns: 20 },
    )
    expect(() => rulesOfIndices([2, 1], 8192)).toThrow(/configuration_invalid/)
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
