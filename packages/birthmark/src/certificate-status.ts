// Certificate status in a running server: lists, responder and their plain HTTP port, joined. The process that coordinates has it, so that no
// worker's load of devices delays a consumer's question, and every list is asked of one place.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Bytes } from '@birthmark/device-sdk/core'
import {
  type ConsumerAnswer,
  createOcspResponder,
  createRevocationLists,
  createStatusListener,
  createStatusRoutes,
  delegatedSigner,
  type Issuer,
  issuerName,
  type Log,
  type Metrics,
  proveToConsumers,
  type Store,
} from '@birthmark/est-server'
import { type Clock, repeat } from '@birthmark/fleet-revocation'
import { CommandError } from './command-error.ts'
import { named } from './listening.ts'
import type { StatusSettings } from './status-settings.ts'

export interface StatusPlace {
  /** As in certificates. */
  url: string
  /** Where this server itself answers the same. */
  local: string
  /** Issuers as their lists' URLs name them, the one that signs first. */
  issuers: string[]
}

export interface CertificateStatus {
  place: StatusPlace
  /** Why status cannot be had now, or null. */
  problem(): string | null
  /** The whole list of every issuer, DER, for a broker that wants them in a file. Rejects with `status_unavailable` when one can't be had now. */
  wholeLists(): Promise<Bytes[]>
  /** What whoever asks now is told about these certificates of a fleet (indices, ascending). */
  prove(fleet: string, indices: Uint32Array): Promise<ConsumerAnswer>
  close(): Promise<void>
}

/** Twice a minute: a list is signed anew when a third of its life is over, ten minutes at the least. */
const refreshSeconds = 30
const graceMs = 2000

export interface StatusParts {
  store: Store
  issuers: Issuer[]
  /** State folder of the server. */
  state: string
  clock: Clock
  log: Log
  metrics: Pick<Metrics, 'statusAnswer'>
}

export async function openCertificateStatus(settings: StatusSettings, parts: StatusParts): Promise<CertificateStatus> {
  const { store, issuers, state, clock, log } = parts
  const { responder } = settings
  const lists = createRevocationLists({
    ...{ store, issuers, clock, log },
    lifetimeSeconds: settings.crlSeconds,
    formerUrls: settings.former,
    folder: join(state, 'crl'),
  })
  const ocsp = createOcspResponder({
    ...{ store, issuers, clock, log },
    lifetimeSeconds: settings.ocspSeconds,
    // It is appointed by one issuer; after a roll-over the others answer themselves.
    delegate: issuer =>
      responder && issuer === issuers[0]
        ? delegatedSigner({ certificate: responder.certificate, privateKeyPem: responder.key, issuer })
        : null,
  })
  const prefix = new URL(settings.url).pathname.replace(/\/$/, '')
  const routes = createStatusRoutes({ lists, ocsp, prefix, clock })
  const answer: typeof routes = async question => {
    const given = await routes(question)
    parts.metrics.statusAnswer(question.target.startsWith(`${prefix}/crl/`) ? 'crl' : 'ocsp', given.status)
    return given
  }
  const listener = createStatusListener({ answer, log })
  const { port } = await named('status', settings.host, settings.port, () => listener.listen(settings.host, settings.port))

  const endRefreshing = repeat(clock, refreshSeconds, lists.refresh, error =>
    log.error({ err: error }, 'revocation lists could not be looked after'),
  )
  const host =
    settings.host === '0.0.0.0'
      ? '127.0.0.1'
      : settings.host === '::'
        ? '[::1]'
        : settings.host.includes(':')
          ? `[${settings.host}]`
          : settings.host
  return {
    place: { url: settings.url, local: `http://${host}:${port}${prefix}`, issuers: issuers.map(({ keyId }) => issuerName(keyId)) },
    problem: () => lists.problem() ?? ocsp.problem(),
    wholeLists: () =>
      Promise.all(
        issuers.map(async ({ keyId }) => {
          const answer = await lists.full(issuerName(keyId))
          if (answer.kind === 'list') return new Uint8Array(await readFile(answer.list.path))
          const detail = answer.kind === 'unavailable' ? answer.detail : 'no such issuer'
          throw new CommandError('status_unavailable', `no revocation list of ${issuerName(keyId)}: ${detail}`, 'see the log')
        }),
      ),
    prove: (fleet, indices) => proveToConsumers({ store, issuers, lists, ocsp, clock }, fleet, indices),
    async close() {
      endRefreshing()
      await listener.close(graceMs)
      await lists.close()
    },
  }
}
