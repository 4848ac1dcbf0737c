// Campaigns in a running server: the state machine over the parts that the composition root has joined, and what operators ask of it. The order of
// taking back stays what it is for a single group: recorded → denied → live sessions cut → told to everybody else.

import { createPublicKey, type KeyObject, sign } from 'node:crypto'
import { hexOf } from '@birthmark/device-sdk/core'
import {
  type Campaign,
  type Campaigns,
  createCampaigns,
  type Failpoint,
  type GrowingNumberSet,
  isLabelName,
  isLabelValue,
  type Log,
  type NumberSet,
  numberSet,
  pageRowsMax,
  parseSelector,
  type Receipt,
  type ReceiptBody,
  type Revocation,
  receiptBytes,
  receiptFormat,
  type Store,
  unpackNumbers,
} from '@birthmark/est-server'
import { type Clock, type Publisher, type RuleSet, repeat } from '@birthmark/fleet-revocation'
import type { EmbeddedBroker } from '@birthmark/fleet-revocation/broker'
import type { CampaignAdministration, CampaignStages, CampaignView } from './campaign-administration.ts'
import type { CertificateStatus } from './certificate-status.ts'
import { CommandError } from './command-error.ts'
import { createConsumerView } from './consumer-view.ts'
import type { EnrollmentFront } from './enrollment-front.ts'
import { viewOf } from './operations.ts'
import type { QuarantineView } from './quarantine-view.ts'
import { relyingPartyOperations } from './relying-parties.ts'
import type { RevocationSettings } from './revocation-settings.ts'

export interface CampaignDeskParts {
  settings: RevocationSettings
  fleet: string
  store: Store
  revocation: Revocation
  rules: RuleSet
  quarantine: QuarantineView
  front: Pick<EnrollmentFront, 'enforce'>
  publisher: Pick<Publisher, 'wake' | 'confirmations'>
  /** By name, those that are to confirm a notice. */
  relyingParties: readonly string[]
  broker: Pick<EmbeddedBroker, 'enforce' | 'sessions'> | null
  certificateStatus: CertificateStatus | null
  /** Signs receipts: the key that signs notices, whose public half everybody has. */
  noticeKey: KeyObject
  clock: Clock
  log: Log
  failpoint?: Failpoint
}

export interface CampaignDesk {
  operations: CampaignAdministration
  /** The broker refused a certificate that is denied: its device knows now. */
  onRefused(idx: number): void
  close(): Promise<void>
}

/** Notices that a receipt carries whole; of more it names the hashes. */
const receiptNoticeBytesMax = 1_048_576
/** Refusals that one look goes through before it answers: more follow at the next. */
const refusalPagesMax = 20

/** Relying parties that are named as missing; of more there is the number. */
const missingShownMax = 20

const told = ['device_quarantined', 'device_revoked', 'group_revoked']

export function openCampaignDesk(parts: CampaignDeskParts): CampaignDesk {
  const { store, fleet, settings, broker, front, publisher, clock, log, quarantine } = parts

  async function enforce() {
    await quarantine.refresh()
    const enforced = broker ? await broker.enforce() : null
    return { sessionsCut: enforced ? enforced.cut : null, connectionsClosed: await front.enforce() }
  }

  const campaigns = createCampaigns({
    ...{ store, fleet, clock, log, enforce },
    revocation: parts.revocation,
    rules: settings,
    later: (seconds, work) => clock.setTimer(seconds, work),
    online: certificates => (broker ? broker.sessions().filter(session => isOf(session, certificates)).length : null),
    onRevoked(rule) {
      // A group that was closed before, and perhaps by another server: the rules in memory may not have it yet.
      if (rule) parts.rules.merge([{ kind: 'group', ...rule }])
      publisher.wake()
    },
    ...(parts.failpoint && { failpoint: parts.failpoint }),
  })
  const progress = createProgress(parts)
  // Another server of the store may put devices under quarantine, and lift it.
  const endWatching = repeat(
    clock,
    1,
    async () => {
      if (await quarantine.refresh()) await enforce()
    },
    error => log.error({ err: error }, 'what is in quarantine could not be read'),
  )
  void campaigns.resume()

  return {
    operations: operationsOf(parts, campaigns, progress),
    onRefused: progress.onRefused,
    async close() {
      endWatching()
      campaigns.close()
      await campaigns.settled()
    },
  }
}

function isOf(session: { connected: boolean; idx: number | null }, certificates: NumberSet): boolean {
  return session.connected && session.idx !== null && certificates.has(session.idx)
}

