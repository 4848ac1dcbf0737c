// Certs-only CMS (RFC 5652 5.2, "degenerate" SignedData), the body of EST's cacerts and enroll answers. Nothing in it is signed, so
// what comes out is a bag of certificates that nobody vouches for yet.

import { type Bytes, hexOf } from './bytes.ts'
import {
  contentOf,
  encodeElement,
  encodeInteger,
  encodeOid,
  encodeSequence,
  encodingOf,
  expectTag,
  INTEGER,
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
/** contentType, encapContentInfo and signerInfos. */
const CERTS_ONLY = '06092a864886f70d010702 300b06092a864886f70d010701 3100'

/**
 * The DER certificates of a certs-only message, as views, unparsed, in the order received. CRLs are tolerated and left out. A signer or
 * content throws `cms_malformed`, a certificate of another kind `der_malformed`.
 */
export function parseCertsOnly(der: Bytes): Bytes[] {
  const info = wholeParts(der, 2, 2)
  const fields = wholeParts(contentOf(expectTag(info[1], 0xa0)), 4, 6)
  const last = fields.length - 1
  const rest = fields.slice(3, last)
  expectTag(fields[0], INTEGER)
  partsOf(fields[1], SET, 0, cmsCertificatesMax)
  const certificates = rest.length && rest[0].tag === 0xa0 ? partsOf(rest.shift(), 0xa0, 0, cmsCertificatesMax) : []
  // SignedData, of no content, with no CRLs or some, and no signers.
  const form = [info[0], fields[2], fields[last]].map(encodingOf).map(hexOf).join(' ')
  if (form !== CERTS_ONLY || rest.length > 1 || (rest.length && rest[0].tag !== 0xa1)) fail('cms_malformed', 'not certs-only')
  return certificates.map(item => encodingOf(expectTag(item, SEQUENCE)))
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
