// The names of the rules that decide, and the one place that says which rule a refusal comes from. The refusal on the wire, the audit record
// and `birthmark profile explain` all name the rule by this table; where a profile has a setting for it, the rule is called like the setting.

import type { RefusalCode } from './refusal.ts'

const table = {
  credentials_required: 'credentials',
  certificate_malformed: 'birth.path',
  certificate_untrusted: 'birth.path',
  certificate_not_birth: 'birth.path',
  certificate_expired: 'credentials.validity',
  certificate_unknown: 'operational.record',
  birth_not_admitted: 'birth.pattern',
  secret_refused: 'secret',
  secret_expired: 'secret',
  secret_used: 'secret',
  secret_not_allowed: 'secret',
  token_refused: 'tokens',
  token_expired: 'tokens',
  token_used: 'tokens.oneUse',
  proof_refused: 'gateways',
  gateway_not_admitted: 'gateways',
  token_not_allowed: 'tokens',
  webhook_refused: 'webhook',
  device_unknown: 'manifest',
  device_key_mismatch: 'birth.key',
  device_id_not_allowed: 'device.id',
  device_revoked: 'device.status',
  device_quarantined: 'device.quarantine',
  status_unknown: 'device.status',
  group_revoked: 'device.groups',
  clone_suspected: 'device.clone',
  operation_unknown: 'operation',
  label_unknown: 'label',
  birth_certificate_on_reenroll: 'operation.credential',
  operational_certificate_required: 'operation.credential',
  certificate_superseded: 'renewal.superseded',
  certificate_of_other_profile: 'renewal.labels',
  issuer_not_admitted: 'renewal.issuers',
  renewal_too_early: 'renewal.window',
  subject_changed: 'renewal.name',
  enrolling_again_not_allowed: 'renewal.byEnrolling',
  name_not_possible: 'certificate.template',
  subject_not_own: 'certificate.subject',
  subject_alt_name_not_allowed: 'certificate.names',
  ca_not_allowed: 'certificate.extensions',
  key_usage_not_allowed: 'certificate.extensions',
  extension_not_allowed: 'certificate.extensions',
  extended_key_usage_not_allowed: 'certificate.purposes',
  key_unsupported: 'certificate.keys',
  key_weak: 'key.strength',
  key_is_birth_key: 'key.own',
  key_is_ca_key: 'key.own',
  key_of_another_device: 'key.own',
  key_revoked: 'key.own',
  csr_malformed: 'csr',
  csr_signature: 'possession.csr',
  channel_binding_mismatch: 'possession.channel',
  channel_binding_required: 'possession.channel',
  server_keys_not_allowed: 'serverKeys',
  key_recipient_unusable: 'serverKeys',
  scep_not_allowed: 'scep',
  transaction_conflict: 'scep.transaction',
  approval_denied: 'approval',
  busy: 'server',
  webhook_unavailable: 'webhook',
  token_keys_unavailable: 'tokens',
  store_unavailable: 'server',
  issuer_unavailable: 'server',
  clock_regressed: 'server',
  serial_conflict: 'server',
  lint_failed: 'server',
  signature_wrong: 'server',
  profiles_superseded: 'server',
  certificates_too_often: 'server',
  internal: 'server',
} as const satisfies Record<RefusalCode, string>

export type RuleName = (typeof table)[RefusalCode]

export function ruleOf(code: RefusalCode): RuleName {
  return table[code]
}

/** The detail of a refusal with its rule, as the peer and the record get it. Cut so that the name is always there (http/problem.ts shows 300). */
export function detailWithRule(code: RefusalCode, detail: string): string {
  return `${detail.slice(0, 250)} (rule ${table[code]})`
}
