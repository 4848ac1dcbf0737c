// Hash and Verify by @noble/hashes and @noble/curves, for engines that have BigInt and no cryptography of their own and for teams that have these libraries
// in their firmware anyway. They are handed in: this package depends on nothing. Verification of public data alone; a device's key belongs into a chip, or
// into code in constant time, which BigInt is not. The P-256 verifier of `./p256-verify` does a twentieth of this in a twentieth of the space.

import type { Hash, Verify } from '../agent/ports.ts'
import { type Bytes, hexOf } from '../core/bytes.ts'
import { ecdsaRawOfDer } from '../core/cose.ts'
import { p256SpkiHead } from '../core/p256-spki.ts'

/** A curve of @noble/curves 1.9 or 2: `p256`, `p384`, `ed25519`. Throws or answers false for what is no signature. */
export interface NobleCurve {
  verify(
    signature: Bytes,
    message: Bytes,
    publicKey: Bytes,
    options: { prehash?: boolean; lowS?: boolean; zip215?: boolean },
  ): boolean
}

export interface NobleParts {
  sha256(message: Bytes): Bytes
  sha384?(message: Bytes): Bytes
  sha512?(message: Bytes): Bytes
  p256: NobleCurve
  p384?: NobleCurve
  ed25519?: NobleCurve
}

/** The one DER spelling of each SubjectPublicKeyInfo up to its key (RFC 5480 2, RFC 8410 4); that of P-256 is the core's. */
const P384 = '3076301006072a8648ce3d020106052b81040022036200'
const ED25519 = '302a300506032b6570032100'

export function nobleHash(parts: Pick<NobleParts, 'sha256'>): Hash {
  return { sha256: bytes => parts.sha256(bytes) }
}

function good(parts: NobleParts, spki: Bytes, algorithm: string, message: Bytes, signature: Bytes): boolean {
  const startsWith = (head: string, length: number) =>
    spki.length === head.length / 2 + length && hexOf(spki.subarray(0, head.length / 2)) === head
  if (algorithm === 'ed25519')
    return (
      startsWith(ED25519, 32) &&
      parts.ed25519 !== undefined &&
      // RFC 8032's own equation, not that of ZIP 215.
      parts.ed25519.verify(signature, message, spki.subarray(12), { zip215: false })
    )
  const hash =
    algorithm === 'ecdsa-sha256'
      ? parts.sha256
      : algorithm === 'ecdsa-sha384'
        ? parts.sha384
        : algorithm === 'ecdsa-sha512'
          ? parts.sha512
          : undefined
  const size = startsWith(p256SpkiHead, 65) ? 32 : startsWith(P384, 97) ? 48 : 0
  const curve = size === 32 ? parts.p256 : size === 48 ? parts.p384 : undefined
  // Uncompressed points alone (RFC 5480 2.2), as everywhere here; X.509 asks for no low s.
  const point = spki.subarray(-(2 * size + 1))
  return (
    hash !== undefined &&
    curve !== undefined &&
    point[0] === 4 &&
    curve.verify(ecdsaRawOfDer(signature, size), hash(message), point, { prehash: false, lowS: false })
  )
}

/**
 * A Verify for ECDSA over P-256 (and P-384) and Ed25519 as far as their parts are given; every other algorithm and key is not good. `done` is called during
 * the call. Not constant-time, and has no need to be.
 */
export function nobleVerify(parts: NobleParts): Verify {
  return {
    verify(spki, algorithm, message, signature, done) {
      let verdict = false
      try {
        verdict = good(parts, spki, algorithm, message, signature)
      } catch {
        // A signature that is no strict DER, a point that is on no curve.
      }
      done(verdict)
    },
  }
}
