// Every refusal and failure of the line, one literal code each. A refusal leaves the journal as it was.

export type FactoryErrorCode =
  | 'csr_malformed'
  | 'csr_signature'
  | 'key_refused'
  | 'serial_malformed'
  | 'group_malformed'
  | 'serial_taken'
  | 'key_taken'
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

export class FactoryError extends Error {
  readonly code: FactoryErrorCode

  constructor(code: FactoryErrorCode, detail: string, cause?: unknown) {
    super(detail, cause === undefined ? undefined : { cause })
    this.name = 'FactoryError'
    this.code = code
  }
}
