// Every failure of the core and the agent: one literal code each, so that callers and tests never match on prose.
// What to do about a code (retry? which next step?) is said by the port, where the words cost no flash.

export type DeviceErrorCode =
  | 'der_malformed'
  | 'der_limit'
  | 'certificate_malformed'
  | 'certificate_unsupported'
  | 'csr_malformed'
  | 'csr_unsupported'
  | 'cms_malformed'
  | 'base64_malformed'
  | 'cbor_malformed'
  | 'cose_malformed'
  | 'cose_signature'
  | 'path_no_anchor'
  | 'path_signature'
  | 'path_expired'
  | 'path_not_yet_valid'
  | 'path_not_ca'
  | 'path_length'
  | 'path_key_usage'
  | 'path_name_constraint'
  | 'path_critical_extension'
  | 'path_algorithm'
  | 'path_budget'
  | 'path_time_untrusted'
  | 'birth_not_idevid'
  | 'birth_key_mismatch'
  | 'est_unauthorized'
  | 'est_refused'
  | 'est_pending'
  | 'est_unavailable'
  | 'est_response_malformed'
  | 'est_certificate_mismatch'
  | 'network'
  | 'server_untrusted'
  | 'timeout'
  | 'aborted'
  | 'store_read'
  | 'store_write'
  | 'key_unavailable'
  | 'random_unavailable'
  | 'identity_missing'
  | 'identity_expired'
  | 'revoked'
  | 'quarantined'
  | 'time_rejected'
  | 'notice_rejected'
  | 'internal'

/** An Error with a `code`. A plain object shape, since `extends Error` does not run on every engine. */
export interface DeviceError extends Error {
  code: DeviceErrorCode
  /** With `est_pending` and `est_unavailable`: what the server asked for, 1 … 86,400. */
  retryAfterSeconds?: number | undefined
}

/** `detail`: for people; absent where it was left out to save flash. */
export function deviceError(code: DeviceErrorCode, detail?: string): DeviceError {
  const error = new Error(detail ? code + ': ' + detail : code) as DeviceError
  error.code = code
  return error
}

export function fail(code: DeviceErrorCode, detail: string): never {
  throw deviceError(code, detail)
}

/** The code of anything thrown; null for what this SDK did not throw. */
export function codeOf(error: unknown): DeviceErrorCode | null {
  const code = error && typeof error === 'object' ? (error as DeviceError).code : null
  return typeof code === 'string' ? code : null
}
