// SCEP challenges, as the store sees them: one-time secrets that a device shows in its CSR. The token alone is looked up, since the name
// beside it in the CSR is only asked for; the store's record says which device it was minted for. Fleet and label are part of what is hashed,
// so that a challenge of one profile is unknown to another.

import type { Bytes } from '@birthmark/device-sdk/core'
import { sha256 } from '../node-crypto.ts'
import { credentialCharsMax } from './secret.ts'

/** 160 bits: guessing is hopeless. In base32 it is 32 characters, which people copy into a router's console without a mistake. */
export const challengeBytes = 20

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

/** The token to print. `random`: challengeBytes of them. */
export function challengeText(random: Bytes): string {
  let out = ''
  let bits = 0
  let spare = 0
  for (const octet of random) {
    bits = (bits << 8) | octet
    for (spare += 8; spare >= 5; ) {
      spare -= 5
      out += alphabet[(bits >> spare) & 31]
    }
    bits &= (1 << spare) - 1
  }
  return out
}

/** Null for what cannot be a token of ours. */
export function challengeHash(fleet: string, label: string | null, token: string): Bytes | null {
  if (token.length > credentialCharsMax) return null
  return sha256(Buffer.from(`birthmark challenge\0${fleet}\0${label ?? ''}\0${token}`))
}
