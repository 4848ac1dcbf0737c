// What the server is lent by whoever composes it, so that a seed replays any failure.

import type { Bytes } from '@birthmark/device-sdk/core'

export interface Clock {
  /** Seconds since 1970-01-01T00:00:00Z; may carry a fraction. */
  now(): number
}

/** For what is done later without anybody asking. */
export interface TimerClock extends Clock {
  /** Calls back once after `seconds`; the returned function cancels. */
  setTimer(seconds: number, callback: () => void): () => void
}

/** `length` bytes from a cryptographic source. Throws where there is none. */
export type RandomBytes = (length: number) => Bytes

/** pino's shape. Fields never hold a secret, a private key or a password. */
export interface Log {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

/** Called at each named step of a story. A test makes it throw, wait, or kill the process. */
export type Failpoint = (name: string) => void | Promise<void>
