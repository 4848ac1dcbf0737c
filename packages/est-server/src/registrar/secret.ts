// One-time secrets, as the store sees them. A secret is 192 bits from the CSPRNG, never chosen by a person: guessing is hopeless, so a plain
// SHA-256 keeps it as well as scrypt would, and an unauthenticated request cannot make the server spend 50 ms of CPU on a wrong one.

import type { Bytes } from '@birthmark/device-sdk/core'
import { sha256 } from '../node-crypto.ts'

export const secretBytes = 24

/** Basic credentials longer than this are not ours. */
export const credentialCharsMax = 256

/** Fleet and device id are part of what is hashed: a secret of one device is unknown under the name of another. */
export function secretHash(fleet: string, deviceId: string, secret: string): Bytes {
  return sha256(Buffer.from(`birthmark secret\0${fleet}\0${deviceId}\0${secret}`))
}
