// The last look at a certificate before it is signed: the bytes are read back by the strict parser that devices use, and every field is held
// against what was meant. No code that wrote them is used to judge them: one error has to be made twice to pass.

import {
  AUTHORITY_KEY_ID,
  attributesOf,
  BASIC_CONSTRAINTS,
  type Bytes,
  type Certificate,
  COMMON_NAME,
  DIGITAL_SIGNATURE,
  EXTENDED_KEY_USAGE,
  encodeBits,
  encodeSequence,
  equalBytes,
  FLEET_EXTENSION,
  KEY_USAGE,
  membershipOf,
  parseCertificate,
  readWhole,
  SEQUENCE,
  SERIAL_NUMBER,
  SUBJECT_ALT_NAME,
  SUBJECT_KEY_ID,
  signatureAlgorithmIdentifier,
  stringOf,
} from '@birthmark/device-sdk/core'
import { sha256 } from '../node-crypto.ts'
import { type CertificateDetails, CLIENT_AUTH } from './certificate-template.ts'
import type { Issuer } from './issuer-key.ts'

/** A rule of an operator's own: what is wrong, or null. */
export type Lint = (certificate: Certificate, details: CertificateDetails) => string | null

// Criticality of each extension that may be there; RFC 5280 4.2.1 and DESIGN 3.
const critical: Record<string, boolean> = {
  [BASIC_CONSTRAINTS]: true,
  [KEY_USAGE]: true,
  [EXTENDED_KEY_USAGE]: false,
  [AUTHORITY_KEY_ID]: false,
  [SUBJECT_KEY_ID]: false,
  [SUBJECT_ALT_NAME]: false,
  [FLEET_EXTENSION]: false,
}

/** What is wrong with what is about to be signed, or null. One zero octet stands in for the signature that is not yet there. */
export function lint(tbs: Bytes, details: CertificateDetails, issuer: Issuer, more: readonly Lint[]): string | null {
  let c: Certificate
  try {
    c = parseCertificate(encodeSequence([tbs, signatureAlgorithmIdentifier(issuer.algorithm), encodeBits(new Uint8Array(1))]))
    if (c.serial.length !== 16 || !equalBytes(c.serial, details.serial)) return 'serial'
    if (!equalBytes(c.issuer, issuer.certificate.subject)) return 'issuer'
    const names = attributesOf(readWhole(c.subject, SEQUENCE)).map(a => `${a.oid}=${stringOf(a.value)}`)
    if (names.join() !== `${COMMON_NAME}=${details.deviceId},${SERIAL_NUMBER}=${details.deviceId}`) return 'subject'
    if (!equalBytes(c.spki, details.spki)) return 'public key'
    if (c.notBefore !== details.notBefore || c.notAfter !== details.notAfter || c.notBefore >= c.notAfter) return 'validity'
    if (c.notAfter > issuer.certificate.notAfter) return 'validity beyond the issuer'
    if (c.isCa || c.pathLength !== -1) return 'basic constraints'
    if (c.keyUsage !== DIGITAL_SIGNATURE) return 'key usage'
    if (c.extendedKeyUsage === null || c.extendedKeyUsage.length !== 1 || c.extendedKeyUsage[0] !== CLIENT_AUTH)
      return 'extended key usage'
    if (c.subjectKeyId === null || !equalBytes(c.subjectKeyId, sha256(c.spki).subarray(0, 20))) return 'subject key identifier'
    if (c.authorityKeyId === null || !equalBytes(c.authorityKeyId, issuer.keyId)) return 'authority key identifier'
    for (const extension of c.extensions) if (critical[extension.oid] !== extension.critical) return `extension ${extension.oid}`
    const uris = c.subjectAltNames.map(name => (name.tag === 6 ? Buffer.from(name.value).toString('latin1') : null))
    if (uris.length > 1 || (uris[0] ?? null) !== details.uri) return 'alternative name'
    const m = membershipOf(c)
    const { fleet, idx, gids } = details.membership
    if (
      m === null ||
      m.fleet !== fleet ||
      m.idx !== idx ||
      m.gids.length !== gids.length ||
      m.gids.some((gid, i) => gid !== gids[i])
    )
      return 'fleet extension'
  } catch (error) {
    return (error as Error).message
  }
  for (const rule of more) {
    const wrong = rule(c, details)
    if (wrong !== null) return wrong
  }
  return null
}
