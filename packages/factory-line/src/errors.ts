// Every refusal and failure of the line, one literal code each. A refusal leaves the journal as it was.

export type FactoryErrorCode =
  | 'csr_malformed'
  | 'csr_signature'
  | 'key_refused'
  | 'serial_malformed'
  | 'group_malformed'
  | 'serial_taken'
  | 'key_taken'
  | 'serial_unknown'
  | 'not_in_order'
  | 'order_malformed'
  | 'order_unreadable'
  | 'wrong_sku'
  | 'wrong_station'
  | 'quota_spent'
  | 'window_closed'
  | 'clock_back'
  | 'mandate_malformed'
  | 'readback_mismatch'
  | 'image_too_large'
  | 'device_silent'
  | 'line_unaccounted'
  | 'journal_forked'
  | 'journal_busy'
  | 'journal_corrupt'
  | 'journal_write'
  | 'signature_bad'
  | 'authority_missing'
  | 'authority_exists'
  | 'authority_mismatch'
  | 'manifest_malformed'
  | 'manifest_untrusted'
  | 'manifest_signature'
  | 'handover_malformed'
  | 'handover_signature'
  | 'handover_order'
  | 'handover_refused'

export class FactoryError extends Error {
  readonly code: FactoryErrorCode

  constructor(code: FactoryErrorCode, detail: string, cause?: unknown) {
    super(detail, cause === undefined ? undefined : { cause })
    this.name = 'FactoryError'
    this.code = code
  }
}
