// RSA moduli that can be factored by who knows how they were made. Three ways that cost less than one verification with the key: a small factor,
// the shape that the Infineon library of 2012 to 2017 gave its primes (ROCA, CVE-2017-15361), and two primes close to each other (Fermat,
// CVE-2022-26320). Keys that share one factor are not found out alone; that takes all moduli of a fleet at once.

import { recentlyUsed } from '../node-crypto.ts'

/** The odd primes to 701: the 2nd to the 126th, of which the Infineon library used at least that many for keys of 1,984 bits and more. */
const primes: number[] = []
for (let n = 3; n <= 701; n += 2) if (primes.every(p => n % p !== 0)) primes.push(n)

/**
 * Nemec et al., "The Return of Coppersmith's Attack" (2017): both primes are k·M + (65537^a mod M), M the product of the first primes. So modulo
 * each of them the modulus is a power of 65537. Another modulus passes for one once in 2^167 (the product of the subgroups' shares).
 */
const powers = primes.map(p => {
  const seen = new Uint8Array(p)
  for (let x = 1; !seen[x]; x = (x * 65537) % p) seen[x] = 1
  return seen
})

/** Primes in products below 2^53, so that one long division serves several. */
const products: { product: bigint; primes: { prime: number; powers: Uint8Array }[] }[] = []
for (const [i, prime] of primes.entries()) {
  const last = products.at(-1)
  if (last && last.product * BigInt(prime) < 1n << 53n) {
    last.product *= BigInt(prime)
    last.primes.push({ prime, powers: powers[i] })
  } else products.push({ product: BigInt(prime), primes: [{ prime, powers: powers[i] }] })
}

/** The largest integer whose square is not above `n`. */
function squareRoot(n: bigint): bigint {
  if (n === 0n) return 0n
  // Newton's method from above, from the 50 bits that a double knows of it: five or six divisions for 4,096 bits. An even number of bits is cut off.
  const below = Math.max(0, n.toString(16).length - 13) * 4
  const known = Math.sqrt(Number(n >> BigInt(below)) + 1)
  let x = (BigInt(Math.ceil(known)) + 1n) << BigInt(below >> 1)
  for (;;) {
    const y = (x + n / x) >> 1n
    if (y >= x) return x
    x = y
  }
}

/** Modulo 64, 63, 65 and 11 few numbers are squares: 99 % of the others are told without a division. */
const residues = [64, 63, 65, 11].map(modulus => {
  const squares = new Uint8Array(modulus)
  for (let i = 0; i < modulus; i++) squares[(i * i) % modulus] = 1
  return { modulus, squares }
})
/** The product of the four. */
const sieve = 2_882_880

const mayBeSquare = (rest: number) => residues.every(({ modulus, squares }) => squares[rest % modulus] === 1)

function isSquare(n: bigint): boolean {
  const root = squareRoot(n)
  return root * root === n
}

/**
 * Rounds of Fermat's method. A sound generator's primes differ in their first hundred bits (FIPS 186-5 A.1.3), which would take more rounds than
 * can be counted; those that were ever found fell within a few.
 */
const fermatRounds = 100

function hasClosePrimes(n: bigint): boolean {
  let a = squareRoot(n)
  if (a * a < n) a += 1n
  const first = a * a - n
  // Round by round, the difference grows by 2a + 1 and a by one; what is left of them modulo the sieve is all that most rounds look at.
  let rest = Number(first % BigInt(sieve))
  let restOfA = Number(a % BigInt(sieve))
  for (let round = 0; round < fermatRounds; round++) {
    const i = BigInt(round)
    if (mayBeSquare(rest) && isSquare(first + i * (2n * a + i))) return true
    rest = (rest + 2 * restOfA + 1) % sieve
    restOfA = (restOfA + 1) % sieve
  }
  return false
}

/** Moduli that were just found sound: a SCEP message shows its key twice, as its signer's and in the CSR, and others come in between. */
const sound = recentlyUsed<true>(64)

/** What is wrong with an odd modulus (unsigned big-endian), in words; null when none of the three is. */
export function modulusWeakness(modulus: Uint8Array): string | null {
  const id = Buffer.from(modulus.buffer, modulus.byteOffset, modulus.length).toString('latin1')
  if (sound.get(id)) return null
  const weakness = weaknessOf(modulus)
  if (weakness === null) sound.set(id, true)
  return weakness
}

function weaknessOf(modulus: Uint8Array): string | null {
  const n = BigInt(`0x${Buffer.from(modulus.buffer, modulus.byteOffset, modulus.length).toString('hex')}`)
  let isInfineon = true
  for (const { product, primes: members } of products) {
    const rest = Number(n % product)
    for (const { prime, powers: ofPrime } of members) {
      const residue = rest % prime
      if (residue === 0) return `it is divisible by ${prime}`
      if (!ofPrime[residue]) isInfineon = false
    }
  }
  if (isInfineon) return 'it was made by a broken library (ROCA, CVE-2017-15361)'
  return hasClosePrimes(n) ? 'its two primes are close to each other (Fermat, CVE-2022-26320)' : null
}
