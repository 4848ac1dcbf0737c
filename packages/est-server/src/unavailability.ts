// Where no decision about a device can be made: what went wrong inside, as what the caller is told and when to come back.

import { failureCode } from './errors.ts'
import type { RefusalCode } from './registrar/refusal.ts'

/** Thrown inside the enrollment story and answered as it says. */
export class UnavailableError extends Error {
  readonly code: RefusalCode
  readonly retryAfterSeconds: number

  constructor(code: RefusalCode, retryAfterSeconds: number, detail: string) {
    super(detail)
    this.code = code
    this.retryAfterSeconds = retryAfterSeconds
  }
}

/** Anything thrown, as an answer. What we did not throw ourselves is `internal`, and its words stay in the log. */
export function unavailabilityOf(error: unknown): UnavailableError {
  if (error instanceof UnavailableError) return error
  switch (failureCode(error)) {
    case 'store_busy':
      return new UnavailableError('busy', 2, 'too many writes are waiting')
    case 'store_failed':
    case 'store_unknown':
    case 'store_closed':
      return new UnavailableError('store_unavailable', 10, 'the store does not take records now')
    case 'issuer_failed':
    case 'issuer_unusable':
      return new UnavailableError('issuer_unavailable', 30, 'the issuer key is not available now')
    case 'lint_failed':
      return new UnavailableError('lint_failed', 60, 'the prepared certificate broke a rule and was not signed')
    case 'signature_wrong':
      return new UnavailableError('signature_wrong', 60, 'the issuer key gave a wrong signature, which was discarded')
    default:
      return new UnavailableError('internal', 60, 'an unexpected failure; the log has it under the request id')
  }
}
