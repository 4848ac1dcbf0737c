// What the coder of run lengths expects next: binary contexts that begin at the probabilities of a random set of this size and then learn.
// Integers only, every product below 2^53, so that each engine computes the same numbers: a last bit that differed would be another set.
// Device subset; encoder and decoder share it.

/** Indices that one list may span. A list is a rule of a fleet's issuance counter; a larger fleet takes several. */
export const listSpanMax = 1 << 20

/** Probabilities of a 1 are in units of 2^-22. */
const ONE = 4194304
// The coder takes the upper 16 bits: neither outcome may become impossible there.
const LEAST = 64
// Seeds are computed in units of 2^-26.
const FINE = 67108864
/** A seed counts as much as this many observations. Gaps are mostly as random as it says; runs are of more than one kind as soon as a batch is among them. */
const GAP_SEED_WEIGHT = 24
const RUN_SEED_WEIGHT = 6
// Later observations count less and less, down to this: a set may look different further on.
const WEIGHT_MAX = 640
/** Buckets 2^b ≤ value < 2^(b+1): listSpanMax is the largest value. */
export const bucketsMax = 21

/**
 * Contexts of one kind of length. `stop[b]`: the value is in bucket b, having reached it. `first[b]`, `second[2b + first]`: the two bits
 * below the leading one. `low[j]`: a further bit of weight 2^j.
 */
export interface LengthModel {
  /** Probabilities, then how much each has seen: stop, first, second, low. */
  chance: Uint32Array
  weight: Uint32Array
}

export const firstAt = bucketsMax
export const secondAt = 2 * bucketsMax
export const lowAt = 4 * bucketsMax

/** Lengths of a geometric distribution that end with a chance of `ends` in `among`: within a bucket their bits are independent. */
function lengthModel(ends: number, among: number, seedWeight: number): LengthModel {
  const size = 5 * bucketsMax
  const model = { chance: new Uint32Array(size), weight: new Uint32Array(size).fill(seedWeight) }
  // The chance to end within the next 2^b; that of a 1 at weight 2^b is that of going on so far, against that of not.
  let ending = Math.max(1, Math.min(FINE - 1, Math.floor((ends * FINE) / among)))
  const bit: number[] = []
  for (let b = 0; b < bucketsMax; b++) {
    const on = FINE - ending
    bit[b] = Math.floor((on * ONE) / (FINE + on))
    model.chance[b] = Math.floor(ending / 16)
    ending = Math.min(FINE - 1, 2 * ending - Math.ceil((ending * ending) / FINE))
  }
  for (let b = 0; b < bucketsMax; b++) {
    if (b > 0) model.chance[firstAt + b] = bit[b - 1]
    if (b > 1) model.chance[secondAt + 2 * b] = model.chance[secondAt + 2 * b + 1] = bit[b - 2]
    model.chance[lowAt + b] = bit[b]
  }
  for (let i = 0; i < size; i++) model.chance[i] = Math.max(LEAST, Math.min(ONE - LEAST, model.chance[i]))
  return model
}

/** The context has seen `bit`. */
export function learn(model: LengthModel, context: number, bit: number): void {
  const chance = model.chance[context]
  const weight = ++model.weight[context]
  // No further than LEAST from either end: at weight w a step leaves 1/w of the distance.
  if (bit) model.chance[context] = Math.min(ONE - LEAST, chance + Math.floor((ONE - chance) / weight))
  else model.chance[context] = Math.max(LEAST, chance - Math.floor(chance / weight))
  if (weight > WEIGHT_MAX) model.weight[context] = WEIGHT_MAX
}

/** The models of a set of `members` in `runs` runs among `span` indices: of the gaps before each run, and of the runs. */
export function gapModel(span: number, members: number, runs: number): LengthModel {
  return lengthModel(runs, Math.max(1, span - members), GAP_SEED_WEIGHT)
}

export function runModel(members: number, runs: number): LengthModel {
  return lengthModel(runs, members, RUN_SEED_WEIGHT)
}
