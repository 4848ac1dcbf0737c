// What the operator's socket can do, over the parts that the composition root has joined. The order of a revocation is fixed here:
// recorded and signed → denied → live sessions cut → told to everybody else.

import { createHash, randomBytes } from 'node:crypto'
import { anchorOf, parseCertificate, type TrustAnchor } from '@birthmark/device-sdk/core'
import {
  clockToleranceSeconds,
  createChallenges,
  type DeviceRow,
  needsApproval,
  type Registry,
  type Revocation,
  type RollOver,
  type Store,
} from '@birthmark/est-server'
import { openManifestInTurns } from '@birthmark/factory-line'
import { type Clock, type Publisher, type RuleSet, statusOf } from '@birthmark/fleet-revocation'
import type { EmbeddedBroker } from '@birthmark/fleet-revocation/broker'
import type { Administration, ClockView, DeviceView, RevocationPlan } from './administration.ts'
import type { CampaignAdministration } from './campaign-administration.ts'
import type { CertificateStatus } from './certificate-status.ts'
import { CommandError } from './command-error.ts'
import type { Settings } from './configuration.ts'
import type { EnrollmentFront } from './enrollment-front.ts'
import { issuerOperations } from './issuer-operations.ts'
import { profileOperations } from './profile-administration.ts'
import { revocationReasons } from './revocation-reason.ts'
import { singleRevocations } from './single-revocation.ts'

export interface OperationParts {
  settings: Settings
  store: Store
  registry: Registry
  revocation: Revocation
  rules: RuleSet
  front: Pick<EnrollmentFront, 'enforce' | 'standing' | 'unready'>
  publisher: Publisher
  broker: EmbeddedBroker | null
  certificateStatus: CertificateStatus | null
  clock: Clock
  campaigns: CampaignAdministration
  urls: { est: string; mqtt: string }
  rollOver: RollOver
  /** Tells everybody, and cuts who is no longer admitted. */
  onIssuersMoved(): Promise<void>
}

/** Units between two words about how far an import is: a tenth of a second. */
const unitsPerWord = 10_000

function* countedUnits<T>(units: Iterable<T>, told: (done: number) => void): Generator<T> {
  let n = 0
  for (const unit of units) {
    yield unit
    if (++n % unitsPerWord === 0) told(n)
  }
}

