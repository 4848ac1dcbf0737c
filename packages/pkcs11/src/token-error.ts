// What a token did not do: a literal code, a sentence, and what an operator does about it.

import type { Failure, TokenErrorCode } from './protocol.ts'

export class TokenError extends Error {
  readonly code: TokenErrorCode
  readonly next: string

  constructor({ code, detail, next }: Failure) {
    super(`${code}: ${detail}`)
    this.name = 'TokenError'
    this.code = code
    this.next = next
  }
}