/** Who of a campaign has come back and was told no: from the audit record, and from the broker since this process started. */
function createProgress(parts: CampaignDeskParts) {
  const { store, fleet, publisher } = parts
  const consumers = createConsumerView(parts)
  const heard = new Map<string, { certificates: NumberSet; told: GrowingNumberSet; through: number }>()
  // Refused at the broker: any certificate; each campaign takes its own.
  const refused = numberSet()

  async function toldOf(campaign: Campaign): Promise<number> {
    const { at, auditFrom } = campaign.story
    if (at.quarantined === undefined) return 0
    let one = heard.get(campaign.id)
    if (one === undefined) {
      const sets = await store.campaignSets(fleet, campaign.id)
      if (sets === null) return 0
      one = { certificates: numberSet(unpackNumbers(sets.certificates)), told: numberSet(), through: auditFrom }
      // The few that are looked at; the others are counted anew when they are asked about.
      if (heard.size >= 16) heard.clear()
      heard.set(campaign.id, one)
    }
    for (let page = 0; page < refusalPagesMax; page++) {
      const records = await store.audit(one.through, pageRowsMax)
      for (const record of records) {
        if (record.kind !== 'enrollment_refused' || record.fleet !== fleet || !told.includes(record.code)) continue
        const idx = (await store.device(fleet, record.device))?.certificate?.idx
        if (idx !== undefined && one.certificates.has(idx)) one.told.add(idx)
      }
      if (records.length > 0) one.through = records[records.length - 1].n
      if (records.length < pageRowsMax) break
    }
    let count = one.told.size
    for (const idx of refusedIndices()) if (one.certificates.has(idx) && !one.told.has(idx)) count++
    return count
  }

  const order: number[] = []
  const refusedIndices = () => order

  return {
    consumers,
    onRefused(idx: number): void {
      // A device that hammers is one device; a million are 8 MB.
      if (refused.has(idx) || refused.size >= 1_000_000) return
      refused.add(idx)
      order.push(idx)
    },
    async stages(campaign: Campaign): Promise<CampaignStages> {
      const { story, plan } = campaign
      const { commit, blocked } = story
      const certified = plan.devices.count - (blocked?.withoutCertificate ?? 0)
      const heardOf = Math.min(await toldOf(campaign), certified)
      const pending = commit === null ? [] : await store.outboxPending(fleet, pageRowsMax)
      return {
        planned: plan.createdAt,
        submitted: story.at.submitted ?? null,
        blocked: blocked && {
          at: blocked.at,
          devices: certified,
          withoutCertificate: blocked.withoutCertificate,
          online: blocked.online,
          sessionsCut: blocked.sessionsCut,
        },
        revoked: commit && { at: story.at.committed ?? 0, seq: commit.seq, certificates: commit.certificates },
        undelivered: commit === null ? null : pending.filter(({ seq }) => seq > (story.seqBefore ?? 0) && seq <= commit.seq).length,
        relyingParties: commit && confirmationOf(publisher.confirmations.of(commit.seq, parts.relyingParties)),
        told: heardOf,
        blockedNotAcked: blocked === null || story.at.undone !== undefined ? 0 : certified - heardOf,
        standardConsumers: consumers.of(campaign),
      }
    },
  }
}

function confirmationOf({ confirmed, missing }: ReturnType<Publisher['confirmations']['of']>): CampaignStages['relyingParties'] {
  const of = confirmed.length + missing.length
  return { confirmed: confirmed.length, of, missing: missing.slice(0, missingShownMax) }
}

type Progress = ReturnType<typeof createProgress>

