// What can be wrong with a CMS message that is well formed as far as DER goes, or is not even that.

export type CmsErrorCode =
  /** Not the structure that RFC 5652 draws, or larger or deeper than any client's. */
  | 'cms_malformed'
  /** An algorithm that is unknown, or known and refused: DES, MD5, SHA-1. */
  | 'cms_algorithm'
  /** Other than one signer. */
  | 'cms_signers'
  /** Other than one recipient. */
  | 'cms_recipients'

export class CmsError extends Error {
  readonly code: CmsErrorCode

  constructor(code: CmsErrorCode, detail: string) {
    super(`${code}: ${detail}`)
    this.name = 'CmsError'
    this.code = code
  }
}
