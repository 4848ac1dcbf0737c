// Sets of revoked certificates to measure on, and the fewest bytes that any code can take for one of their kind: the logarithm of how many
// such sets there are. A seed makes the same sets everywhere.

export interface RevokedSet {
  /** Ascending. */
  indices: Uint32Array
  boundBytes: number
}

export function seeded(seed: number): () => number {
  // xorshift32 (Marsaglia 2003).
  let state = seed
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 4294967296
  }
}

function log2Factorial(n: number): number {
  let sum = 0
  if (n < 256) for (let i = 2; i <= n; i++) sum += Math.log2(i)
  // Stirling's series: beyond 256 its first two terms are exact to a billionth.
  else sum = (n * Math.log(n) - n + 0.5 * Math.log(2 * Math.PI * n) + 1 / (12 * n)) / Math.LN2
  return sum
}

const log2Choose = (n: number, k: number): number => log2Factorial(n) - log2Factorial(k) - log2Factorial(n - k)

function members(flags: Uint8Array, count: number): Uint32Array {
  const out = new Uint32Array(count)
  let n = 0
  for (let i = 0; i < flags.length; i++) if (flags[i]) out[n++] = i
  return out
}

function scatter(flags: Uint8Array, count: number, random: () => number): void {
  for (let left = count; left > 0; ) {
    const at = Math.floor(random() * flags.length)
    if (flags[at]) continue
    flags[at] = 1
    left--
  }
}

/** `count` distinct of 1 … most, ascending. */
function cuts(count: number, most: number, random: () => number): number[] {
  const out = new Set<number>()
  while (out.size < count) out.add(1 + Math.floor(random() * most))
  return [...out].sort((a, b) => a - b)
}

/** `batches` runs that hold `count` members, any division of them and any place for them being as likely. */
function lay(flags: Uint8Array, count: number, batches: number, random: () => number): number {
  const ends = [0, ...cuts(batches - 1, count - 1, random), count]
  const gaps = cuts(batches, flags.length - count + 1, random)
  for (let b = 0, laid = 0; b < batches; b++) {
    const length = ends[b + 1] - ends[b]
    flags.fill(1, gaps[b] - 1 + laid, gaps[b] - 1 + laid + length)
    laid += length
  }
  return log2Choose(count - 1, batches - 1) + log2Choose(flags.length - count + 1, batches)
}

export function randomSet(span: number, count: number, seed: number): RevokedSet {
  const flags = new Uint8Array(span)
  scatter(flags, count, seeded(seed))
  return { indices: members(flags, count), boundBytes: log2Choose(span, count) / 8 }
}

/** Whole batches of devices that were issued one after the other. */
export function groupedSet(span: number, count: number, batches: number, seed: number): RevokedSet {
  const flags = new Uint8Array(span)
  const bits = lay(flags, count, batches, seeded(seed))
  return { indices: members(flags, count), boundBytes: bits / 8 }
}

/** Half in batches, half anywhere else. A few such sets can be divided in more than one way, so the bound is a little too high: a ratio may fall below 1. */
export function mixedSet(span: number, count: number, batches: number, seed: number): RevokedSet {
  const random = seeded(seed)
  const flags = new Uint8Array(span)
  const half = count >> 1
  const bits = lay(flags, half, batches, random)
  scatter(flags, count - half, random)
  return { indices: members(flags, count), boundBytes: (bits + log2Choose(span - half, count - half)) / 8 }
}
