// Keys that no certificate may carry: made here as the libraries made them that got it wrong, and judged before anything is verified with them.
import { checkPrimeSync, createPrivateKey, generateKeyPairSync, generatePrimeSync, type KeyObject, randomBytes } from 'node:crypto'
import { bytesOfHex, encodeBits, encodeElement, encodeSequence, encodeUnsigned, hexOf, parseCsr } from '@birthmark/device-sdk/core'
import { generateTestKey } from '@birthmark/device-sdk/testing'
import { ed25519 } from '@noble/curves/ed25519.js'
import { describe, expect, it } from 'vitest'
import { createVerifier } from '../../packages/est-server/src/node-crypto.ts'
import { keyRefusal } from '../../packages/est-server/src/registrar/key-policy.ts'
import { prove } from '../../packages/est-server/src/registrar/possession.ts'
import { modulusWeakness } from '../../packages/est-server/src/registrar/rsa-weakness.ts'
import { csrFor, keyOf, nameOf } from '../../packages/est-server/src/testing/kernel.ts'

const octets = (n: bigint) => {
  const hex = n.toString(16)
  return bytesOfHex(hex.length % 2 ? `0${hex}` : hex)
}
const base64url = (n: bigint) => Buffer.from(octets(n)).toString('base64url')

function powerModulo(base: bigint, exponent: bigint, modulus: bigint): bigint {
  let result = 1n
  for (let b = base % modulus, e = exponent; e > 0n; e >>= 1n, b = (b * b) % modulus) if (e & 1n) result = (result * b) % modulus
  return result
}

function inverse(a: bigint, modulus: bigint): bigint {
  let [r0, r1, s0, s1] = [a, modulus, 1n, 0n]
  while (r1 !== 0n) {
    const quotient = r0 / r1
    ;[r0, r1] = [r1, r0 - quotient * r1]
    ;[s0, s1] = [s1, s0 - quotient * s1]
  }
  return ((s0 % modulus) + modulus) % modulus
}

/** A key that signs, of two given primes. */
function rsaKeyOfPrimes(p: bigint, q: bigint): KeyObject {
  const e = 65537n
  const d = inverse(e, (p - 1n) * (q - 1n))
  const parts = { n: p * q, e, d, p, q, dp: d % (p - 1n), dq: d % (q - 1n), qi: inverse(q, p) }
  const jwk = Object.fromEntries(Object.entries(parts).map(([name, value]) => [name, base64url(value)]))
  return createPrivateKey({ key: { kty: 'RSA', ...jwk }, format: 'jwk' })
}

const primesUpTo = (most: number) => {
  const primes: number[] = []
  for (let n = 2; n <= most; n++) if (primes.every(p => n % p !== 0)) primes.push(n)
  return primes
}

/** A prime as the Infineon library made it: k·M + (65537^a mod M), M the primorial of `count` primes. */
function infineonPrime(bits: number, count: number): bigint {
  const m = primesUpTo(1500)
    .slice(0, count)
    .reduce((product, prime) => product * BigInt(prime), 1n)
  const spare = bits - m.toString(2).length
  for (;;) {
    const random = (length: number) => BigInt(`0x${randomBytes(length).toString('hex')}`)
    // From the top of the range, so that the product has all its bits.
    const k = (7n << BigInt(spare - 3)) + (random(80) % (1n << BigInt(spare - 3)))
    const candidate = k * m + powerModulo(65537n, random(64), m)
    if (candidate.toString(2).length === bits && checkPrimeSync(candidate) && (candidate - 1n) % 65537n !== 0n) return candidate
  }
}

const primeOf = (bits: number) => generatePrimeSync(bits, { bigint: true })
function primeAfter(n: bigint): bigint {
  let candidate = n | 1n
  while (!checkPrimeSync(candidate) || (candidate - 1n) % 65537n === 0n) candidate += 2n
  return candidate
}

const refusalOf = (key: KeyObject) => {
  const csr = csrFor(keyOf(key, 'rsa-pkcs1-sha256'), nameOf('m-1'))
  return prove(csr, ['P-256', 'RSA'], { resumed: false }, { spki: null, key: null })
}

