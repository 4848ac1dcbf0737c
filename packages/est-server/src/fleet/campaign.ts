// Campaigns: taking back many devices on purpose. What is asked for is frozen and shown before anything happens; above a threshold a second person
// agrees to exactly that; then the devices are denied, which can be undone until the window closes; then they are revoked, which cannot. Each step
// is one small write that names the version it follows, so two who decide at once, or a process that dies anywhere, leave one campaign in one
// state, and whoever finds it there goes on.
//
//   planned → submitted → quarantined → committing → committed        planned, submitted, quarantined → undone; planned, submitted → expired
//
// The commit itself is the revocation's transaction (rules, closed devices, notices, outbox, audit); the campaign's row follows it, and a repeated
// revocation answers what was said before, so that a crash in between costs nothing.

import { type Bytes, equalBytes, hexOf } from '@birthmark/device-sdk/core'
import { EstServerError } from '../errors.ts'
import type { Clock, Failpoint, Log } from '../ports.ts'
import type { CampaignMove, CampaignRecord, CampaignState } from '../store/campaigns.ts'
import { mergeNumbers, type NumberSet, numberSet, packNumbers, unpackNumbers } from '../store/number-set.ts'
import type { FreezeQuery } from '../store/selection.ts'
import { type AuditEntry, pageRowsMax, type Store } from '../store/store.ts'
import {
  type ApprovalThreshold,
  type CampaignPlan,
  campaignId,
  canonicalJson,
  needsApproval,
  planFormat,
  planSha256,
} from './campaign-plan.ts'
import { keyName, type Person, type Saying, verifyWord, type Word } from './campaign-words.ts'
import { parseSelector, selectorText } from './selector.ts'

/** Plans that stand at once. Each keeps some 600 KB for a quarter of a million devices. */
export const plansMax = 64
/** A plan that nobody has submitted, or approved, by then is of another day. */
const planSeconds = 24 * 3600
/** Longer than a weekend helps nobody: quarantined devices do not renew. */
export const windowSecondsMax = 30 * 86_400
const reasonCharactersMax = 200

export interface CampaignRules {
  /** Who may submit and approve. Empty: everybody at the operator's socket may submit, and nobody can approve. */
  people: readonly Person[]
  threshold: ApprovalThreshold | null
  /** Above the threshold a campaign can be undone for at least so long. */
  windowSeconds: number
  radius: FreezeQuery['radius']
}

/** What est-server's revocation offers; the campaign asks for nothing else. */
export interface CampaignRevocation {
  revokeGroup(request: { group: string; by: string }): Promise<{ seq: number; gid: number; bound: number }>
  revokeFrozen(request: { devices: Bytes; certificates: Bytes; by: string; campaign: string }): Promise<{ seq: number }>
}

export interface CampaignPorts {
  store: Store
  fleet: string
  revocation: CampaignRevocation
  rules: CampaignRules
  clock: Clock
  log: Log
  /** Calls back once after so many seconds; the function takes it back. */
  later(seconds: number, work: () => void): () => void
  /** Denies here and in every process of this server what the store now holds back or has revoked, and cuts it; null where another broker does. */
  enforce(): Promise<{ sessionsCut: number | null; connectionsClosed: number }>
  /** How many sessions of these certificates are connected; null where another broker knows. */
  online(certificates: NumberSet): number | null
  /** A group was closed, or certificates were revoked: to be told to everybody. */
  onRevoked(rule: { gid: number; bound: number } | null): void
  failpoint?: Failpoint
}

export const campaignFailpoints = [
  'campaign-planned',
  'campaign-submitted',
  'campaign-quarantined',
  'campaign-blocked',
  'campaign-committing',
  'campaign-revoked',
  'campaign-committed',
  'campaign-undone',
] as const

