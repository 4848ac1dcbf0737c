// The first use of a certificate (DESIGN: the old one stays good until the new one was used): from then on everything older of its device is
// superseded, so that nobody renews with a copy of the last key.

import type { Bytes, Membership } from '@birthmark/device-sdk/core'
import type { Peer } from './enrollment-request.ts'
import type { PeerIdentities } from './peer-identity.ts'
import type { Clock } from './ports.ts'
import type { OperationalIdentity } from './registrar/decide.ts'
import type { EnrollmentProfile } from './registrar/profile.ts'
import type { DeviceRecord, Store } from './store/store.ts'

export interface CertificateUse {
  /**
   * Of whatever a peer does besides enrolling. A peer without an operational certificate in good standing uses none. Settles when it is durable;
   * a peer that was counted is not looked at again.
   */
  of(peer: Peer, profile: EnrollmentProfile): Promise<void>
  /** Of a certificate that was judged. `address`: who shows it. Settles when it is durable. */
  by(identity: OperationalIdentity, device: DeviceRecord, address: string): Promise<void>
}

export function createCertificateUse(parts: {
  identities: Pick<PeerIdentities, 'operational'>
  store: Pick<Store, 'enrollmentFacts' | 'raiseFloor'>
  status(membership: Membership, issuerKeyId: Bytes | null): 'good' | 'revoked' | 'unknown'
  clock: Clock
}): CertificateUse {
  const { identities, store, status, clock } = parts
  const counted = new WeakSet<Peer>()

  async function by({ certificate: { fleet, idx } }: OperationalIdentity, device: DeviceRecord, address: string): Promise<void> {
    // Which of two suspected holders this is cannot be told, so it decides nothing between them; the store asks again.
    if (device.suspectedAt !== null || idx <= device.idxFloor) return
    const detail = `idx ${idx}: what came before is superseded`
    const entry = { at: Math.floor(clock.now()), requestId: '', fleet, device: device.id, by: address, code: '', detail }
    await store.raiseFloor(fleet, device.id, idx, { ...entry, kind: 'certificate_used' })
  }

  async function look(peer: Peer, profile: EnrollmentProfile): Promise<void> {
    const identity = await identities.operational(peer, profile)
    if (identity === null) return
    const { certificate, deviceId } = identity
    const { fleet, idx, gids } = certificate
    if (status({ fleet, idx, gids }, certificate.issuer) !== 'good') return
    const { device } = await store.enrollmentFacts(fleet, deviceId, certificate.spkiSha256, certificate.spkiSha256)
    if (device !== null) await by(identity, device, peer.address)
  }

  return {
    by,
    async of(peer, profile) {
      if (counted.has(peer)) return
      await look(peer, profile)
      counted.add(peer)
    },
  }
}
