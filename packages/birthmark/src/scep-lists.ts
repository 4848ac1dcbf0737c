// The revocation list that GetCRL answers with: the shard that a certificate names itself, or, where certificates name none, the whole list of its
// issuer as long as a router can take it.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import {
  type CertificateRecord,
  createRevocationLists,
  EstServerError,
  type Issuer,
  issuerName,
  type Log,
  type Store,
  shardOf,
} from '@birthmark/est-server'
import type { Clock } from '@birthmark/fleet-revocation'
import type { Settings } from './configuration.ts'

/** Some 25,000 revoked certificates: what is enveloped is held in memory, several at once. */
const listBytesMax = 1 << 20
/** Where the configuration says nothing of certificate status. */
const lifetimeSeconds = 86_400

export interface ScepLists {
  /** DER; null where there is none, or none that a client could take. Rejects with EstServerError when it cannot be had now. */
  listOf(certificate: CertificateRecord): Promise<Uint8Array | null>
  close(): Promise<void>
}

export function createScepLists(
  { status, state }: Pick<Settings, 'status' | 'state'>,
  parts: { store: Store; issuers: readonly Issuer[]; clock: Clock; log: Log },
): ScepLists {
  const lists = createRevocationLists({
    ...parts,
    lifetimeSeconds: status?.crlSeconds ?? lifetimeSeconds,
    formerUrls: status?.former ?? [],
    folder: join(state, 'crl'),
  })
  return {
    async listOf({ issuer, fleet, idx }) {
      const name = issuerName(issuer)
      const found = status === null ? await lists.full(name) : await lists.shard(name, fleet, shardOf(idx))
      if (found.kind === 'unavailable') throw new EstServerError('issuer_failed', `the revocation list: ${found.detail}`)
      if (found.kind === 'unknown') return null
      const { list } = found
      if ('der' in list) return list.der
      return list.bytes <= listBytesMax ? readFile(list.path) : null
    },
    close: lists.close,
  }
}
