// From the certificate that TLS has proven to what revocation needs to know about its holder. For APIs and gateways, where a device is
// whoever an issuing CA of ours says; services, names and topics are the broker's.

import type { TLSSocket } from 'node:tls'
import { anchorOf, type Bytes, type Membership, parseCertificate } from '@birthmark/device-sdk/core'
import { identifyPeer, type Peer, type PeerRules } from '../broker/peer.ts'
import { chainOf } from '../broker/tls-chain.ts'
import { RevocationError } from '../errors.ts'
import { nodeVerify } from '../verify.ts'

export type DevicePeer = Extract<Peer, { kind: 'device' }>

/** Tells who is at the other end of a TLS connection; a string says why nobody is. */
export type IdentifyDevice = (socket: TLSSocket, time: number) => DevicePeer | string

/** What revocation knows about a certificate: a relying party's `status`, or that of any rule set. */
export type CertificateStatus<S extends string = string> = (membership: Membership, issuerKeyId: Bytes | null) => S

/** `issuers`: DER of the CAs that sign operational certificates. Throws `configuration_invalid` for what is no certificate. */
export function deviceIdentifier(issuers: Bytes[], fleet: string): IdentifyDevice {
  let rules: PeerRules
  try {
    const deviceAnchors = issuers.map(der => anchorOf(parseCertificate(der)))
    rules = { deviceAnchors, serviceAnchors: [], services: {}, verify: nodeVerify() }
  } catch (error) {
    throw new RevocationError('configuration_invalid', 'an issuer of devices is no certificate', error)
  }
  return (socket, time) => {
    const peer = identifyPeer(chainOf(socket), rules, time)
    if (typeof peer === 'string') return peer
    if (peer.kind !== 'device') return 'no device'
    return peer.membership.fleet === fleet ? peer : `a device of fleet ${peer.membership.fleet}`
  }
}
