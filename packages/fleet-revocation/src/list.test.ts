// Both codes of a list of certificates: what is written is read back, and bytes from nowhere neither hang, nor take memory, nor mean one
// thing to a device and another to a relying party.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { RANGE, RICE, readList } from './list-decoder.ts'
import { encodeList, encodeRange, encodeRice, membersOf, type Runs, runsOf } from './list-encoder.ts'
import { listSpanMax } from './list-model.ts'
import { type ListRule, namesCertificate, noticeRunsMax, ruleOfCbor, ruleToCbor } from './rule.ts'
import { createRuleSet } from './rule-set.ts'

function read(span: number, codec: number, coded: Uint8Array, runsMax = listSpanMax): number[] | null {
  const out: number[] = []
  return readList(span, codec, coded, runsMax, (start, length) => out.push(start, length)) ? out : null
}

/** Gaps and runs of every size, from one index to a hundred thousand. */
const length = fc.oneof(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 400 }), fc.integer({ min: 1, max: 20_000 }))
const set: fc.Arbitrary<{ span: number; runs: Runs }> = fc
  .record({ pairs: fc.array(fc.tuple(length, length), { minLength: 1, maxLength: 25 }), before: fc.nat(5), after: fc.nat(2000) })
  .map(({ pairs, before, after }) => {
    const runs: number[] = []
    let at = before - 1
    for (const [gap, run] of pairs) {
      runs.push(at + gap, run)
      at += gap + run
    }
    return { span: at + after + 1, runs: Uint32Array.from(runs).map((v, i) => (i % 2 === 0 && before === 0 ? Math.max(v, 0) : v)) }
  })
  .filter(({ span }) => span <= listSpanMax)

describe('a list', () => {
  it('is read back as it was written, by both codes', () => {
    fc.assert(
      fc.property(set, ({ span, runs }) => {
        expect(read(span, RANGE, encodeRange(span, runs))).toEqual([...runs])
        expect(read(span, RICE, encodeRice(span, runs))).toEqual([...runs])
        const { coded } = encodeList(span, runs)
        expect(coded.length).toBe(Math.min(encodeRange(span, runs).length, encodeRice(span, runs).length))
      }),
      { numRuns: 60 },
    )
  })

  it('may hold one, all, every other, the first and the last', () => {
    const everyOther = runsOf([...Array(listSpanMax / 2).keys()].map(n => 2 * n))
    for (const [span, runs] of [
      [1, [0, 1]],
      [listSpanMax, [0, listSpanMax]],
      [listSpanMax, [0, 1, listSpanMax - 1, 1]],
      [listSpanMax, [listSpanMax - 1, 1]],
      [listSpanMax, everyOther],
    ] as const)
      for (const codec of [RANGE, RICE]) {
        const coded = codec === RANGE ? encodeRange(span, Uint32Array.from(runs)) : encodeRice(span, Uint32Array.from(runs))
        const back = read(span, codec, coded)
        expect(back?.length).toBe(runs.length)
        expect(back?.every((value, i) => value === runs[i])).toBe(true)
      }
  })

  it('refuses to be written out of order, empty or beyond its span', () => {
    for (const [span, runs] of [
      [9, []],
      [9, [3, 2, 5, 1]],
      [9, [3, 0]],
      [9, [8, 2]],
      [listSpanMax + 1, [0, 1]],
    ] as const)
      expect(() => encodeList(span, Uint32Array.from(runs))).toThrow(/configuration_invalid/)
  })

  it('[F7] ends, in memory of its own size, and says the same to a device and a relying party, whatever the bytes are', () => {
    let understood = 0
    fc.assert(
      fc.property(
        set,
        fc.constantFrom(RANGE, RICE),
        fc.array(fc.record({ at: fc.nat(400), byte: fc.nat(255), kind: fc.constantFrom('set', 'cut', 'add', 'span') }), {
          minLength: 1,
          maxLength: 3,
        }),
        ({ span: honest, runs }, codec, changes) => {
          let span = honest
          let coded = [...(codec === RANGE ? encodeRange(span, runs) : encodeRice(span, runs))]
          for (const { at, byte, kind } of changes) {
            if (kind === 'set') coded[at % coded.length] = byte
            else if (kind === 'cut') coded = coded.slice(0, 1 + (at % coded.length))
            else if (kind === 'add') coded.splice(at % coded.length, 0, byte)
            else span = Math.max(1, Math.min(listSpanMax, span + byte - 128))
          }
          const rule: ListRule = { kind: 'list', base: 1000, span, codec, coded: Uint8Array.from(coded) }
          const received = ruleOfCbor(ruleToCbor(rule), noticeRunsMax)
          if (!received) {
            expect(read(span, codec, rule.coded, noticeRunsMax)).toBeNull()
            return
          }
          understood++
          const members = read(span, codec, rule.coded) ?? []
          // Ascending, apart, within the span: what a reader may rely on.
          for (let i = 0, end = -1; i < members.length; i += 2) {
            expect(members[i]).toBeGreaterThan(end)
            end = members[i] + members[i + 1]
            expect(end).toBeLessThanOrEqual(span)
          }
          expect(membersOf(Uint32Array.from(members))).toBeLessThanOrEqual(span)
          const relyingParty = createRuleSet([received])
          for (const near of members.slice(0, 20).flatMap(at => [at - 1, at, at + 1]))
            expect(namesCertificate(received, 1000 + near, null)).toBe(relyingParty.isRevoked({ idx: 1000 + near, gids: [] }, null))
        },
      ),
      { numRuns: 400 },
    )
    // Some mutations are codes of other sets: signed bytes are not for the code to protect.
    expect(understood).toBeGreaterThan(5)
  })

  it('[F7] bytes from nowhere end as fast', () => {
    const began = performance.now()
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 300 }),
        fc.integer({ min: 0, max: listSpanMax + 1 }),
        fc.nat(4),
        (coded, span, codec) => {
          const members = read(span, codec, coded, noticeRunsMax)
          if (members) expect(members.length / 2).toBeLessThanOrEqual(noticeRunsMax)
        },
      ),
      { numRuns: 3000 },
    )
    expect(performance.now() - began).toBeLessThan(30_000)
  })

  it('[F7] a few bytes that claim half a million runs are refused before they are read', () => {
    // members = runs = 524,288 in three bytes each, and nothing behind them.
    const claims = new Uint8Array([128, 128, 32, 128, 128, 32])
    let called = 0
    expect(readList(listSpanMax, RANGE, claims, noticeRunsMax, () => called++)).toBe(false)
    expect(called).toBe(0)
    expect(read(listSpanMax, RICE, new Uint8Array([128, 128, 64, 0]))).toBeNull()
  })
})
