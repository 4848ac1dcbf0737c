// ECDSA over P-256 with SHA-256, verification alone, for engines that have BigInt and no cryptography of their own. Its arithmetic takes as long as
// the numbers make it: it is for public data only (certificates, notices), and there is no way to give it a private key.

import type { Hash, Verify } from '../agent/ports.ts'
import { type Bytes, hexOf } from '../core/bytes.ts'
import { integerBytes, wholeParts } from '../core/der.ts'
import { pointOfSpki } from '../core/p256-spki.ts'

/** Jacobian: x/z², y/z³; z = 0 is the point at infinity. */
type Point = [bigint, bigint, bigint]

const numberOf = (hex: string): bigint => BigInt('0x' + hex)

// SEC 2, 2.4.2 (a = −3).
const p = numberOf('ffffffff00000001000000000000000000000000ffffffffffffffffffffffff')
const n = numberOf('ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551')
const b = numberOf('5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b')
const gx = numberOf('6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296')
const gy = numberOf('4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5')
// Made when asked for: Moddable's linker, which puts what a module holds into flash, falls over an array of BigInts.
const infinity = (): Point => [0n, 1n, 0n]

const modulo = (value: bigint, modulus: bigint): bigint => ((value % modulus) + modulus) % modulus

// Below, p − x stands for −x: what is never negative takes one division in place of two.
function double(point: Point): Point {
  const x = point[0]
  const y = point[1]
  const z = point[2]
  const delta = (z * z) % p
  const gamma = (y * y) % p
  const beta = (x * gamma) % p
  const alpha = (3n * (x + p - delta) * (x + delta)) % p
  const x3 = (alpha * alpha + 8n * (p - beta)) % p
  return [x3, (alpha * (4n * beta + p - x3) + 8n * gamma * (p - gamma)) % p, (2n * y * z) % p]
}

function add(one: Point, other: Point): Point {
  if (!one[2]) return other
  if (!other[2]) return one
  const z1 = (one[2] * one[2]) % p
  const z2 = (other[2] * other[2]) % p
  const u = (one[0] * z2) % p
  const s = (one[1] * z2 * other[2]) % p
  const h = (other[0] * z1 + p - u) % p
  const r = (other[1] * z1 * one[2] + p - s) % p
  if (!h) return r ? infinity() : double(one)
  const h2 = (h * h) % p
  const h3 = (h * h2) % p
  const v = (u * h2) % p
  const x = (r * r + p - h3 + 2n * (p - v)) % p
  return [x, (r * (v + p - x) + s * (p - h3)) % p, (h * one[2] * other[2]) % p]
}

/** value⁻¹ modulo n, which is prime: Euclid's algorithm. */
function inverse(value: bigint): bigint {
  let big = n
  let small = value
  let out = 0n
  let next = 1n
  while (small) {
    const quotient = big / small
    const rest = big - quotient * small
    big = small
    small = rest
    const before = out - quotient * next
    out = next
    next = before
  }
  return modulo(out, n)
}

/** 0 for a negative one: no signature has either. */
const positive = (content: Bytes): bigint => (content[0] > 0x7f ? 0n : numberOf(hexOf(content)))

function good(hash: Hash, spki: Bytes, message: Bytes, signature: Bytes): boolean {
  const key = pointOfSpki(spki)
  if (!key) return false
  const x = numberOf(hexOf(key.subarray(1, 33)))
  const y = numberOf(hexOf(key.subarray(33)))
  // On the curve, which has prime order: then it is in the group, and not infinity.
  if (x >= p || y >= p || modulo(y * y - x * x * x + 3n * x - b, p)) return false
  // Two INTEGERs of at most 33 octets.
  if (signature.length > 72) return false
  const [r, s] = wholeParts(signature, 2, 2).map(part => positive(integerBytes(part)))
  if (!r || !s || r >= n || s >= n) return false
  const w = inverse(s)
  const u1 = (numberOf(hexOf(hash.sha256(message))) * w) % n
  const u2 = (r * w) % n
  const generator: Point = [gx, gy, 1n]
  const point: Point = [x, y, 1n]
  const both = add(generator, point)
  // u1·G + u2·Q in one pass (Shamir).
  let sum = infinity()
  for (let bit = 1n << 255n; bit; bit >>= 1n) {
    sum = double(sum)
    const first = u1 & bit
    const second = u2 & bit
    if (first || second) sum = add(sum, first ? (second ? both : generator) : point)
  }
  const z2 = (sum[2] * sum[2]) % p
  // x = r modulo n, where x is below p and p is above n by less than n.
  return !!z2 && (sum[0] === (r * z2) % p || (r + n < p && sum[0] === ((r + n) * z2) % p))
}

/**
 * A Verify for `ecdsa-sha256` with P-256 keys; every other algorithm and key is not good. `hash`: SHA-256, which small engines have in C.
 * `done` is called during the call. Not constant-time, and has no need to be.
 */
export function p256Verify(hash: Hash): Verify {
  return {
    verify(spki, algorithm, message, signature, done) {
      let verdict = false
      try {
        verdict = algorithm === 'ecdsa-sha256' && good(hash, spki, message, signature)
      } catch {
        // A signature that is no strict DER.
      }
      done(verdict)
    },
  }
}
