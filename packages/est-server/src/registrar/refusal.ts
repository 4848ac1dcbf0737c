// Why a request was not answered with a certificate. One literal code each: the audit log, the HTTP table and the tests speak of these
// and never of prose. What a code means on the wire (status, next step) is said in http/problem.ts, which the compiler keeps complete.

export type RefusalCode =
  // Who is asking could not be established (401).
  | 'credentials_required'
  | 'certificate_malformed'
  | 'certificate_untrusted'
  | 'certificate_expired'
  | 'certificate_not_birth'
  | 'certificate_unknown'
  | 'secret_refused'
  | 'secret_expired'
  | 'secret_used'
  | 'token_refused'
  | 'token_expired'
  | 'token_used'
  | 'proof_refused'
  // Who is asking is known, and may not (403).
  | 'device_unknown'
  | 'device_key_mismatch'
  | 'device_id_not_allowed'
  | 'device_revoked'
  | 'device_quarantined'
  | 'group_revoked'
  | 'status_unknown'
  | 'operation_unknown'
  | 'label_unknown'
  | 'secret_not_allowed'
  | 'token_not_allowed'
  | 'gateway_not_admitted'
  | 'webhook_refused'
  | 'birth_certificate_on_reenroll'
  | 'operational_certificate_required'
  | 'certificate_superseded'
  | 'clone_suspected'
  | 'birth_not_admitted'
  | 'certificate_of_other_profile'
  | 'issuer_not_admitted'
  | 'renewal_too_early'
  | 'enrolling_again_not_allowed'
  | 'name_not_possible'
  | 'approval_denied'
  | 'subject_not_own'
  | 'subject_changed'
  | 'subject_alt_name_not_allowed'
  | 'ca_not_allowed'
  | 'key_usage_not_allowed'
  | 'extended_key_usage_not_allowed'
  | 'extension_not_allowed'
  | 'key_is_birth_key'
  | 'key_is_ca_key'
  | 'key_of_another_device'
  | 'key_revoked'
  | 'channel_binding_mismatch'
  | 'channel_binding_required'
  | 'server_keys_not_allowed'
  | 'scep_not_allowed'
  // The request itself is wrong (400).
  | 'csr_malformed'
  | 'csr_signature'
  | 'key_unsupported'
  | 'key_weak'
  | 'key_recipient_unusable'
  | 'transaction_conflict'
  // The server cannot now (503) or has failed (500).
  | 'busy'
  | 'store_unavailable'
  | 'webhook_unavailable'
  | 'token_keys_unavailable'
  | 'issuer_unavailable'
  | 'clock_regressed'
  | 'profiles_superseded'
  | 'certificates_too_often'
  | 'serial_conflict'
  | 'lint_failed'
  | 'signature_wrong'
  | 'internal'

const unauthenticated: readonly RefusalCode[] = [
  'credentials_required',
  'certificate_malformed',
  'certificate_untrusted',
  'certificate_expired',
  'certificate_not_birth',
  'certificate_unknown',
  'secret_refused',
  'secret_expired',
  'secret_used',
  'token_refused',
  'token_expired',
  'token_used',
  'proof_refused',
]

/** Whether the code says that nobody was recognised, rather than that somebody may not. */
export function isUnauthenticated(code: RefusalCode): boolean {
  return unauthenticated.includes(code)
}

/** A decision against the request: the code, and a sentence that names the culprit and no secret. */
export interface Refusal {
  code: RefusalCode
  detail: string
}

export function refusal(code: RefusalCode, detail: string): Refusal {
  return { code, detail }
}

/** Tells a refusal from what was asked for, where either may come back. */
export function isRefusal(value: object): value is Refusal {
  return 'code' in value
}
