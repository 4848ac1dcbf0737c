// SignedData without content or signer (RFC 5652 5.2, "degenerate"): a bag of certificates or of CRLs that nobody vouches for. EST answers with
// it thousands of times a second, for which the core's encodeCertsOnly(), which copies each level into the next, takes ten times as long.

import { type Bytes, encodeInteger, SEQUENCE, SET } from '@birthmark/device-sdk/core'
import { DATA, SIGNED_DATA } from './cms-signed.ts'
import { type DerNode, derNode, encodeDer, oidBytes } from './der-tree.ts'

const version1 = encodeInteger(1)
const none = derNode(SET, [])

function encodeBag(bag: DerNode): Bytes {
  const data = derNode(SEQUENCE, [version1, none, derNode(SEQUENCE, [oidBytes(DATA)]), bag, none])
  return encodeDer(derNode(SEQUENCE, [oidBytes(SIGNED_DATA), derNode(0xa0, [data])]))
}

/** `certificates`: DER, in the order that they shall have. */
export const encodeCertificateBag = (certificates: readonly Bytes[]): Bytes => encodeBag(derNode(0xa0, certificates))

/** RFC 8894 3.4. `crl`: DER. */
export const encodeCrlBag = (crl: Bytes): Bytes => encodeBag(derNode(0xa1, [crl]))
