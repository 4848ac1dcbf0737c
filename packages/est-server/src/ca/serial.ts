// Serial numbers. A serial is spent once its intent is recorded, even if signing then fails: a gap is harmless, a reused serial makes
// revocation ambiguous. The store's unique index is what says whether a serial is new; this file makes a repeat improbable.

import type { Bytes } from '@birthmark/device-sdk/core'
import type { Clock, RandomBytes } from '../ports.ts'

/**
 * 16 octets: 6 of time in milliseconds, so that new rows land at the end of the index, then 80 bits from the CSPRNG (CA/Browser Forum
 * Baseline Requirements 7.1 ask for 64). The two top bits are 01: positive and minimal in DER, within RFC 5280's 20 octets, always of one length.
 */
export function makeSerial(clock: Clock, random: RandomBytes): Bytes {
  const serial = Buffer.alloc(16)
  // 2^46 ms reach the year 4199; above that the prefix would start over, and still be unique by its random part.
  serial.writeUIntBE(Math.floor(clock.now() * 1000) % 2 ** 46, 0, 6)
  serial[0] |= 0x40
  serial.set(random(10), 6)
  return serial
}