export function operationsOf(parts: OperationParts): Administration {
  const { settings, store, registry, revocation, rules, front, publisher, broker, clock } = parts
  const { fleet } = settings
  const challenges = createChallenges({ store, fleet, clock, random: length => randomBytes(length) })
  const anchors: TrustAnchor[] = settings.birthAnchors.map(der => anchorOf(parseCertificate(der)))
  const by = 'operator at the local socket'

  async function clockView(): Promise<ClockView> {
    const [now, lastRecord] = [clock.now(), await store.lastTime()]
    return { now, lastRecord, halted: now < lastRecord - clockToleranceSeconds }
  }

  const enact = async () => {
    const enforced = broker ? await broker.enforce() : null
    const connectionsClosed = await front.enforce()
    publisher.wake()
    return { sessionsCut: enforced ? enforced.cut : null, connectionsClosed }
  }

  /** What is more than a handful goes the way of a campaign: a second person, or at least time to undo it. */
  async function requireFew(devices: number, named: string, instead: string): Promise<void> {
    if (needsApproval(devices, await store.deviceCount(fleet), settings.revocation.threshold))
      throw new CommandError(
        'too_many_at_once',
        `${named}: ${devices} are more than one person takes back at once`,
        `birthmark revoke plan ${instead} --reason '…'`,
        'refused',
      )
  }

  async function plan(group: string): Promise<RevocationPlan> {
    const draft = await store.draftRevocation(fleet, group, 0, Math.floor(clock.now()))
    if (!draft)
      throw new CommandError(
        'group_unknown',
        `fleet ${fleet} has no group '${group}'`,
        'see the groups with: birthmark devices',
        'refused',
      )
    const closed = draft.closed !== null
    if (!closed) await requireFew(draft.devices, `'${group}'`, `--select '${group}'`)
    if (!closed && draft.uncovered > 0)
      throw new CommandError(
        'group_not_covered',
        `nothing can be revoked by '${group}': ${draft.uncovered} certificates of its devices were made before these joined it`,
        'revoke a group that is in those certificates, or wait until they have ended: birthmark devices',
        'refused',
      )
    // What the operator saw: which group, how many devices. Certificates renewed meanwhile do not make it another plan.
    const digest = createHash('sha256')
      .update(JSON.stringify([fleet, group, draft.gid, draft.devices, closed]))
      .digest('hex')
    return { group, devices: draft.devices, bound: draft.closed?.bound ?? draft.idxNext, closed, digest }
  }

  return {
    ...parts.campaigns,
    ...issuerOperations(parts.rollOver, by, parts.onIssuersMoved),
    ...singleRevocations({ store, fleet, revocation, by, now: clock.now, requireFew, enact }),
    ...profileOperations({ settings, store, rollOver: parts.rollOver, status: statusOf(rules, fleet), clock }),

    status: async () => ({
      fleet,
      development: settings.development,
      est: parts.urls.est,
      mqtt: parts.urls.mqtt,
      sessions: broker ? broker.sessions().filter(session => session.connected && session.kind === 'device').length : null,
      undelivered: (await store.outboxPending(fleet, 64)).length,
      pid: process.pid,
      workers: front.standing(),
      unready: front.unready() ?? parts.certificateStatus?.problem() ?? null,
      certificateStatus: parts.certificateStatus?.place ?? null,
    }),

    async devices({ id, limit, ...filter }) {
      if (id !== undefined) {
        const row = await registry.device(id)
        const fits = row && (!filter.group || row.groups.includes(filter.group)) && (!filter.state || row.state === filter.state)
        return { devices: fits ? [viewOf(row)] : [], next: null }
      }
      const rows = await registry.devices({ ...filter, limit })
      return { devices: rows.map(viewOf), next: rows.length === limit ? rows[rows.length - 1].id : null }
    },

    async importManifest(file, onProgress = () => {}) {
      const manifest = await openManifestInTurns(file, { anchors, now: Math.floor(clock.now()) })
      const told = (done: number) => onProgress({ stage: 'taken', done, of: manifest.units })
      const report = await registry.importManifest(
        countedUnits(manifest.entries(), told),
        `${by}, manifest ${manifest.digest.slice(0, 16)}`,
      )
      const { added, updated, unchanged, refused } = report
      return { digest: manifest.digest, units: manifest.units, added, updated, unchanged, refused }
    },

    async mintSecret({ device, groups, minutes }) {
      const minted = await registry.mintSecret({ deviceId: device, groups, lifetimeSeconds: minutes * 60, by })
      return { device: minted.user, secret: minted.password, expiresAt: minted.expiresAt }
    },

    async mintChallenges({ label, rows, minutes }) {
      const profile = settings.profiles.find(one => one.label === label)
      if (!profile?.scep)
        throw new CommandError(
          'scep_not_allowed',
          profile ? `the profile ${label ?? 'without a label'} is not reached by SCEP` : `there is no profile ${label}`,
          'allow it: scep: true in the profile, and scep: in the configuration',
          'refused',
        )
      const { minted, refused } = await challenges.mint({
        ...{ label, lifetimeSeconds: minutes * 60, by },
        rows: rows.map(({ device, groups }) => ({ deviceId: device, groups })),
      })
      return {
        minted: minted.map(({ deviceId: device, challenge, expiresAt }) => ({ device, challenge, expiresAt })),
        refused: refused.map(({ deviceId: device, reason }) => ({ device, reason })),
      }
    },

    planRevocation: plan,

    clock: clockView,

    async acceptClock({ reason }) {
      const at = Math.floor(clock.now())
      await store.acceptTime({ at, kind: 'clock_accepted', requestId: '', fleet, device: '', by, code: '', detail: reason })
      return clockView()
    },

    async trustDevice({ device, reason }) {
      if (!(await registry.liftSuspicion({ deviceId: device, by, reason })))
        throw new CommandError(
          'device_unknown',
          `fleet ${fleet} has no device '${device}'`,
          'see them with: birthmark devices',
          'refused',
        )
      return { device }
    },

    async revoke({ group, digest, reason, code }) {
      const current = await plan(group)
      if (current.digest !== digest)
        throw new CommandError(
          'plan_changed',
          `nothing was revoked: the plan is now ${current.digest}`,
          'look at it again',
          'refused',
        )
      // The reason is on record before the effect; a crash in between leaves a reason without a revocation, never the reverse.
      const at = Math.floor(clock.now())
      await store.appendAudit({
        at,
        kind: 'group_revoked',
        requestId: '',
        fleet,
        device: '',
        by,
        code: 'requested',
        detail: `group ${group}: ${reason}${code === undefined ? '' : ` (${code})`}`,
      })
      const done = await revocation.revokeGroup({ group, by, ...(code !== undefined && { reason: revocationReasons[code] }) })
      // Said before and perhaps by another server: the rules in memory may not have it yet.
      rules.merge([{ kind: 'group', gid: done.gid, bound: done.bound }])
      const enacted = await enact()
      return {
        group,
        seq: done.seq,
        devices: done.devices,
        noticeBytes: done.notice.length,
        ...enacted,
        notice: Buffer.from(done.notice).toString('base64'),
      }
    },
  }
}

export function viewOf(row: DeviceRow): DeviceView {
  const { id, state, groups, labels, quarantinedBy, keyOrigin, certificate, seenAt } = row
  return {
    id,
    state,
    groups,
    labels,
    quarantinedBy,
    keyOrigin,
    certificate: certificate && {
      serial: Buffer.from(certificate.serial).toString('hex'),
      idx: certificate.idx,
      notBefore: certificate.notBefore,
      notAfter: certificate.notAfter,
    },
    seenAt,
  }
}
