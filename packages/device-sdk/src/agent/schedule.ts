// When to come back: renewals spread by a hash that every device can recompute, retries spread by chance. Pure arithmetic; no clock is read.

import { type Bytes, utf8Bytes } from '../core/bytes.ts'
import type { Hash } from './ports.ts'

/** First retry after 10 to 20 s: a server's restart is over by then. */
export const retrySecondsMin = 10
/** Retries that the server did not time come at least about hourly. */
export const retrySecondsMax = 3600

function fraction(bytes: Bytes): number {
  return (bytes[0] + bytes[1] / 256 + bytes[2] / 65536) / 256
}

/**
 * Seconds since 1970 at which to renew: two thirds of the life from `start` to `end`, and up to a sixth of it later, by the hash of device
 * and generation. A fleet enrolled in one minute so renews over a sixth of its certificates' life, and the last sixth is for retries.
 */
export function renewalTime(hash: Hash, deviceId: string, generation: number, start: number, end: number): number {
  return start + Math.floor(((end - start) * (4 + fraction(hash.sha256(utf8Bytes(deviceId + '/' + generation))))) / 6)
}

/**
 * Seconds to wait after the `failures`-th failure in a row (0: the server answered 202). Never before `retryAfterSeconds`, and spread over
 * as long again (`random`: 3 bytes), so that devices told the same Retry-After do not return together.
 */
export function retryDelay(failures: number, retryAfterSeconds: number, random: Bytes): number {
  // Doubled ten times it is more than an hour already; a device years offline has failed more often.
  const backoff = failures ? Math.min(retrySecondsMin << Math.min(failures - 1, 10), retrySecondsMax) : 1
  return Math.max(retryAfterSeconds, backoff) * (1 + fraction(random))
}
