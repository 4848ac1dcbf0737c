// A device behind a gateway. Its signature over the request stands for the TLS connection that it cannot open; the gateway's own certificate admits
// the transport and nothing else: what may be had is asked for the device alone, by the rules for everybody.

import { codeOf, type DeviceProof, equalBytes, parseCertificate, parseProof, proofSecondsMax } from '@birthmark/device-sdk/core'
import type { Peer, ShownProof } from './enrollment-request.ts'
import { createVerifier } from './node-crypto.ts'
import type { PeerIdentities } from './peer-identity.ts'
import type { Clock } from './ports.ts'
import type { OperationalIdentity } from './registrar/decide.ts'
import type { EnrollmentProfile } from './registrar/profile.ts'
import { type Refusal, refusal } from './registrar/refusal.ts'
import type { DeviceRecord, Store } from './store/store.ts'

export interface Relays {
  /** The device that signed, as a peer of its own; `via`: whose TLS connection brought it. */
  peerOf(proof: ShownProof, via: Peer, profile: EnrollmentProfile): Promise<Peer | Refusal>
}

export function createRelays(parts: {
  identities: PeerIdentities
  store: Pick<Store, 'enrollmentFacts'>
  groupNames(fleet: string, gids: readonly number[]): Promise<readonly string[]>
  /** Of an operational identity's certificate. */
  status(identity: OperationalIdentity): 'good' | 'revoked' | 'unknown'
  /** Counts carrying as the use of its certificate. */
  noteUse(gateway: OperationalIdentity, device: DeviceRecord, address: string): Promise<unknown>
  clock: Clock
}): Relays {
  const { identities, store, groupNames, status, noteUse, clock } = parts
  const verifier = createVerifier()
  const refused = (detail: string) => refusal('proof_refused', `the device's proof: ${detail}`)

  /** Null when the peer may carry requests of others. */
  async function against(via: Peer, profile: EnrollmentProfile): Promise<string | null> {
    const { gateways, fleet } = profile
    if (gateways === null) return 'this profile admits no gateway'
    const gateway = await identities.operational(via, profile)
    if (gateway === null) return 'the connection shows no operational certificate of this fleet'
    const { idx, spkiSha256 } = gateway.certificate
    const { device } = await store.enrollmentFacts(fleet, gateway.deviceId, spkiSha256, spkiSha256)
    const held = device === null || device.hold !== null || device.revoked || device.suspectedAt !== null
    if (held || status(gateway) !== 'good') return `device ${gateway.deviceId} is revoked or held back`
    if (idx < device.idxFloor)
      return `the certificate of device ${gateway.deviceId} with idx ${idx} was superseded (floor ${device.idxFloor})`
    const groups = await groupNames(fleet, device.gids)
    if (!groups.some(name => gateways.includes(name))) return `device ${gateway.deviceId} is in no group of gateways`
    await noteUse(gateway, device, via.address)
    return null
  }

  function parsed(bytes: Uint8Array): DeviceProof | Refusal {
    try {
      return parseProof(bytes)
    } catch (error) {
      if (codeOf(error) === null) throw error
      return refused((error as Error).message)
    }
  }

  /** What is signed is this request, now, by the key of the certificate that is shown. */
  function judge(shown: ShownProof): DeviceProof | Refusal {
    const proof = parsed(shown.bytes)
    if (!('toBeSigned' in proof)) return proof
    if (proof.path !== shown.path) return refused('it is for another path')
    if (!equalBytes(proof.bodySha256, shown.bodySha256)) return refused('it is for another body')
    if (Math.abs(clock.now() - proof.time) > proofSecondsMax) return refused('it is too old, or from a clock that is off')
    let good = false
    try {
      const { spki } = parseCertificate(proof.chain[0])
      verifier.verify(spki, proof.algorithm, proof.toBeSigned, proof.signature, verdict => {
        good = verdict
      })
    } catch (error) {
      if (codeOf(error) === null) throw error
      return refused((error as Error).message)
    }
    return good ? proof : refused('its signature does not verify')
  }

  return {
    async peerOf(shown, via, profile) {
      // The gateway first: a signature of a stranger's is verified for nobody.
      const why = await against(via, profile)
      if (why !== null) return refusal('gateway_not_admitted', why)
      const proof = judge(shown)
      if (!('toBeSigned' in proof)) return proof
      const { address, tlsVersion } = via
      return { chain: proof.chain, basic: null, bearer: null, address, tlsVersion, resumed: false }
    },
  }
}
