// The device subset's own lint: it must refuse what the small engines lack, and say nothing about what they have.
import { describe, expect, it } from 'vitest'

const { findingsIn } = (await import(new URL('../tools/lint-subset.mjs', import.meta.url).href)) as {
  findingsIn(code: string): { at: number; what: string }[]
}
const found = (code: string) => findingsIn(code).map(({ what }) => what)

describe('the subset lint', () => {
  const refused: [string, string][] = [
    ['var a = 10n', 'BigInt literal'],
    ['BigInt(1)', 'BigInt'],
    ['function f(a = 1) {}', 'default value'],
    ['function f(...a) {}', 'rest parameter or pattern'],
    ['f(...a)', 'spread'],
    ['var b = { ...a }', 'spread'],
    ['var { a } = b', 'destructuring'],
    ['var [a] = b', 'destructuring'],
    ['function f({ a }) {}', 'destructuring'],
    ['var b = { [a]: 1 }', 'computed key'],
    ['a?.b', 'optional chaining (?.)'],
    ['a ?? b', '??'],
    ['a ??= b', '??='],
    ['a ** b', '**'],
    ['async function f() {}', 'async function'],
    ['function* f() {}', 'generator'],
    ['for (var a of b) {}', 'for…of (uses Symbol.iterator)'],
    ['Symbol()', 'Symbol'],
    ['new Map()', 'Map'],
    ['new Set()', 'Set'],
    ['class A { #b }', '#private name'],
    ['class A extends Error {}', 'class'],
    ['a: for (;;) break a', 'label'],
    ['Uint8Array.from([])', 'Uint8Array.from'],
    ['Uint8Array.of(1)', 'Uint8Array.of'],
    ['new TextEncoder()', 'TextEncoder'],
    ['Math.imul(1, 2)', 'Math.imul'],
    ['require("node:fs")', 'require'],
    ['f(); function f() {}', 'f used before it is defined'],
    ['for (let i = 0; i < 3; i++) g(function () { return i })', 'closure over the loop variable i'],
    ['while (a) { const b = a; g(() => b) }', 'closure over the loop variable b'],
    ['Date.now()', 'Date.now'],
    ['new Date()', 'Date without a given time'],
    ['/a/u', 'regular expression flag u'],
  ]
  for (const [code, what] of refused) it(`refuses ${code}`, () => expect(found(code)).toContain(what))

  it('takes what every engine has', () => {
    for (const code of [
      'function f(a) { return a + 1 } f(1)',
      'const f = (a) => a; f(1)',
      'function f() { return g() } function g() { return 1 } f()',
      'for (let i = 0; i < 3; i++) { var x = a[i] }',
      'for (let i = 0; i < 3; i++) { const g = function (j) { return j } }',
      'var o = { a: 1, b }, b = o.a',
      'function f(Map) { return Map }',
      'try { f() } catch (e) { g(e) } finally { h() }',
      'var t = Date.parse("Sun, 06 Nov 1994 08:49:37 GMT")',
      'do { a-- } while (a > 0)',
      'switch (a) { case 1: let b = 2; f(b) }',
    ])
      expect(found(code), code).toEqual([])
  })
})
