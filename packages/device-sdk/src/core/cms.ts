// Certs-only CMS (RFC 5652 5.2, "degenerate" SignedData), the body of EST's cacerts and enroll answers. Nothing in it is signed, so
// what comes out is a bag of certificates that nobody vouches for yet.

import { type Bytes, bytesOfHex } from './bytes.ts'
import {
  childrenOf,
  contentOf,
  encodeElement,
  encodeInteger,
  encodeSequence,
  encodingOf,
  expectTag,
  OBJECT_IDENTIFIER,
  oidValue,
  readWhole,
  SEQUENCE,
  SET,
  smallInteger,
} from './der.ts'
import { fail } from './errors.ts'

/** A roll-over answer holds two roots, two links and the intermediates; 32 leaves room for several issuers. */
export const cmsCertificatesMax = 32

const SIGNED_DATA = '2a864886f70d010702' // 1.2.840.113549.1.7.2
const DATA = '2a864886f70d010701' // 1.2.840.113549.1.7.1

/**
 * The DER certificates of a certs-only message, as views, unparsed, in the order received. CRLs are tolerated and left out; a signer,
 * content, or a certificate of another kind throws `cms_malformed`.
 */
export function parseCertsOnly(der: Bytes): Bytes[] {
  const info = childrenOf(readWhole(der, SEQUENCE), 2)
  if (oidValue(info[0]) !== SIGNED_DATA) fail('cms_malformed', 'not SignedData')
  const fields = childrenOf(readWhole(contentOf(expectTag(info[1], 0xa0)), SEQUENCE), 6)
  smallInteger(fields[0])
  childrenOf(expectTag(fields[1], SET), cmsCertificatesMax)
  const content = childrenOf(expectTag(fields[2], SEQUENCE), 2)
  if (content.length !== 1 || oidValue(content[0]) !== DATA) fail('cms_malformed', 'has content')
  const out: Bytes[] = []
  let at = 3
  if (at < fields.length && fields[at].tag === 0xa0) {
    const items = childrenOf(fields[at++], cmsCertificatesMax)
    for (let i = 0; i < items.length; i++) out.push(encodingOf(expectTag(items[i], SEQUENCE)))
  }
  if (at < fields.length && fields[at].tag === 0xa1) at++
  if (contentOf(expectTag(fields[at], SET)).length) fail('cms_malformed', 'has a signer')
  if (at + 1 !== fields.length) fail('cms_malformed', 'fields')
  return out
}

/**
 * A certs-only message of DER certificates. They keep the given order, issued certificate first, because small clients take the first one;
 * RFC 5652 asks for DER's sorted SETs only where something is signed.
 */
export function encodeCertsOnly(certificates: Bytes[]): Bytes {
  return encodeSequence([
    encodeElement(OBJECT_IDENTIFIER, [bytesOfHex(SIGNED_DATA)]),
    encodeElement(0xa0, [
      encodeSequence([
        encodeInteger(1),
        encodeElement(SET, []),
        encodeSequence([encodeElement(OBJECT_IDENTIFIER, [bytesOfHex(DATA)])]),
        encodeElement(0xa0, certificates),
        encodeElement(SET, []),
      ]),
    ]),
  ])
}
