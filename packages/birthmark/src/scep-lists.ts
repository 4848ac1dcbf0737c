// The revocation list that GetCRL answers with: the shard that the certificate names itself. Where the configuration has no certificate status,
// certificates name none and there is none to give.

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

export interface ScepLists {
  /** DER; null where there is none. Rejects with EstServerError when it cannot be had now. */
  listOf(certificate: CertificateRecord): Promise<Uint8Array | null>
  close(): Promise<void>
}

/** Numbers and lists are the store's, so that these are the same that the status port answers with. */
export function createScepLists(
  { status, state }: Pick<Settings, 'status' | 'state'>,
  parts: { store: Store; issuers: readonly Issuer[]; clock: Clock; log: Log },
): ScepLists {
  if (status === null) return { listOf: async () => null, close: async () => {} }
  const { crlSeconds: lifetimeSeconds, former: formerUrls } = status
  const lists = createRevocationLists({ ...parts, lifetimeSeconds, formerUrls, folder: join(state, 'crl') })
  return {
    async listOf({ issuer, fleet, idx }) {
      const found = await lists.shard(issuerName(issuer), fleet, shardOf(idx))
      if (found.kind === 'unavailable') throw new EstServerError('issuer_failed', `the revocation list: ${found.detail}`)
      return found.kind === 'unknown' ? null : found.list.der
    },
    close: lists.close,
  }
}