describe('RSA keys that work and can be factored', () => {
  it.each([
    [2048, 126],
    [3072, 126],
    [4096, 225],
  ])('[F73] a ROCA key of %i bits is refused', (bits, count) => {
    const key = rsaKeyOfPrimes(infineonPrime(bits / 2, count), infineonPrime(bits / 2, count))
    expect(refusalOf(key)).toMatchObject({ code: 'key_weak', detail: expect.stringContaining('ROCA') })
  })

  it('[F73] primes that are close to each other are refused, neighbours and some distance apart', () => {
    for (const distance of [2n, 1n << 100n, 1n << 512n]) {
      const p = primeOf(1024)
      const key = rsaKeyOfPrimes(primeAfter(p + distance), p)
      expect(refusalOf(key)).toMatchObject({ code: 'key_weak', detail: expect.stringContaining('Fermat') })
    }
    expect(modulusWeakness(octets(primeOf(1024) ** 2n))).toContain('Fermat')
  })

  it('[F73] the looks stop where they cost more than they find: a tenth of the bits apart is not seen', () => {
    const p = primeOf(1024)
    expect(modulusWeakness(octets(p * primeAfter(p + (1n << 700n))))).toBe(null)
  })

  it('[F73] a small factor is named', () => {
    for (const factor of [3n, 251n, 701n])
      expect(modulusWeakness(octets(factor * primeOf(2040)))).toContain(`divisible by ${factor}`)
  })

  it('lets real keys through', () => {
    for (const bits of [2048, 2048, 2048, 3072, 4096])
      expect(refusalOf(generateKeyPairSync('rsa', { modulusLength: bits }).privateKey)).toHaveProperty('csr')
  })

  it('[F73] is asked before a signature is verified: a weak key with a broken signature is weak', () => {
    const key = rsaKeyOfPrimes(primeAfter(primeOf(1024) + 2n), primeOf(1024))
    const weak = keyOf(rsaKeyOfPrimes(...(([p]) => [primeAfter(p + 2n), p] as const)([primeOf(1024)])), 'rsa-pkcs1-sha256')
    const csr = csrFor(weak, nameOf('m-1'), { signer: keyOf(key, 'rsa-pkcs1-sha256') })
    expect(prove(csr, ['RSA'], { resumed: false }, { spki: null, key: null })).toMatchObject({ code: 'key_weak' })
  })

  it('[F73] a chain with RSA-16384, or with an exponent as long as the modulus, is not verified', () => {
    const spki = (modulus: bigint, exponent: bigint) => {
      const key = encodeSequence([encodeUnsigned(octets(modulus)), encodeUnsigned(octets(exponent))])
      return encodeSequence([encodeSequence([bytesOfHex('06092a864886f70d0101010500')]), encodeBits(key)])
    }
    const verifier = createVerifier()
    const odd = (bits: number) => (1n << BigInt(bits - 1)) | 1n
    const took = (key: Uint8Array, signature: Uint8Array) => {
      const started = process.cpuUsage().user
      let verdict = true
      verifier.verify(key, 'rsa-pkcs1-sha256', Buffer.from('tbs'), signature, good => {
        verdict = good
      })
      expect(verdict).toBe(false)
      return process.cpuUsage().user - started
    }
    // With them verified, the three take some 10, 30 and 100 ms.
    for (const [modulus, exponent] of [
      [odd(16_384), 65537n],
      [odd(16_384), odd(64)],
      [odd(3072), odd(3000)],
    ])
      expect(took(spki(modulus, exponent), octets(modulus - 2n))).toBeLessThan(5000)
  })
})

describe('Ed25519 keys', () => {
  it('[F73] of small order, with which anybody signs, are refused in every spelling', () => {
    const key = generateTestKey('Ed25519')
    const csr = parseCsr(csrFor(keyOf(key.privateKey, key.algorithm), nameOf('m-1')))
    const head = csr.spki.slice(0, -32)
    const spelled = (point: Uint8Array) => ({ ...csr, spki: new Uint8Array([...head, ...point]) })
    expect(keyRefusal(csr, ['Ed25519'])).toBe(null)
    // The points that are nothing once multiplied by eight, found by another implementation.
    const torsion = new Set<string>()
    const generator = ed25519.Point.fromHex('26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05')
    for (let i = 0, point = ed25519.Point.ZERO; i < 8; i++, point = point.add(generator)) torsion.add(point.toHex())
    expect(torsion.size).toBe(8)
    const second = ['edff', 'eeff'].map(start => `${start}${'ff'.repeat(29)}7f`)
    for (const hex of [...torsion, ...second]) {
      const point = bytesOfHex(hex)
      for (const sign of [0, 0x80]) {
        const spelling = point.slice()
        spelling[31] ^= sign
        expect(keyRefusal(spelled(spelling), ['Ed25519']), hexOf(spelling)).toMatchObject({ code: 'key_weak' })
      }
    }
  })
})

describe('keys that are not what they say', () => {
  it('[F73] a P-256 point off its curve is a weak key, not a bad signature', () => {
    const key = generateTestKey('P-256')
    const der = csrFor(keyOf(key.privateKey, key.algorithm), nameOf('m-1'))
    const { spki } = parseCsr(der)
    const off = Buffer.from(der)
    off[off.indexOf(Buffer.from(spki.slice(-20))) + 10] ^= 1
    expect(prove(off, ['P-256'], { resumed: false }, { spki: null, key: null })).toMatchObject({ code: 'key_weak' })
  })

  it('an ML-DSA key of another length is no key', () => {
    const oid = bytesOfHex('0609608648016503040311')
    const spki = encodeSequence([encodeSequence([oid]), encodeBits(new Uint8Array(1311))])
    const info = encodeSequence([new Uint8Array([2, 1, 0]), nameOf('m-1'), spki, encodeElement(0xa0, [])])
    const der = encodeSequence([info, encodeSequence([oid]), encodeBits(new Uint8Array(2420))])
    expect(prove(der, ['ML-DSA-44'], { resumed: false }, { spki: null, key: null })).toMatchObject({ code: 'csr_malformed' })
  })
})
