// The fleet extension of an operational certificate (LDevID): the facts by which a group rule revokes it. Private and non-critical, so
// that a relying party that never heard of us still accepts the certificate.

import { type Bytes, utf8Bytes, utf8Text } from './bytes.ts'
import { type Certificate, extensionOf } from './certificate.ts'
import {
  contentOf,
  encodeElement,
  encodeInteger,
  encodeOid,
  encodeSequence,
  expectTag,
  OCTET_STRING,
  partsOf,
  SEQUENCE,
  smallInteger,
  UTF8_STRING,
  wholeParts,
} from './der.ts'
import { fail } from './errors.ts'

/** 2.25.188379731: private, and short enough for readers that hold an arc in 31 bits (docs/decisions/short-oids.md). */
export const FLEET_EXTENSION = '69d9e9e453'

export const groupsMax = 8
const idMax = 0x7fffffff

/** `idx`: the fleet's issuance counter, 0 to 2^31 − 1. `gids`: at most 8 groups, 1 to 2^31 − 1, strictly ascending. */
export interface Membership {
  /** 1 to 32 of a-z, 0-9 and hyphen. */
  fleet: string
  idx: number
  gids: number[]
}

function isMembership(membership: Membership): boolean {
  const gids = membership.gids
  let last = 0
  for (let i = 0; i < gids.length; i++) {
    if (gids[i] <= last || (gids[i] & idMax) !== gids[i]) return false
    last = gids[i]
  }
  const fleet = membership.fleet
  return gids.length <= groupsMax && (membership.idx & idMax) === membership.idx && fleet.length <= 32 && /^[a-z0-9-]+$/.test(fleet)
}

/** The whole DER Extension. Throws `certificate_malformed` for a membership outside its bounds. */
export function encodeFleetExtension(membership: Membership): Bytes {
  if (!isMembership(membership)) fail('certificate_malformed', 'membership')
  return encodeSequence([
    encodeOid(FLEET_EXTENSION),
    encodeElement(OCTET_STRING, [
      encodeSequence([
        encodeElement(UTF8_STRING, [utf8Bytes(membership.fleet)]),
        encodeInteger(membership.idx),
        encodeSequence(membership.gids.map(encodeInteger)),
      ]),
    ]),
  ])
}

/** The membership in a certificate, null when there is none. Believe it only after the certificate's path was validated. */
export function membershipOf(certificate: Certificate): Membership | null {
  const extension = extensionOf(certificate, FLEET_EXTENSION)
  if (!extension) return null
  const parts = wholeParts(extension.value, 3, 3)
  const out = {
    fleet: utf8Text(contentOf(expectTag(parts[0], UTF8_STRING))) || '',
    idx: smallInteger(parts[1]),
    gids: partsOf(parts[2], SEQUENCE, 0, groupsMax).map(smallInteger),
  }
  return isMembership(out) ? out : fail('certificate_malformed', 'membership')
}
