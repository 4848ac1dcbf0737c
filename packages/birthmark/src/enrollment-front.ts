// What answers devices: issuer, profiles, enrollment and the listener, over a store and a rule set that it is given. The same in the one
// process of a small server and in each worker of a large one (worker.ts); it holds nothing that the others would have to be told.

import { randomUUID } from 'node:crypto'
import { decodePem, membershipOf, parseCertificate } from '@birthmark/device-sdk/core'
import {
  createBearerTokens,
  createEnrollment,
  createListener,
  createLoopTurns,
  createOutbound,
  createProxies,
  createServerKeys,
  createWebhook,
  type Issuer,
  keySigner,
  type Metrics,
  type Peer,
  type Store,
} from '@birthmark/est-server'
import { type RuleSet, statusOf } from '@birthmark/fleet-revocation'
import type { Ports } from './compose.ts'
import type { Settings } from './configuration.ts'
import { openConfiguredIssuers } from './configured-issuers.ts'
import { named } from './listening.ts'
import { noticePull } from './notice-pull.ts'
import { openScepFront } from './scep-front.ts'
import { signedTime } from './signed-time.ts'
import { watchProfiles } from './standing-profiles.ts'

export interface EnrollmentFront {
  /** Whose keys this process has; null where other processes have them. */
  issuers: Issuer[] | null
  port: number
  /** Of SCEP; null where it is not offered. */
  scepPort: number | null
  /** Cuts the live connections of peers that the rule set now denies; how many. A peer with a birth certificate is refused at its next request. */
  enforce(): Promise<number>
  /** Why a request would not be served now, or null. */
  unready(): string | null
  /** The processes that answer. */
  standing(): Standing
  /** What each of those that are not this one counts, as prom-client's getMetricsAsJSON. */
  metrics(): Promise<object[][]>
  close(): Promise<void>
}

export interface Standing {
  serving: number
  of: number
  pids: number[]
}

export interface FrontParts extends Pick<Ports, 'clock' | 'random' | 'log'> {
  store: Store
  rules: RuleSet
  /** Why no traffic is wanted, or null. */
  unready: () => string | null
  port: number
  metrics: Metrics
  /** That listen on the port and issue from the store, this one among them. */
  processes?: number
}

/** Requests under way at a stop get this long. */
export const graceMs = 5000

export async function openEnrollmentFront(settings: Settings, parts: FrontParts): Promise<EnrollmentFront> {
  const { rules, clock, random, log, metrics, processes = 1 } = parts
  const shared = processes > 1
  const limits = { processes, ...(settings.development ? oneMachine : {}) }
  const store = metrics.store(parts.store)
  const { fleet, profiles } = settings
  const loopTurns = createLoopTurns()
  const keys = await openConfiguredIssuers(settings, { store, clock, log, metrics, loopTurns })
  const standing = await watchProfiles(settings, { store, clock, log })
  const outbound = createOutbound()
  const tokens = createBearerTokens({ outbound, clock, log })
  const webhook = createWebhook({ outbound, clock, log })
  const enrollment = createEnrollment({
    tokens,
    webhook,
    store,
    issuer: keys.issuers,
    profiles,
    status: statusOf(rules, fleet),
    clock,
    random,
    log,
    processes,
    profileStanding: standing,
    loopTurns,
  })
  const unready = () => parts.unready() ?? standing.unready() ?? keys.unready()
  // The server's TLS identity vouches for the keys it makes; where no profile has any made it need not be able to.
  const generateKey = profiles.some(({ serverKeys }) => serverKeys !== false)
    ? createServerKeys({
        enrollment,
        signer: keySigner(decodePem(settings.est.certificate, 'CERTIFICATE', 16), settings.est.key),
        random,
        log,
      }).generate
    : undefined
  const listener = createListener({
    tls: { key: settings.est.key, cert: settings.est.certificate },
    enrollment: { ...enrollment, ...(generateKey && { generateKey }) },
    log,
    requestId: randomUUID,
    observer: metrics.http,
    unready,
    ...(settings.est.proxies?.length && { proxies: createProxies(settings.est.proxies, clock) }),
    limits,
  })
  const pull = noticePull(settings, store, clock)
  listener.app.get(pull.path, pull.answer)
  const time = signedTime(settings, clock)
  listener.app.get(time.path, time.answer)
  metrics.gauge('connections', () => listener.connections)
  const { host } = settings.est
  const { port } = await named('est', host, parts.port, () => listener.listen(host, parts.port, { shared }))
  const scep = await openScepFront(settings, {
    ...{ enrollment, store, status: statusOf(rules, fleet), clock, random, log, limits },
    observer: metrics.scep,
    issuers: () => keys.issuers.current().names,
    nextCertificates: keys.next,
    opened: keys.opened,
    webhook,
    loopTurns,
  })
  // Beside what EST's own port says: there SCEP alone takes nobody's traffic away.
  const whyNot = () => unready() ?? (scep && (scep.unready() ?? keys.unready(true)))
  return {
    issuers: keys.opened,
    port,
    scepPort: scep?.port ?? null,
    enforce: async () => listener.closeConnections(peer => isRevoked(peer, fleet, rules)),
    unready: whyNot,
    metrics: async () => [],
    standing: () => ({ serving: whyNot() === null ? 1 : 0, of: 1, pids: [process.pid] }),
    async close() {
      await Promise.all([listener.close(graceMs), scep?.close(graceMs)])
      standing.close()
      await keys.close()
    },
  }
}

/** A peer with a revoked operational certificate. One with a birth certificate is refused by the registrar at its next request. */
function isRevoked(peer: Peer, fleet: string, rules: RuleSet): boolean {
  if (!peer.chain?.[0]) return false
  try {
    const leaf = parseCertificate(peer.chain[0])
    const membership = membershipOf(leaf)
    return membership !== null && membership.fleet === fleet && rules.isRevoked(membership, leaf.authorityKeyId)
  } catch {
    // Not a certificate that we issued; it admits nobody anyway.
    return false
  }
}

/** In `dev` every device comes from one address; what guards a server from one attacker would refuse a simulated fleet. */
const oneMachine = {
  connectionsMax: 4096,
  connectionsPerAddressMax: 4096,
  connectionBurstPerAddress: 20_000,
  connectionsPerSecondPerAddress: 20_000,
}
