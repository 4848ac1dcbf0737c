// Which certificates are in quarantine, for who knows a device by its certificate alone: the embedded broker asks it at every packet. A bitmap of
// what the store holds, read again when the store says that it has changed. Enrollment asks the store itself.

import type { Bytes, Membership } from '@birthmark/device-sdk/core'
import { type NumberSet, numberSet, type Store, unpackNumbers } from '@birthmark/est-server'
import type { RuleStatus, Status } from '@birthmark/fleet-revocation'

export interface QuarantineView {
  /** The status of the rules, and `quarantined` where they say good of a certificate that is held. */
  over(
    status: (membership: Membership, issuerKeyId: Bytes | null) => RuleStatus,
  ): (membership: Membership, issuerKeyId: Bytes | null) => Status
  /** Takes over what the store holds now. True: it was something else before. */
  refresh(): Promise<boolean>
}

export async function createQuarantineView(store: Pick<Store, 'holds' | 'holdsVersion'>, fleet: string): Promise<QuarantineView> {
  let version = -1
  let held: NumberSet[] = []

  async function refresh(): Promise<boolean> {
    const now = await store.holdsVersion()
    if (now === version) return false
    // Read after the version: it may hold more than that, never less.
    held = (await store.holds(fleet)).map(hold => numberSet(unpackNumbers(hold.certificates)))
    version = now
    return true
  }
  await refresh()

  return {
    refresh,
    over: status => (membership, issuerKeyId) => {
      const ruled = status(membership, issuerKeyId)
      return ruled === 'good' && held.some(set => set.has(membership.idx)) ? 'quarantined' : ruled
    },
  }
}
