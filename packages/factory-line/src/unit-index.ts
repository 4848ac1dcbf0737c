// Every unit of a journal in about 50 bytes of memory, so that a million of them are no matter: a fingerprint of the serial, one of the
// key, where the journal tells of it, and what became of it. Fingerprints only point; who asks reads the journal's line and compares.

export const RESERVED = 0
export const ISSUED = 1
export const GOOD = 2
export const SCRAPPED = 3

/** Two 32-bit words that point at a serial: not cryptographic, so who asks compares what is found. */
export type Fingerprint = readonly [high: number, low: number]

/** FNV-like, two lanes over the characters of an ASCII text. */
export function fingerprintOf(text: string): Fingerprint {
  let high = 0x9e3779b9
  let low = 0x811c9dc5
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i)
    high = Math.imul(high ^ c, 0x9e3779b1)
    low = Math.imul(low ^ c, 0x01000193)
  }
  high = Math.imul(high ^ (high >>> 16) ^ low, 0x85ebca6b)
  low = Math.imul(low ^ (low >>> 15) ^ (high >>> 13), 0xc2b2ae35)
  return [high >>> 0, (low ^ (low >>> 16)) >>> 0]
}

/** The first 64 bits of a hash in hex. */
export function fingerprintOfHex(hex: string): Fingerprint {
  return [wordOfHex(hex, 0), wordOfHex(hex, 8)]
}

function wordOfHex(hex: string, at: number): number {
  let word = 0
  for (let i = at; i < at + 8; i++) {
    const c = hex.charCodeAt(i)
    // A digit's low four bits are its value, a letter's are nine less.
    word = (word << 4) | ((c & 15) + (c > 0x39 ? 9 : 0))
  }
  return word >>> 0
}

/**
 * Gives an array's memory back at once. Megabytes outside of the heap are no reason for the collector to hurry, and a station that grows or is
 * opened again would hold them twice.
 */
function release(...arrays: { buffer: ArrayBuffer }[]): void {
  // ES2024, which Node 24 and Bun have and this project's library of types does not.
  for (const { buffer } of arrays) (buffer as ArrayBuffer & { transfer(length: number): ArrayBuffer }).transfer(0)
}

/** Open addressing over two 32-bit words and a number. Grows at 96 %: some hundred probes, side by side in memory, for half of the room. */
export interface FingerprintIndex {
  add(fingerprint: Fingerprint, value: number): void
  /** The first value under `fingerprint` that `is` confirms, or −1. */
  find(fingerprint: Fingerprint, is: (value: number) => boolean): number
  /** Forgets everything and gives the memory back. */
  clear(): void
}

export function fingerprintIndex(): FingerprintIndex {
  let mask = 1023
  let words = new Uint32Array(2 * (mask + 1))
  // 0: free; else the value + 1.
  let values = new Int32Array(mask + 1)
  let used = 0

  const put = (high: number, low: number, value: number): void => {
    let slot = low & mask
    while (values[slot] !== 0) slot = (slot + 1) & mask
    words[2 * slot] = high
    words[2 * slot + 1] = low
    values[slot] = value
  }
  return {
    add([high, low], value) {
      if (++used > 0.96 * (mask + 1)) {
        const [oldWords, oldValues] = [words, values]
        mask = 2 * mask + 1
        words = new Uint32Array(2 * (mask + 1))
        values = new Int32Array(mask + 1)
        for (let slot = 0; slot < oldValues.length; slot++)
          if (oldValues[slot] !== 0) put(oldWords[2 * slot], oldWords[2 * slot + 1], oldValues[slot])
        release(oldWords, oldValues)
      }
      put(high, low, value + 1)
    },
    find([high, low], is) {
      for (let slot = low & mask; values[slot] !== 0; slot = (slot + 1) & mask)
        if (words[2 * slot] === high && words[2 * slot + 1] === low && is(values[slot] - 1)) return values[slot] - 1
      return -1
    },
    clear() {
      release(words, values)
      mask = 0
      words = new Uint32Array(2)
      values = new Int32Array(1)
      used = 0
    },
  }
}

/** Where in the journal each unit is told of. A unit is a small number, in the order of reservation. */
export interface UnitTable {
  count: number
  add(): number
  /** Byte offset of the `reserved` line; −1 while it is not on the medium. */
  reservedAt(unit: number): number
  issuedAt(unit: number): number
  setReserved(unit: number, offset: number): void
  setIssued(unit: number, offset: number): void
  state(unit: number): number
  setState(unit: number, state: number): void
  /** Gives the memory back: no unit may be asked for afterwards. `tally` stays. */
  clear(): void
  /** Units by state. */
  tally: [reserved: number, issued: number, good: number, scrapped: number]
}

export function unitTable(): UnitTable {
  let room = 1024
  let reserved = new Float64Array(room)
  let issued = new Float64Array(room)
  let states = new Uint8Array(room)
  const table: UnitTable = {
    count: 0,
    tally: [0, 0, 0, 0],
    add() {
      if (table.count === room) {
        // By half rather than by two: a million units then leave less unused.
        room = Math.ceil(room * 1.5)
        const grown = <T extends Float64Array<ArrayBuffer> | Uint8Array<ArrayBuffer>>(made: T, old: T): T => {
          made.set(old)
          release(old)
          return made
        }
        reserved = grown(new Float64Array(room), reserved)
        issued = grown(new Float64Array(room), issued)
        states = grown(new Uint8Array(room), states)
      }
      reserved[table.count] = -1
      issued[table.count] = -1
      table.tally[RESERVED]++
      return table.count++
    },
    reservedAt: unit => reserved[unit],
    issuedAt: unit => issued[unit],
    setReserved(unit, offset) {
      reserved[unit] = offset
    },
    setIssued(unit, offset) {
      issued[unit] = offset
    },
    state: unit => states[unit],
    setState(unit, state) {
      table.tally[states[unit] as 0]--
      table.tally[state as 0]++
      states[unit] = state
    },
    clear() {
      release(reserved, issued, states)
      table.count = 0
    },
  }
  return table
}
