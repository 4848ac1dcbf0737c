import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { blockSize, checkBlockProof, encodeBlockProof } from './block-proof.ts'
import { createRevokedTree, nodeSha256 } from './revoked-tree.ts'

const check = (proof: Uint8Array, root: Uint8Array, idx: number, seq = 5) => checkBlockProof(proof, seq, root, idx, nodeSha256)

/** A tenth of a hundred thousand, the same every time. */
function tenth(): { tree: ReturnType<typeof createRevokedTree>; revoked: Set<number> } {
  const tree = createRevokedTree()
  const revoked = new Set<number>()
  let state = 1
  for (let idx = 0; idx < 100_000; idx++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    if (state >>> 16 < 6554) {
      tree.add(idx, 1)
      revoked.add(idx)
    }
  }
  return { tree, revoked }
}

describe('a block proof', () => {
  const { tree, revoked } = tenth()
  const root = tree.root()

  it('tells every certificate of a fleet good or revoked, beyond the last one too', () => {
    for (const idx of [...Array(300).keys()].map(n => n * 337).concat(99_999, 100_000, 123_456_789, 2 ** 31 - 1))
      expect(check(tree.prove(5, idx), root, idx)).toBe(revoked.has(idx) ? 'revoked' : 'good')
  })

  it('proves nothing under another root, for another notice or another certificate’s block', () => {
    const proof = tree.prove(5, 2000)
    expect(check(proof, root, 2000)).not.toBeNull()
    expect(check(proof, root, 2000, 6)).toBeNull()
    expect(check(proof, root, 2000 + blockSize)).toBeNull()
    const grown = createRevokedTree()
    grown.add(2001, 1)
    expect(check(proof, grown.root(), 2000)).toBeNull()
  })

  it('can’t be turned: no changed byte makes a revoked certificate good', () => {
    const idx = [...revoked][500]
    const proof = tree.prove(5, idx)
    expect(check(proof, root, idx)).toBe('revoked')
    fc.assert(
      fc.property(fc.nat(proof.length - 1), fc.integer({ min: 1, max: 255 }), fc.boolean(), (at, flip, cut) => {
        const other = cut ? proof.slice(0, at) : proof.map((byte, i) => (i === at ? byte ^ flip : byte))
        expect(check(other, root, idx)).not.toBe('good')
      }),
      { numRuns: 500 },
    )
    // An empty block where something is revoked, with the same path; a path too long; a block out of range.
    const path = new Uint8Array([0, 0, 0])
    for (const bad of [
      { seq: 5, block: 0, coded: new Uint8Array(0), path },
      { seq: 5, block: 0, coded: new Uint8Array(0), path: new Uint8Array(3 + 32) },
      { seq: 5, block: 2 ** 21, coded: new Uint8Array(0), path },
      { seq: 5, block: -1, coded: new Uint8Array(0), path },
    ])
      expect(check(encodeBlockProof(bad), root, idx % blockSize)).toBeNull()
  })

  it('is the same tree however it grew, and empty it is all zeros', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(5000), fc.integer({ min: 1, max: 1500 })), { maxLength: 6 }), runs => {
        const [one, other] = [createRevokedTree(), createRevokedTree()]
        for (const [start, length] of runs) {
          one.add(start, length)
          one.root()
        }
        for (const [start, length] of [...runs].reverse()) other.add(start, length)
        expect(one.root()).toEqual(other.root())
      }),
      { numRuns: 30 },
    )
    const none = createRevokedTree()
    expect(none.root()).toEqual(new Uint8Array(32))
    expect(check(none.prove(5, 77), none.root(), 77)).toBe('good')
    expect(none.prove(5, 77).length).toBeLessThan(12)
    expect(() => none.add(0, 2 ** 31)).toThrow(/rules_limit/)
  })
})
