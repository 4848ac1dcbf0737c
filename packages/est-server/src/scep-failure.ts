// What a refusal looks like in SCEP: the one table from code to failInfo (RFC 8894 3.2.1.4). A code without a row does not compile. Whatever is
// wrong inside the envelope is badRequest and says no more: which of a wrong key, bent bytes, a CSR that does not verify and a wrong challenge it
// was is for the log (FAULTS 33). badMessageCheck is for the certificate that signed the message, which everybody sees anyway.

import { codeOf } from '@birthmark/device-sdk/core'
import { failureCode } from './errors.ts'
import type { Log } from './ports.ts'
import type { RefusalCode } from './registrar/refusal.ts'
import { CmsError } from './wire/cms-error.ts'
import type { FailInfo } from './wire/scep.ts'

/** Ends a request with a signed failure. `text`: for whoever may know; null says nothing. */
export class ScepFailure extends Error {
  readonly failInfo: FailInfo
  readonly code: RefusalCode | ''
  readonly text: string | null

  constructor(failInfo: FailInfo, detail: string, text: string | null = detail, code: RefusalCode | '' = '') {
    super(detail)
    this.failInfo = failInfo
    this.code = code
    this.text = text
  }
}

/** Anything thrown on the way, as a failure to be signed. */
export function failureOf(error: unknown, requestId: string, log: Log): ScepFailure {
  if (error instanceof ScepFailure) return error
  if (error instanceof CmsError) return new ScepFailure(error.code === 'cms_algorithm' ? 'badAlg' : 'badRequest', error.message)
  if (codeOf(error) !== null) return new ScepFailure('badRequest', (error as Error).message)
  log.error({ requestId, code: failureCode(error), err: error }, 'SCEP: could not answer')
  return new ScepFailure('badRequest', 'the server cannot answer now; try again later', undefined, 'internal')
}

const table: Record<RefusalCode, FailInfo> = {
  credentials_required: 'badRequest',
  certificate_malformed: 'badMessageCheck',
  certificate_untrusted: 'badMessageCheck',
  certificate_expired: 'badMessageCheck',
  certificate_not_birth: 'badMessageCheck',
  certificate_unknown: 'badMessageCheck',
  secret_refused: 'badRequest',
  secret_expired: 'badRequest',
  secret_used: 'badRequest',
  token_refused: 'badRequest',
  token_expired: 'badRequest',
  proof_refused: 'badRequest',
  gateway_not_admitted: 'badRequest',
  token_used: 'badRequest',
  device_unknown: 'badRequest',
  device_key_mismatch: 'badRequest',
  device_id_not_allowed: 'badRequest',
  device_revoked: 'badRequest',
  device_quarantined: 'badRequest',
  group_revoked: 'badRequest',
  status_unknown: 'badRequest',
  operation_unknown: 'badRequest',
  label_unknown: 'badRequest',
  secret_not_allowed: 'badRequest',
  token_not_allowed: 'badRequest',
  webhook_refused: 'badRequest',
  birth_certificate_on_reenroll: 'badMessageCheck',
  operational_certificate_required: 'badMessageCheck',
  certificate_superseded: 'badMessageCheck',
  clone_suspected: 'badRequest',
  birth_not_admitted: 'badRequest',
  certificate_of_other_profile: 'badMessageCheck',
  issuer_not_admitted: 'badMessageCheck',
  renewal_too_early: 'badTime',
  enrolling_again_not_allowed: 'badRequest',
  name_not_possible: 'badRequest',
  approval_denied: 'badRequest',
  subject_not_own: 'badRequest',
  subject_changed: 'badRequest',
  subject_alt_name_not_allowed: 'badRequest',
  ca_not_allowed: 'badRequest',
  key_usage_not_allowed: 'badRequest',
  extended_key_usage_not_allowed: 'badRequest',
  extension_not_allowed: 'badRequest',
  key_is_birth_key: 'badRequest',
  key_is_ca_key: 'badRequest',
  key_of_another_device: 'badRequest',
  key_revoked: 'badRequest',
  channel_binding_mismatch: 'badRequest',
  channel_binding_required: 'badRequest',
  server_keys_not_allowed: 'badRequest',
  scep_not_allowed: 'badRequest',
  csr_malformed: 'badRequest',
  csr_signature: 'badRequest',
  key_unsupported: 'badAlg',
  key_weak: 'badAlg',
  key_recipient_unusable: 'badRequest',
  transaction_conflict: 'badRequest',
  busy: 'badRequest',
  store_unavailable: 'badRequest',
  webhook_unavailable: 'badRequest',
  token_keys_unavailable: 'badRequest',
  issuer_unavailable: 'badRequest',
  clock_regressed: 'badTime',
  profiles_superseded: 'badRequest',
  certificates_too_often: 'badRequest',
  serial_conflict: 'badRequest',
  lint_failed: 'badRequest',
  signature_wrong: 'badRequest',
  internal: 'badRequest',
}

export function failInfoOf(code: RefusalCode): FailInfo {
  return table[code]
}
