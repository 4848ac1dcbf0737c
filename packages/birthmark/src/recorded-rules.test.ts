import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { blocksOf, openSqliteStore, type RevokedSet, type Store } from '@birthmark/est-server'
import { createRuleSet, type Rule, type RuleSet } from '@birthmark/fleet-revocation'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { partsOf, storedRules } from './recorded-rules.ts'

const fleet = 'acme'
const idx = fc.integer({ min: 1, max: 9000 })
const rule: fc.Arbitrary<Rule | { kind: 'floor'; floor: number }> = fc.oneof(
  fc.record({ kind: fc.constant('range' as const), start: idx, length: fc.integer({ min: 1, max: 5000 }) }),
  fc.record({
    kind: fc.constant('issuer' as const),
    keyId: fc.constantFrom(new Uint8Array(20).fill(1), new Uint8Array(20).fill(2)),
  }),
  fc.record({ kind: fc.constant('floor' as const), floor: idx }),
  // Ranges of one stand for a list.
  idx.map(start => ({ kind: 'range' as const, start, length: 1 })),
)

function setOf(one: Rule | { kind: 'floor'; floor: number }): RevokedSet {
  const none = { start: 0, length: 0, issuer: null, blocks: [] }
  if (one.kind === 'floor') return { ...none, kind: 'floor', start: one.floor }
  if (one.kind === 'issuer') return { ...none, kind: 'issuer', issuer: one.keyId }
  if (one.kind !== 'range') throw new Error(one.kind)
  return one.length === 1
    ? { ...none, kind: 'list', blocks: blocksOf([one.start]) }
    : { ...none, kind: 'range', start: one.start, length: one.length }
}

async function record(store: Store, set: RevokedSet): Promise<void> {
  const { seq, previousSha256, issued } = await store.draftSet(fleet, 0)
  const notice = { seq, previousSha256, notice: new Uint8Array([seq]), noticeSha256: new Uint8Array(32).fill(seq) }
  const audit = { at: 1, kind: 'certificates_revoked' as const, requestId: '', fleet, device: '', by: '', code: '', detail: '' }
  const outcome = await store.recordSet({ fleet, set, reason: null, devices: [], issued, notices: [notice], at: 1, audit })
  expect(outcome).toEqual({ kind: 'recorded' })
}

const contents = (set: RuleSet) => ({ rules: set.rules(), floor: set.floor })

it('[F44] the store is the same lattice as memory: any order, any repetition, over a restart', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(rule, { minLength: 1, maxLength: 6 }), fc.nat(), async (rules, turn) => {
      const folder = mkdtempSync(join(tmpdir(), 'bm-rules-'))
      const path = join(folder, 'store.db')
      let store = await openSqliteStore({ path })
      // In another order, and one of them twice.
      const order = [...rules.slice(turn % rules.length), ...rules.slice(0, turn % rules.length), rules[0]]
      for (const one of order) await record(store, setOf(one))
      await store.close()
      store = await openSqliteStore({ path })
      const expected = createRuleSet()
      for (const one of rules) one.kind === 'floor' ? expected.merge([], one.floor) : expected.merge([one])
      expect(contents(await storedRules(store, fleet))).toEqual(contents(expected))
      await store.close()
      rmSync(folder, { recursive: true })
    }),
    { numRuns: 6 },
  )
})

it('what a notice says is taken apart as the store keeps it', () => {
  const rules = createRuleSet([
    { kind: 'group', gid: 3, bound: 9 },
    { kind: 'range', start: 100, length: 3 },
    { kind: 'range', start: 7, length: 1 },
    { kind: 'issuer', keyId: new Uint8Array([1]) },
  ]).rules()
  const parts = partsOf(rules)
  expect(parts.rules).toEqual([{ kind: 'group', gid: 3, bound: 9 }])
  expect(parts.issuer).toEqual(new Uint8Array([1]))
  expect(parts.certificates).toEqual(blocksOf([7, 100, 101, 102]))
})
