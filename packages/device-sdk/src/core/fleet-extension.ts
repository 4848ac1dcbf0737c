// The fleet extension of an operational certificate (LDevID): the facts by which a group rule revokes it. Private and non-critical, so
// that a relying party that never heard of us still accepts the certificate.

import { type Bytes, bytesOfHex, utf8Bytes, utf8Text } from './bytes.ts'
import { type Certificate, extensionOf } from './certificate.ts'
import {
  childrenOf,
  contentOf,
  encodeElement,
  encodeInteger,
  encodeSequence,
  expectTag,
  OBJECT_IDENTIFIER,
  OCTET_STRING,
  readWhole,
  SEQUENCE,
  smallInteger,
  UTF8_STRING,
} from './der.ts'
import { fail } from './errors.ts'

/** 2.25.40901418635637316715433643824028820534: an arc under 2.25 is a UUID and needs no registration (X.667). */
export const FLEET_EXTENSION = '69bdc5a9e8c2b692b09d98cd898a9988cec836'

export const groupsMax = 8

/** `idx`: the fleet's issuance counter, 0 to 2^31 − 1. `gids`: at most 8 groups, 1 to 2^31 − 1, strictly ascending. */
export interface Membership {
  /** 1 to 32 of a-z, 0-9 and hyphen. */
  fleet: string
  idx: number
  gids: number[]
}

function isFleetName(fleet: string | null): boolean {
  if (!fleet || fleet.length > 32) return false
  for (let i = 0; i < fleet.length; i++) {
    const c = fleet.charCodeAt(i)
    if (c !== 0x2d && (c < 0x30 || c > 0x39) && (c < 0x61 || c > 0x7a)) return false
  }
  return true
}

function areGroups(gids: number[]): boolean {
  let last = 0
  for (let i = 0; i < gids.length; i++) {
    if (!(gids[i] > last && gids[i] <= 0x7fffffff)) return false
    last = gids[i]
  }
  return gids.length <= groupsMax
}

/** The whole DER Extension. Throws `certificate_malformed` for a membership outside its bounds. */
export function encodeFleetExtension(membership: Membership): Bytes {
  const idx = membership.idx
  if (!isFleetName(membership.fleet) || !(idx >= 0 && idx <= 0x7fffffff) || !areGroups(membership.gids))
    fail('certificate_malformed', 'membership')
  return encodeSequence([
    encodeElement(OBJECT_IDENTIFIER, [bytesOfHex(FLEET_EXTENSION)]),
    encodeElement(OCTET_STRING, [
      encodeSequence([
        encodeElement(UTF8_STRING, [utf8Bytes(membership.fleet)]),
        encodeInteger(idx),
        encodeSequence(membership.gids.map(encodeInteger)),
      ]),
    ]),
  ])
}

/** The membership in a certificate, null when there is none. Believe it only after the certificate's path was validated. */
export function membershipOf(certificate: Certificate): Membership | null {
  const extension = extensionOf(certificate, FLEET_EXTENSION)
  if (!extension) return null
  const parts = childrenOf(readWhole(extension.value, SEQUENCE), 3)
  if (parts.length !== 3) fail('certificate_malformed', 'fleet extension')
  const fleet = utf8Text(contentOf(expectTag(parts[0], UTF8_STRING)))
  const gids = childrenOf(expectTag(parts[2], SEQUENCE), groupsMax).map(smallInteger)
  if (!isFleetName(fleet) || !areGroups(gids)) fail('certificate_malformed', 'fleet extension')
  return { fleet: fleet as string, idx: smallInteger(parts[1]), gids: gids }
}
