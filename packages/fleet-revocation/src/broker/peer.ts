// Who is on the other end of a TLS connection: a device by its operational certificate, or a service by name. TLS has proven possession
// of the leaf's key; path, purpose, name and fleet are judged here by our own validator. Status (revoked or not) is asked elsewhere.

import {
  type Bytes,
  type Certificate,
  COMMON_NAME,
  defaultAlgorithms,
  type Membership,
  membershipOf,
  nameAttribute,
  parseCertificate,
  type TrustAnchor,
  validatePath,
} from '@birthmark/device-sdk/core'
import type { NoticeVerify } from '../signed.ts'

/** `publisher` writes notices; `relying-party` reads them and acknowledges; `observer` reads devices; `operator` also commands them. */
export type ServiceRole = 'publisher' | 'relying-party' | 'observer' | 'operator'

export type Peer =
  | { kind: 'device'; id: string; membership: Membership; issuerKeyId: Bytes | null; notAfter: number }
  | { kind: 'service'; id: string; role: ServiceRole; notAfter: number }

export interface PeerRules {
  deviceAnchors: TrustAnchor[]
  serviceAnchors: TrustAnchor[]
  services: { [commonName: string]: ServiceRole }
  verify: NoticeVerify
}

const CLIENT_AUTH = '2b06010505070302' // 1.3.6.1.5.5.7.3.2
/** 802.1AR serial numbers as this project issues them; no `/`, `+` or `#`, so that an id is one topic level. */
export const deviceIdForm = /^[A-Za-z0-9._:-]{1,64}$/
// Leaf, issuing CA, and room for a cross-certificate or two.
const chainMax = 8

function pathTo(
  anchors: TrustAnchor[],
  leaf: Certificate,
  others: Certificate[],
  time: number,
  verify: NoticeVerify,
): string | null {
  // `nodeVerify` answers at once, and validatePath then too.
  let problem: string | null = 'path_no_anchor'
  validatePath(
    leaf,
    others,
    { anchors, time, algorithms: defaultAlgorithms, purpose: CLIENT_AUTH, understoodCritical: [], depthMax: 4, signaturesMax: 16 },
    verify,
    error => {
      problem = error ? error.code : null
    },
  )
  return problem
}

/** `chain`: DER, leaf first, as the peer sent it. `time`: seconds since 1970. A string says why the peer is nobody. */
export function identifyPeer(chain: Bytes[], rules: PeerRules, time: number): Peer | string {
  if (chain.length === 0) return 'no certificate'
  if (chain.length > chainMax) return `${chain.length} certificates`
  let leaf: Certificate
  let others: Certificate[]
  let membership: Membership | null
  try {
    leaf = parseCertificate(chain[0])
    others = chain.slice(1).map(parseCertificate)
    membership = membershipOf(leaf)
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
  const id = nameAttribute(leaf.subject, COMMON_NAME) ?? ''
  const role = Object.hasOwn(rules.services, id) ? rules.services[id] : null
  const deviceProblem = pathTo(rules.deviceAnchors, leaf, others, time, rules.verify)
  if (deviceProblem === null) {
    if (!deviceIdForm.test(id)) return 'the common name is no device id'
    // A device that is called like a service could take over its session.
    if (role) return `the name ${id} belongs to a service`
    if (!membership) return 'no fleet extension'
    return { kind: 'device', id, membership, issuerKeyId: leaf.authorityKeyId, notAfter: leaf.notAfter }
  }
  const serviceProblem = pathTo(rules.serviceAnchors, leaf, others, time, rules.verify)
  if (serviceProblem !== null) return serviceProblem === 'path_no_anchor' ? deviceProblem : serviceProblem
  return role ? { kind: 'service', id, role, notAfter: leaf.notAfter } : `no service is called ${JSON.stringify(id.slice(0, 64))}`
}
