// Trust anchors (RFC 5280 6.1.1 d): a name and a key that someone decided to believe. Where the anchor came as a certificate, that
// certificate's own limits (validity, path length, usage) bind it too.

import type { Bytes } from './bytes.ts'
import type { Certificate } from './certificate.ts'

export interface TrustAnchor {
  /** DER Name. */
  subject: Bytes
  /** DER SubjectPublicKeyInfo. */
  spki: Bytes
  /** As in Certificate. */
  keyAlgorithm: string
  subjectKeyId: Bytes | null
  certificate: Certificate | null
}

/** The anchor that a parsed certificate stands for. Calling this is the decision to trust it; its own signature says nothing. */
export function anchorOf(certificate: Certificate): TrustAnchor {
  return {
    subject: certificate.subject,
    spki: certificate.spki,
    keyAlgorithm: certificate.keyAlgorithm,
    subjectKeyId: certificate.subjectKeyId,
    certificate: certificate,
  }
}
