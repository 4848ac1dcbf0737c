// When a device had best come back for its next certificate. Said with every certificate, so that a fleet that was enrolled in one hour does not
// return in one: the moment is spread by the key, which makes it the same for one certificate whoever answers, and needs no memory.

import type { Bytes } from '@birthmark/device-sdk/core'
import type { EnrollmentProfile } from './registrar/profile.ts'

/** Where renewals begin unless the profile opens its window later. */
const earliest = 2 / 3

/**
 * Seconds from `now`, at least 1. Between two thirds of the life (or the opening of the profile's window, if that is later) and half of what is
 * then left; the other half is for retries. Counted from the issuance and not from notBefore, which is back-dated. `spkiSha256` spreads.
 */
export function renewAfterSeconds(
  { renewal, backdateSeconds }: Pick<EnrollmentProfile, 'renewal' | 'backdateSeconds'>,
  { notBefore, notAfter }: { notBefore: number; notAfter: number },
  spkiSha256: Bytes,
  now: number,
): number {
  const start = Math.min(notBefore + backdateSeconds, notAfter)
  const from = Math.max(earliest, renewal.windowFraction)
  const share = (spkiSha256[0] * 65_536 + spkiSha256[1] * 256 + spkiSha256[2]) / 0x1000000
  const at = start + (notAfter - start) * (from + ((1 - from) / 2) * share)
  return Math.max(1, Math.floor(at - now))
}