export interface CampaignStory {
  words: Word[]
  at: Partial<Record<Exclude<CampaignState, 'planned'>, number>>
  /** Sessions that were connected when they were denied, and how many of them were cut; null where another broker knows. */
  blocked: {
    at: number
    online: number | null
    sessionsCut: number | null
    connectionsClosed: number
    /** Devices that no notice can name, since they have none, or none any more: closed all the same. */
    withoutCertificate: number
  } | null
  /** Refusals of its devices are on record behind it. */
  auditFrom: number
  /** The newest notice before the commit. */
  seqBefore: number | null
  commit: {
    seq: number
    certificates: number
    sessionsCut: number | null
    audit: { n: number; hash: string }
  } | null
  undo: { reason: string } | null
}

export interface Campaign {
  id: string
  state: CampaignState
  plan: CampaignPlan
  planSha256: Bytes
  windowEndsAt: number | null
  story: CampaignStory
}

/** Who says something: a person by name and signature, or nobody in particular. */
export interface Said {
  by: string
  signature: string | null
}

export interface Campaigns {
  /** Throws `selector_invalid`, `selection_empty`, `campaign_refused` (too many plans). Nothing is denied by it. */
  plan(request: { select: string; reason: string; windowSeconds: number | null; by: string }): Promise<Campaign>
  /** `planSha256`: of the plan that was read. Throws `campaign_unknown`, `plan_changed`, `approval_refused`, `campaign_refused`. */
  submit(request: { id: string; planSha256: Bytes; said: Said }): Promise<Campaign>
  approve(request: { id: string; planSha256: Bytes; said: Said }): Promise<Campaign>
  /** Until the window has closed. */
  undo(request: { id: string; planSha256: Bytes; said: Said; reason: string }): Promise<Campaign>
  get(id: string): Promise<Campaign>
  /** The newest first. */
  list(limit: number): Promise<Campaign[]>
  /** Goes on with everything that is under way, at once and from then on. Resolves when it has come as far as it can now; never rejects. */
  resume(): Promise<void>
  /** For tests and an orderly stop: what is under way has come to rest. */
  settled(): Promise<void>
  close(): void
}

/** Other processes of the store may carry out the same campaign; whoever finds one stuck for this long goes on with it. */
const lookSeconds = 1
/** One that keeps failing is tried at twice the distance each time, up to this many looks. */
const retryLooksMax = 60

const emptyStory: CampaignStory = { words: [], at: {}, blocked: null, auditFrom: 0, seqBefore: null, commit: null, undo: null }

function campaignOf(record: CampaignRecord): Campaign {
  const { id, state, planSha256: sha256, windowEndsAt } = record
  const plan = JSON.parse(record.plan) as CampaignPlan
  return { id, state, plan, planSha256: sha256, windowEndsAt, story: JSON.parse(record.story) as CampaignStory }
}

