import { sign } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { createVerifier, importKey, recentlyUsed, verifyOnce, verifyWith } from './node-crypto.ts'
import { testKey } from './testing/kernel.ts'

const message = Buffer.from('what was signed')

describe('verification', () => {
  it.each(['P-256', 'P-384', 'Ed25519', 'RSA'] as const)('tells a good %s signature from a bad one, by key or by spki', kind => {
    const key = testKey(kind)
    const digest = /sha\d+$/.exec(key.algorithm)?.[0] ?? null
    const signature = sign(digest, message, key.privateKey)
    const imported = importKey(key.spki)!
    expect(verifyWith(imported, key.algorithm, message, signature)).toBe(true)
    expect(verifyOnce(key.spki, key.algorithm, message, signature)).toBe(true)
    for (const bad of [Buffer.from('else'), new Uint8Array()])
      expect(verifyOnce(key.spki, key.algorithm, bad, signature)).toBe(false)
    expect(verifyOnce(key.spki, key.algorithm, message, signature.subarray(1))).toBe(false)
    expect(verifyOnce(testKey(kind).spki, key.algorithm, message, signature)).toBe(false)
    for (const algorithm of ['', 'md5', 'rsa-pkcs1-sha1']) expect(verifyOnce(key.spki, algorithm, message, signature)).toBe(false)
  })

  it('takes PSS with a salt as long as the hash', () => {
    const key = testKey('RSA')
    const pss = (saltLength: number) => sign('sha256', message, { key: key.privateKey, padding: 6, saltLength })
    expect(verifyOnce(key.spki, 'rsa-pss-sha256', message, pss(32))).toBe(true)
    expect(verifyOnce(key.spki, 'rsa-pss-sha256', message, pss(20))).toBe(false)
    expect(verifyWith(importKey(key.spki)!, 'rsa-pss-sha256', message, pss(32))).toBe(true)
  })

  it('imports no key that is none', () => {
    expect(importKey(new Uint8Array(91))).toBeNull()
    expect(importKey(new Uint8Array())).toBeNull()
  })

  it('remembers a good signature by everything that went into it, and no bad one', () => {
    const [a, b] = [testKey(), testKey()]
    const signature = new Uint8Array(sign('sha256', message, a.privateKey))
    const verifier = createVerifier()
    const ask = (spki: Uint8Array, algorithm: string, text: Uint8Array, s: Uint8Array) => {
      let verdict: boolean | null = null
      verifier.verify(spki, algorithm, text, s, good => {
        verdict = good
      })
      return verdict
    }
    for (let i = 0; i < 2; i++) {
      expect(ask(a.spki, a.algorithm, message, signature)).toBe(true)
      expect(ask(b.spki, a.algorithm, message, signature)).toBe(false)
      expect(ask(a.spki, 'ecdsa-sha384', message, signature)).toBe(false)
      expect(ask(a.spki, a.algorithm, Buffer.from('what was Signed'), signature)).toBe(false)
      expect(ask(new Uint8Array(91), a.algorithm, message, signature)).toBe(false)
    }
  })

  it.each([
    ['an array', (bytes: Uint8Array) => new Uint8Array(bytes)],
    ['a Buffer', (bytes: Uint8Array) => Buffer.from(bytes)],
  ])('remembers a copy: what the caller does with its bytes in %s afterwards is judged anew', (_, copy) => {
    const key = testKey()
    const signature = copy(sign('sha256', message, key.privateKey))
    const [spki, text] = [copy(key.spki), copy(message)]
    const verdicts: boolean[] = []
    const verifier = createVerifier()
    const ask = () => verifier.verify(spki, key.algorithm, text, signature, good => verdicts.push(good))
    ask()
    text[0] ^= 1
    ask()
    text[0] ^= 1
    spki[spki.length - 1] ^= 1
    ask()
    expect(verdicts).toEqual([true, false, false])
  })
})

it('a bounded map forgets what was used longest ago', () => {
  const map = recentlyUsed<number>(2)
  map.set('a', 1)
  map.set('b', 2)
  expect(map.get('a')).toBe(1)
  map.set('c', 3)
  expect([map.get('a'), map.get('b'), map.get('c')]).toEqual([1, undefined, 3])
})
