// Failures, as opposed to decisions: one class with a literal code. What a caller may do next hangs on the code alone.

export type EstServerErrorCode =
  /** The write did not happen. It may be tried again as it is. */
  | 'store_failed'
  /** The write may or may not have happened. Read before trying again. */
  | 'store_unknown'
  /** The bounded queue is full: nothing was tried. */
  | 'store_busy'
  /** The store stopped after a disk error, or was closed: nothing was tried, nothing will be until it is opened anew. */
  | 'store_closed'
  /** The file is not one of ours, is of a newer version, or is damaged. */
  | 'store_unusable'
  | 'issuer_unusable'
  | 'issuer_failed'
  | 'lint_failed'
  | 'signature_wrong'
  | 'clock_regressed'
  | 'permit_spent'
  | 'profile_invalid'
  | 'manifest_invalid'
  /** A secret was asked for a device that is not in every group named. */
  | 'group_not_joined'
  | 'group_unknown'
  /** Nothing waits under this id. */
  | 'approval_unknown'
  /** Members of the group hold live certificates that do not name it. */
  | 'group_not_covered'
  | 'revocation_contended'
  /** It takes more notices than one revocation may. */
  | 'revocation_too_large'
  | 'device_unknown'
  /** No certificate has this idx. */
  | 'idx_unknown'
  /** The issuer signs now, or will next. */
  | 'issuer_signs'
  | 'roll_over_refused'
  /** A selector that cannot be read; the message names the character. */
  | 'selector_invalid'
  | 'campaign_unknown'
  /** The campaign is past what was asked for, or has not come to it. */
  | 'campaign_refused'
  /** It could be undone for too short a time, or too long. */
  | 'window_refused'
  | 'selection_empty'
  | 'plan_changed'
  | 'approval_refused'

export class EstServerError extends Error {
  readonly code: EstServerErrorCode

  constructor(code: EstServerErrorCode, detail: string, cause?: unknown) {
    super(`${code}: ${detail}`, cause === undefined ? undefined : { cause })
    this.name = 'EstServerError'
    this.code = code
  }
}

/** The code of one of our own failures; null for anything else. */
export function failureCode(error: unknown): EstServerErrorCode | null {
  return error instanceof EstServerError ? error.code : null
}
