// P-256 public keys in their one DER spelling (RFC 5480 2): for ports whose chips and libraries know a key as a point. The agent does not reach this file.

import { type Bytes, bytesOfHex, concatBytes, hexOf } from './bytes.ts'

/** A SubjectPublicKeyInfo up to its uncompressed point, in hex. */
export const p256SpkiHead = '3059301306072a8648ce3d020106082a8648ce3d030107034200'

/** `point`: uncompressed, 65 octets that begin with 4. Whether it lies on the curve is not looked at. */
export function spkiOfPoint(point: Bytes): Bytes {
  return concatBytes([bytesOfHex(p256SpkiHead), point])
}

/** The uncompressed point; null for any other key, or another spelling. Whether it lies on the curve is not looked at. */
export function pointOfSpki(spki: Bytes): Bytes | null {
  return spki.length === 91 && hexOf(spki).slice(0, 54) === p256SpkiHead + '04' ? spki.subarray(26) : null
}