function operationsOf(parts: CampaignDeskParts, campaigns: Campaigns, progress: Progress): CampaignAdministration {
  const { store, fleet, clock } = parts
  const at = () => Math.floor(clock.now())
  const view = async (campaign: Campaign): Promise<CampaignView> => ({
    ...{ id: campaign.id, state: campaign.state, planSha256: hexOf(campaign.planSha256), plan: campaign.plan },
    ...{ windowEndsAt: campaign.windowEndsAt, words: campaign.story.words, stages: await progress.stages(campaign) },
    undone: campaign.story.undo?.reason ?? null,
  })
  const hash = (text: string) => new Uint8Array(Buffer.from(text, 'hex'))
  const by = 'operator at the local socket'

  return {
    ...relyingPartyOperations({ ...parts, configured: parts.relyingParties, by }),
    planCampaign: async request => view(await campaigns.plan(request)),
    submitCampaign: async ({ id, planSha256, by, signature }) =>
      view(await campaigns.submit({ id, planSha256: hash(planSha256), said: { by, signature } })),
    approveCampaign: async ({ id, planSha256, by, signature }) =>
      view(await campaigns.approve({ id, planSha256: hash(planSha256), said: { by, signature } })),
    undoCampaign: async ({ id, planSha256, by, signature, reason }) =>
      view(await campaigns.undo({ id, planSha256: hash(planSha256), said: { by, signature }, reason })),
    async campaign({ id }) {
      const campaign = await campaigns.get(id)
      // Not waited for: sixty lists to be signed take a second or two.
      void progress.consumers.ask(campaign)
      return view(campaign)
    },
    campaigns: async ({ limit }) => ({ campaigns: await Promise.all((await campaigns.list(limit)).map(view)) }),

    async campaignDevices({ id, after }) {
      await campaigns.get(id)
      const sets = await store.campaignSets(fleet, id)
      return sets ? store.deviceIds(sets.devices, after, pageRowsMax) : { ids: [], next: null }
    },

    async campaignReceipt({ id }) {
      const campaign = await campaigns.get(id)
      await progress.consumers.ask(campaign)
      return receiptOf(parts, campaign, await progress.stages(campaign))
    },

    async selectDevices({ select, after, limit }) {
      const rows = await store.selected({ fleet, selector: parseSelector(select), now: at(), after, limit })
      return { devices: rows.map(viewOf), next: rows.length === limit ? rows[rows.length - 1].id : null }
    },

    async labelDevices({ changes }) {
      for (const { id, set, unset } of changes) {
        const name = [...Object.keys(set), ...unset].find(one => !isLabelName(one))
        if (name !== undefined)
          throw new CommandError(
            'label_malformed',
            `${id}: no label can be called '${name}'`,
            'use letters, digits and . _ / -',
            'usage',
          )
        const value = Object.values(set).find(one => !isLabelValue(one))
        if (value !== undefined)
          throw new CommandError(
            'label_malformed',
            `${id}: '${value}' is no value of a label`,
            'use 1 to 64 printable characters',
            'usage',
          )
      }
      const names = [...new Set(changes.flatMap(({ set, unset }) => [...Object.keys(set), ...unset]))].join(', ')
      const audit = { at: at(), kind: 'devices_labelled', requestId: '', fleet, device: '', by, code: '', detail: names } as const
      return store.labelDevices(fleet, changes, audit)
    },

    labels: async () => ({ labels: await store.labelValues(fleet) }),
  }
}

async function receiptOf(
  { store, fleet, settings, noticeKey, clock }: CampaignDeskParts,
  campaign: Campaign,
  stages: CampaignStages,
): Promise<Receipt> {
  const { story, plan } = campaign
  const { commit, at } = story
  if (campaign.state !== 'committed' || commit === null)
    throw new CommandError(
      'not_carried_out',
      `campaign ${campaign.id} is ${campaign.state}`,
      `see how far it is: birthmark revoke watch ${campaign.id}`,
      'refused',
    )
  const notices: ReceiptBody['notices'] = []
  let bytes = 0
  // A closed group names the notice that closed it, which may be older than the campaign.
  for (let seq = Math.min(commit.seq, (story.seqBefore ?? 0) + 1); seq <= commit.seq; seq++) {
    const notice = await store.notice(fleet, seq)
    if (notice === null) continue
    bytes += notice.notice.length
    const whole = bytes <= receiptNoticeBytesMax ? Buffer.from(notice.notice).toString('base64') : ''
    notices.push({ seq, sha256: hexOf(notice.sha256), notice: whole })
  }
  const signers = new Set(story.words.filter(({ key }) => key !== null).map(({ by }) => by))
  const body: ReceiptBody = {
    ...{ format: receiptFormat, id: campaign.id, planSha256: hexOf(campaign.planSha256), plan, words: story.words },
    people: settings.people
      .filter(({ name }) => signers.has(name))
      .map(({ name, spki }) => ({ name, spki: Buffer.from(spki).toString('base64') })),
    at: { submitted: at.submitted ?? 0, quarantined: at.quarantined ?? 0, committed: at.committed ?? 0 },
    notices,
    revoked: {
      ...{ devices: plan.devices.count, certificates: commit.certificates },
      withoutCertificate: stages.blocked?.withoutCertificate ?? 0,
    },
    progress: {
      ...{ asOf: Math.floor(clock.now()), sessionsCut: stages.blocked?.sessionsCut ?? null },
      ...{ told: stages.told, blockedNotAcked: stages.blockedNotAcked },
    },
    standardConsumers: stages.standardConsumers,
    audit: commit.audit,
  }
  return { body, signature: sign('sha256', receiptBytes(body), noticeKey).toString('base64') }
}

/** DER SubjectPublicKeyInfo of who signs receipts. */
export function receiptKey(noticeKey: KeyObject): Uint8Array {
  return new Uint8Array(createPublicKey(noticeKey).export({ type: 'spki', format: 'der' }))
}
