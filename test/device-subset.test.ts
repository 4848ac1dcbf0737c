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
    // Each of these was seen to go wrong on Espruino's own build: docs/decisions/engines.md.
    ['/^(00|ff)/', 'regular expression with alternatives'],
    ['/a|b/', 'regular expression with alternatives'],
    ['/^a{1,32}$/', 'regular expression with a counted quantifier'],
    ['/^a(b)?$/', 'regular expression with a quantifier after a group'],
    ['/^(ab)*$/', 'regular expression with a quantifier after a group'],
    ['/ab?/', 'regular expression with an optional or lazy part'],
    ['/a+?/', 'regular expression with an optional or lazy part'],
    ['/a(?=b)/', 'regular expression with look-around, named or uncounted group'],
    ['/(?:a)/', 'regular expression with look-around, named or uncounted group'],
    ['/a[/]b/', 'regular expression with a slash in a class'],
    ['/(a)\\1/', 'regular expression with \\b, \\p, \\u or a reference back'],
    ['new RegExp(a)', 'RegExp'],
    ["a.replace(/../g, '%$&')", 'replacement $&'],
    ["Date.parse('2026-12')", 'Date.parse of what neither ends in GMT nor is read back by toJSON'],
    [
      'new Date(a).toJSON(); function f() { return Date.parse(a) }',
      'Date.parse of what neither ends in GMT nor is read back by toJSON',
    ],
    ['Date.UTC(2026)', 'Date.UTC'],
    ['decodeURIComponent(a)', 'decodeURIComponent outside of try'],
    ['Math.pow(2, 12)', 'Math.pow'],
    ['table[bytes[i]]', 'index by an element that may be missing'],
    ['for (let j = 0; j < 9; j++) f(table[bytes[i]])', 'index by an element that may be missing'],
    ['escape(a)', 'escape'],
    ['a.length = 0', 'length assigned'],
    ['a.subarray(0, 9)', 'subarray up to a fixed end'],
    ['var of = 1', 'of as a name'],
    ['function f(of) {}', 'of as a name'],
    ['function f() { const static_ = 1, of = 2 }', 'of as a name'],
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
      'function f(t) { if (/ GMT$/.test(t)) return Date.parse(t) }',
      'function f(t) { const at = Date.parse(t); return new Date(at).toJSON() === t }',
      'try { decodeURIComponent(a) } catch (_) {}',
      'a.subarray(b, b + 4).subarray(0, -32)',
      'for (let i = 0; i < bytes.length; i++) f(table[bytes[i]])',
      'a = i + 3 < end ? table[bytes[i + 3]] : 0',
      '/^application\\/pkcs7-mime *;/i.test(a) && /^[ -~]+$/.test(b) && /[^ -~|{}?]/.test(c) && /^(\\d\\d)(\\d\\d)Z$/.test(d)',
      'do { a-- } while (a > 0)',
      'switch (a) { case 1: let b = 2; f(b) }',
    ])
      expect(found(code), code).toEqual([])
  })
})
