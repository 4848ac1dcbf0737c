// Which one-use bearer tokens were spent, and on what.

import type { Bytes } from '@birthmark/device-sdk/core'

export interface SpentToken {
  /** What tells the token from any other. */
  use: Bytes
  fleet: string
  deviceId: string
  /** The request content it is spent on. */
  contentSha256: Bytes
  /** Seconds since 1970; the row may be forgotten after it and a tolerance that the caller adds. */
  expiresAt: number
  at: number
}

export interface TokenStore {
  /**
   * Spends a token on one request content of one device. True: it was unspent, or spent on this very content of this device before, so that
   * a lost answer can be asked for again. False: spent on another; nothing was written. Concurrent calls agree on one winner, and a token
   * stays spent over a restart. Rows past `expiresAt` are dropped by the way, a bounded number a call.
   */
  spendToken(token: SpentToken): Promise<boolean>
}
