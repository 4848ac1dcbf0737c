// Serial numbers. A serial is spent once its intent is recorded, even if signing then fails: a gap is harmless, a reused serial makes
// revocation ambiguous. The store's unique index is what says whether a serial is new; this file makes a repeat improbable.

import type { Bytes } from '@birthmark/device-sdk/core'
import type { Clock, RandomBytes } from '../ports.ts'

const randomOctets = 10
/** Serials that one draw serves: asking the source costs as much as the rest of a serial ten times over. */
const serialsPerDraw = 64

/**
 * Makes serials of 16 octets: 6 of time in milliseconds, so that new rows land at the end of the index, then 80 bits from the CSPRNG (CA/Browser
 * Forum Baseline Requirements 7.1 ask for 64). The two top bits are 01: positive and minimal in DER, within RFC 5280's 20 octets, of one length.
 */
export function serialSource(clock: Clock, random: RandomBytes): () => Bytes {
  let drawn: Bytes = new Uint8Array()
  let used = 0
  return () => {
    if (used === drawn.length) {
      drawn = random(randomOctets * serialsPerDraw)
      used = 0
    }
    const serial = new Uint8Array(16)
    // 2^46 ms reach the year 4199; above that the prefix would start over, and a serial still be unique by its random part.
    let milliseconds = Math.floor(clock.now() * 1000) % 2 ** 46
    for (let i = 5; i >= 0; i--) {
      serial[i] = milliseconds % 256
      milliseconds = Math.floor(milliseconds / 256)
    }
    serial[0] |= 0x40
    serial.set(drawn.subarray(used, used + randomOctets), 6)
    used += randomOctets
    return serial
  }
}
