// Failures of this package: one class with a literal code. A notice that is refused is an expected outcome and not among them.

import type { NoticeProblem } from './notice.ts'

export type RevocationErrorCode =
  | NoticeProblem
  /** A value handed in can't be put into a notice, or a certificate, key or address of the configuration is unusable. */
  | 'configuration_invalid'
  /** The saved state of a receiver is damaged or another fleet's. Restore it or begin anew by deleting it; nothing is trusted meanwhile. */
  | 'state_malformed'
  | 'state_not_saved'
  | 'rules_limit'
  | 'bus_failed'
  | 'bus_closed'
  /** The server did not give an object that was asked for: try again later. */
  | 'pull_failed'
  /** The external broker refused a command of its dynamic security plugin. */
  | 'enforcement_refused'

export class RevocationError extends Error {
  readonly code: RevocationErrorCode

  constructor(code: RevocationErrorCode, detail: string, cause?: unknown) {
    super(`${code}: ${detail}`, cause === undefined ? undefined : { cause })
    this.name = 'RevocationError'
    this.code = code
  }
}