export function createCampaigns(ports: CampaignPorts): Campaigns {
  const { store, fleet, revocation, rules, clock, log, failpoint } = ports
  const now = () => Math.floor(clock.now())
  const step = async (name: (typeof campaignFailpoints)[number]) => failpoint?.(name)
  /** Campaigns that this process is at work on; each at most once at a time. */
  const working = new Map<string, Promise<void>>()
  /** Campaigns that could not go on: why, how many looks lie between two attempts, and how many are left until the next. */
  const failing = new Map<string, { why: string; distance: number; left: number }>()
  let closed = false
  let cancel = () => {}

  async function record(id: string): Promise<CampaignRecord> {
    const [found] = await store.campaigns({ fleet, id, limit: 1 })
    if (found === undefined) throw new EstServerError('campaign_unknown', `fleet ${fleet} has no campaign ${id}`)
    return found
  }

  function audit(kind: 'campaign_planned' | 'campaign_moved', by: string, code: string, detail: string): AuditEntry {
    return { at: now(), kind, requestId: '', fleet, device: '', by, code, detail }
  }

  /** From the version that was read. False: somebody else moved it meanwhile. */
  async function move(
    from: CampaignRecord,
    story: CampaignStory,
    change: Partial<CampaignMove> & Pick<CampaignMove, 'audit'>,
  ): Promise<boolean> {
    const moved = await store.moveCampaign({
      ...{ fleet, id: from.id, version: from.version, state: from.state, windowEndsAt: from.windowEndsAt, at: now() },
      ...{ ...change, story: canonicalJson(story) },
    })
    return moved === 'moved'
  }

  const storyOf = (from: CampaignRecord) => JSON.parse(from.story) as CampaignStory

  async function plan(request: Parameters<Campaigns['plan']>[0]): Promise<Campaign> {
    const { reason, by } = request
    if (reason.length === 0 || reason.length > reasonCharactersMax)
      throw new EstServerError('campaign_refused', `a reason has 1 to ${reasonCharactersMax} characters`)
    const selector = parseSelector(request.select)
    const createdAt = now()
    const frozen = await store.freeze({ fleet, selector, now: createdAt, radius: rules.radius })
    if (frozen.count === 0) throw new EstServerError('selection_empty', 'the selector finds no device')
    const isLarge = needsApproval(frozen.count, frozen.radius.fleetDevices, rules.threshold)
    // Where nobody is named, nobody can approve: then the time to undo it is what stands between one person and the fleet.
    const approvalNeeded = isLarge && rules.people.length > 0
    if (approvalNeeded && rules.people.length === 1)
      throw new EstServerError('campaign_refused', 'a second person has to approve this, and the configuration names one')
    const least = isLarge ? rules.windowSeconds : 0
    const windowSeconds = request.windowSeconds ?? rules.windowSeconds
    if (windowSeconds < least || windowSeconds > windowSecondsMax)
      throw new EstServerError(
        'window_refused',
        `a campaign of this size can be undone for ${least} s at least and ${windowSecondsMax} s at most, not ${windowSeconds} s`,
      )
    const group = frozen.wholeGroups.find(whole => whole.devices === frozen.count)
    const content: CampaignPlan = {
      ...{
        format: planFormat,
        fleet,
        select: selectorText(selector),
        reason,
        createdAt,
        expiresAt: createdAt + planSeconds,
        windowSeconds,
      },
      devices: { count: frozen.count, sha256: hexOf(frozen.idsSha256) },
      certificates: frozen.certificateCount,
      online: ports.online(numberSet(unpackNumbers(frozen.certificates))),
      rule: group ? { kind: 'group', group: group.name } : { kind: 'certificates' },
      ...{ approvalNeeded, radius: frozen.radius },
    }
    const text = canonicalJson(content)
    const sha256 = planSha256(text)
    const id = campaignId(sha256)
    const outcome = await store.recordCampaign(
      {
        ...{ fleet, id, plan: text, planSha256: sha256, plannedAt: createdAt, expiresAt: content.expiresAt },
        ...{ issuedThrough: frozen.issuedThrough, devices: frozen.devices, certificates: frozen.certificates },
        uncertified: frozen.uncertified,
        story: canonicalJson(emptyStory),
        audit: audit('campaign_planned', by, '', `campaign ${id}: ${frozen.count} devices (${content.select || 'all'}): ${reason}`),
      },
      plansMax,
    )
    if (outcome === 'full')
      throw new EstServerError('campaign_refused', `${plansMax} plans stand already; undo those that nobody needs`)
    await step('campaign-planned')
    return campaignOf(await record(id))
  }

  /** The word as it is kept. Throws `approval_refused` for one that is not by whom it says. */
  function heard(what: Saying, said: Said, from: CampaignRecord): Word {
    const at = now()
    if (said.signature === null) {
      if (rules.people.length > 0 && (what === 'approve' || (what === 'submit' && campaignOf(from).plan.approvalNeeded)))
        throw new EstServerError('approval_refused', `to ${what} a campaign of this size takes a signature`)
      return { what, by: said.by, at, key: null, signature: null }
    }
    const person = rules.people.find(({ name }) => name === said.by)
    if (!person) throw new EstServerError('approval_refused', `the configuration names nobody called ${said.by}`)
    if (!verifyWord(person.spki, said.signature, what, fleet, from.planSha256, person.name))
      throw new EstServerError('approval_refused', `${said.by} did not sign this plan`)
    return { what, by: person.name, at, key: keyName(person.spki), signature: said.signature }
  }

  /** The campaign that the word is about: of this very plan, and in time. */
  async function spokenOf(id: string, sha256: Bytes): Promise<CampaignRecord> {
    const from = await record(id)
    if (!equalBytes(from.planSha256, sha256)) throw new EstServerError('plan_changed', `campaign ${id} is of another plan`)
    if ((from.state === 'planned' || from.state === 'submitted') && now() >= from.expiresAt)
      throw new EstServerError('campaign_refused', 'the plan has expired; plan it again')
    return from
  }

  const refused = (from: CampaignRecord, wanted: string) =>
    new EstServerError(
      'campaign_refused',
      `campaign ${from.id} is ${from.state === wanted ? `${wanted} already` : `${from.state}, and cannot be ${wanted}`}`,
    )

  async function submit({ id, planSha256: sha256, said }: Parameters<Campaigns['submit']>[0]): Promise<Campaign> {
    const from = await spokenOf(id, sha256)
    if (from.state !== 'planned') throw refused(from, 'submitted')
    const word = heard('submit', said, from)
    const story = storyOf(from)
    story.words.push(word)
    story.at.submitted = word.at
    const { plan: asked } = campaignOf(from)
    if (asked.approvalNeeded) {
      if (
        !(await move(from, story, { state: 'submitted', audit: audit('campaign_moved', word.by, 'submitted', `campaign ${id}`) }))
      )
        throw refused(from, 'submitted twice')
      await step('campaign-submitted')
    } else await quarantine(from, story, word)
    return campaignOf(await record(id))
  }

  async function approve({ id, planSha256: sha256, said }: Parameters<Campaigns['approve']>[0]): Promise<Campaign> {
    const from = await spokenOf(id, sha256)
    if (from.state !== 'submitted') throw refused(from, 'approved')
    const word = heard('approve', said, from)
    const story = storyOf(from)
    const submitter = story.words.find(({ what }) => what === 'submit')
    if (word.by === submitter?.by || word.key === submitter?.key)
      throw new EstServerError('approval_refused', `${word.by} submitted it; somebody else has to approve`)
    story.words.push(word)
    await quarantine(from, story, word)
    return campaignOf(await record(id))
  }

  /** One write: from its commit on nothing is issued to the devices, in whatever process. */
  async function quarantine(from: CampaignRecord, story: CampaignStory, word: Word): Promise<void> {
    const { plan: asked } = campaignOf(from)
    story.at.quarantined = word.at
    story.auditFrom = (await auditEnd()).n
    const windowEndsAt = word.at + asked.windowSeconds
    const detail = `campaign ${from.id}: ${asked.devices.count} devices, until ${new Date(windowEndsAt * 1000).toISOString()}`
    if (
      !(await move(from, story, {
        state: 'quarantined',
        windowEndsAt,
        audit: audit('campaign_moved', word.by, 'quarantined', detail),
      }))
    )
      throw refused(from, 'approved twice')
    await step('campaign-quarantined')
    void advance(from.id)
  }

  async function undo({ id, planSha256: sha256, said, reason }: Parameters<Campaigns['undo']>[0]): Promise<Campaign> {
    const from = await record(id)
    if (!equalBytes(from.planSha256, sha256)) throw new EstServerError('plan_changed', `campaign ${id} is of another plan`)
    if (!['planned', 'submitted', 'quarantined'].includes(from.state)) throw refused(from, 'undone')
    const word = heard('undo', said, from)
    const story = storyOf(from)
    story.words.push(word)
    story.at.undone = word.at
    story.undo = { reason }
    const entry = audit('campaign_moved', word.by, 'undone', `campaign ${id}, was ${from.state}: ${reason}`)
    // Who has just begun to carry it out, or noted what was blocked, came first: look again.
    if (!(await move(from, story, { state: 'undone', windowEndsAt: null, audit: entry })))
      return undo({ id, planSha256: sha256, said, reason })
    await step('campaign-undone')
    await ports.enforce()
    return campaignOf(await record(id))
  }

  /** Takes a campaign as far as it can be taken now. Never rejects: what fails is tried again at the next look. */
  function advance(id: string): Promise<void> {
    const before = working.get(id)
    if (before) return before
    const work = (async () => {
      try {
        while (!closed && (await oneStep(await record(id))));
        if (failing.delete(id)) log.info({ campaign: id }, 'a campaign goes on')
      } catch (error) {
        failed(id, error)
      } finally {
        working.delete(id)
      }
    })()
    working.set(id, work)
    return work
  }

  /** Said when it is news. */
  function failed(id: string, error: unknown): void {
    const before = failing.get(id)
    const why = error instanceof Error ? error.message : String(error)
    if (before?.why !== why) log.error({ campaign: id, err: error }, 'a campaign could not go on; it is tried again')
    const distance = before ? Math.min(before.distance * 2, retryLooksMax) : 1
    failing.set(id, { why, distance, left: distance })
  }

  /** Whether it is its turn at this look. */
  function isDue(id: string): boolean {
    const one = failing.get(id)
    return one === undefined || --one.left <= 0
  }

  /** False when there is nothing to do now. */
  async function oneStep(from: CampaignRecord): Promise<boolean> {
    const story = storyOf(from)
    switch (from.state) {
      case 'submitted': {
        if (now() < from.expiresAt) return false
        story.at.expired = now()
        return move(from, story, { state: 'expired', audit: audit('campaign_moved', '', 'expired', `campaign ${from.id}`) })
      }
      case 'quarantined': {
        if (story.blocked === null) return block(from, story)
        if (now() < (from.windowEndsAt ?? 0)) return false
        return begin(from, story)
      }
      case 'committing':
        return carryOut(from, story)
      default:
        return false
    }
  }

  /** What was issued since it was frozen, in the moment before the quarantine: the same devices' and so denied with them. */
  async function certificatesNow(
    from: CampaignRecord,
  ): Promise<{ certificates: Bytes; uncertified: Bytes; issuedThrough: number; isNew: boolean }> {
    const sets = await store.campaignSets(fleet, from.id)
    if (sets === null) throw new EstServerError('store_failed', `campaign ${from.id} has lost what it froze`)
    const since = await store.certificatesSince(fleet, sets.devices, from.issuedThrough)
    const isNew = since.certificates.length > 0
    const all = isNew
      ? packNumbers(mergeNumbers(unpackNumbers(sets.certificates), unpackNumbers(since.certificates)))
      : sets.certificates
    return { certificates: all, uncertified: sets.uncertified, issuedThrough: since.issuedThrough, isNew }
  }

  async function block(from: CampaignRecord, story: CampaignStory): Promise<boolean> {
    const { certificates, uncertified, issuedThrough, isNew } = await certificatesNow(from)
    const online = ports.online(numberSet(unpackNumbers(certificates)))
    const { sessionsCut, connectionsClosed } = await ports.enforce()
    // Whoever had none may have been given one before it was denied; nobody is since.
    const withoutCertificate = await store.withoutCertificate(uncertified, now())
    story.blocked = { at: now(), online, sessionsCut, connectionsClosed, withoutCertificate }
    const moved = await move(from, story, { issuedThrough, ...(isNew ? { certificates } : {}), audit: null })
    if (moved) await step('campaign-blocked')
    return true
  }

  /** From here on it cannot be undone; which certificates it takes is settled, since none has been issued to these devices since it denied them. */
  async function begin(from: CampaignRecord, story: CampaignStory): Promise<boolean> {
    const { certificates, issuedThrough } = await certificatesNow(from)
    story.at.committing = now()
    story.seqBefore = (await store.newestNotice(fleet))?.seq ?? 0
    const entry = audit('campaign_moved', '', 'committing', `campaign ${from.id}`)
    if (await move(from, story, { state: 'committing', certificates, issuedThrough, audit: entry }))
      await step('campaign-committing')
    return true
  }

  async function carryOut(from: CampaignRecord, story: CampaignStory): Promise<boolean> {
    const { plan: asked } = campaignOf(from)
    const sets = await store.campaignSets(fleet, from.id)
    if (sets === null) throw new EstServerError('store_failed', `campaign ${from.id} has lost what it froze`)
    const by = story.words.map(word => `${word.what} ${word.by}`).join(', ')
    const seq = (await byGroup(asked, by)) ?? (await byCertificates(from.id, sets, by))
    await step('campaign-revoked')
    const { sessionsCut } = await ports.enforce()
    story.at.committed = now()
    const certificates = unpackNumbers(sets.certificates).length
    story.commit = { seq, certificates, sessionsCut, audit: await auditEnd() }
    const entry = audit('campaign_moved', '', 'committed', `campaign ${from.id}: ${asked.devices.count} devices, notice ${seq}`)
    if (await move(from, story, { state: 'committed', audit: entry })) {
      log.info({ campaign: from.id, devices: asked.devices.count, seq }, 'campaign carried out')
      await step('campaign-committed')
      // It is revoked now and no longer held: brokers ask the rules alone.
      await ports.enforce()
    }
    return true
  }

  /** The notice that closed the group; null where the group is not, or no longer, what people agreed to, or would not reach them all. */
  async function byGroup({ rule, devices }: CampaignPlan, by: string): Promise<number | null> {
    // Whoever joined since was not in the plan.
    if (rule.kind !== 'group' || !(await hasStayed(rule.group, devices.count))) return null
    try {
      const { seq, gid, bound } = await revocation.revokeGroup({ group: rule.group, by })
      ports.onRevoked({ gid, bound })
      return seq
    } catch (error) {
      // Certificates from before their devices joined: one by one they are found.
      if (error instanceof EstServerError && error.code === 'group_not_covered') return null
      throw error
    }
  }

  async function byCertificates(campaign: string, frozen: { devices: Bytes; certificates: Bytes }, by: string): Promise<number> {
    const { seq } = await revocation.revokeFrozen({ ...frozen, by, campaign })
    ports.onRevoked(null)
    return seq
  }

  async function hasStayed(group: string, devices: number): Promise<boolean> {
    return (await store.groups(fleet)).find(({ name }) => name === group)?.devices === devices
  }

  async function auditEnd(): Promise<{ n: number; hash: string }> {
    const { audit: end } = await store.numbers([fleet])
    return { n: end.n, hash: hexOf(end.hash) }
  }

  async function look(): Promise<void> {
    const open = await store.campaigns({ fleet, states: ['submitted', 'quarantined', 'committing'], limit: pageRowsMax })
    for (const id of failing.keys()) if (!open.some(campaign => campaign.id === id)) failing.delete(id)
    await Promise.all(open.filter(({ id }) => isDue(id)).map(({ id }) => advance(id)))
  }

  function tend(): void {
    if (closed) return
    cancel = ports.later(lookSeconds, () => {
      look()
        .catch(error => {
          if (!closed) log.error({ err: error }, 'campaigns could not be looked at')
        })
        .finally(tend)
    })
  }

  return {
    plan,
    submit,
    approve,
    undo,
    get: async id => campaignOf(await record(id)),
    list: async limit => (await store.campaigns({ fleet, limit })).map(campaignOf),
    async resume() {
      await look().catch(error => log.error({ err: error }, 'campaigns could not be looked at'))
      tend()
    },
    async settled() {
      await Promise.all(working.values())
    },
    close() {
      closed = true
      cancel()
    },
  }
}
