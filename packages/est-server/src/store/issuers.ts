// Which issuer signs, which one will, which ones did: what a roll-over moves along (roll-over.ts). Part of the store's contract, since every
// process of a server has to go by the same answer. It leaves to others which moves there are.

import type { Bytes } from '@birthmark/device-sdk/core'
import type { AuditEntry } from './store.ts'

/** `next`: known to everybody, signs nothing yet. `previous`: signs no more, its certificates hold. `retired`: its certificates are no longer admitted. */
export type IssuerState = 'next' | 'signing' | 'previous' | 'retired'

export interface IssuerStanding {
  /** As in IssuanceIntent.issuer. */
  keyId: Bytes
  state: IssuerState
  since: number
}

export interface IssuersChange {
  /** What the change was decided on: the whole answer of issuerStandings(). */
  expected: IssuerStanding[]
  standings: IssuerStanding[]
  /** An issuer that must not have signed anything, nor be about to; null for no such condition. */
  unused: Bytes | null
  audit: AuditEntry
}

export interface IssuerStore {
  /** Ordered by `since`, then by key id. Empty before the first change: then an intent of any issuer is taken. */
  issuerStandings(): Promise<IssuerStanding[]>
  /** `conflict`: the standings are no longer as expected. `used`: `unused` has an intent or a certificate. Nothing was written then. */
  recordIssuers(change: IssuersChange): Promise<'recorded' | 'conflict' | 'used'>
  /** Of at most `rows` devices behind the device key `after`: how many hold a last certificate of the issuer that ends after `now`. `next`: where to go on. */
  issuerDevices(query: {
    issuer: Bytes
    now: number
    after: number
    rows: number
  }): Promise<{ devices: number; next: number | null }>
}
