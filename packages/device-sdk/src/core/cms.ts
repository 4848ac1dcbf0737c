// Certs-only CMS (RFC 5652 5.2, "degenerate" SignedData), the body of EST's cacerts and enroll answers. Nothing in it is signed, so
// what comes out is a bag of certificates that nobody vouches for yet.

import type { Bytes } from './bytes.ts'
import {
  contentOf,
  encodeElement,
  encodeInteger,
  encodeOid,
  encodeSequence,
  encodingOf,
  expectTag,
  INTEGER,
  oidValue,
  partsOf,
  SEQUENCE,
  SET,
  wholeParts,
} from './der.ts'
import { fail } from './errors.ts'

/** A roll-over answer holds two roots, two links and the intermediates; 32 leaves room for several issuers. */
export const cmsCertificatesMax = 32

const SIGNED_DATA = '2a864886f70d010702' // 1.2.840.113549.1.7.2
const DATA = '2a864886f70d010701' // 1.2.840.113549.1.7.1

/**
 * The DER certificates of a certs-only message, as views, unparsed, in the order received. CRLs are tolerated and left out. A signer or
 * content throws `cms_malformed`, a certificate of another kind `der_malformed`.
 */
export function parseCertsOnly(der: Bytes): Bytes[] {
  const info = wholeParts(der, 2, 2)
  const fields = wholeParts(contentOf(expectTag(info[1], 0xa0)), 4, 6)
  expectTag(fields[0], INTEGER)
  partsOf(fields[1], SET, 0, cmsCertificatesMax)
  const content = oidValue(partsOf(fields[2], SEQUENCE, 1, 1)[0])
  let at = 3
  let out: Bytes[] = []
  if (fields[at].tag === 0xa0)
    out = partsOf(fields[at++], 0xa0, 0, cmsCertificatesMax).map(item => encodingOf(expectTag(item, SEQUENCE)))
  if (at < fields.length && fields[at].tag === 0xa1) at++
  if (
    oidValue(info[0]) !== SIGNED_DATA ||
    content !== DATA ||
    at + 1 !== fields.length ||
    contentOf(expectTag(fields[at], SET)).length
  )
    fail('cms_malformed', 'not certs-only')
  return out
}

/**
 * A certs-only message of DER certificates. They keep the given order, issued certificate first, because small clients take the first one;
 * RFC 5652 asks for DER's sorted SETs only where something is signed.
 */
export function encodeCertsOnly(certificates: Bytes[]): Bytes {
  return encodeSequence([
    encodeOid(SIGNED_DATA),
    encodeElement(0xa0, [
      encodeSequence([
        encodeInteger(1),
        encodeElement(SET, []),
        encodeSequence([encodeOid(DATA)]),
        encodeElement(0xa0, certificates),
        encodeElement(SET, []),
      ]),
    ]),
  ])
}
