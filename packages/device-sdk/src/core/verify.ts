// The one thing the core borrows: a check of a signature, by whatever the engine has for it.

import type { Bytes } from './bytes.ts'

/** `algorithm`: a name such as `ecdsa-sha256`, from algorithm.ts. */
export interface Verify {
  /** `spki`: DER SubjectPublicKeyInfo. `message`: the bytes that were signed (not their hash). `signature`: as X.509 carries it. */
  verify(spki: Bytes, algorithm: string, message: Bytes, signature: Bytes, done: (good: boolean) => void): void
}
