// A campaign in words: what a plan stands for, and how far it has come.

import { type CampaignPlan, type ConsumerProof, isProven } from '@birthmark/est-server'
import type { CampaignView } from '../campaign-administration.ts'
import { printable } from '../terminal.ts'
import { counted, quoted } from './common.ts'

const shownMax = 5

export const uncertified = (count: number) => `${counted(count, 'device')} without a certificate`

function some(rows: readonly { name: string; selected: number; devices: number }[], count: number): string {
  const shown = rows.slice(0, shownMax).map(({ name, selected, devices }) => `${printable(name)} (${selected} of ${devices})`)
  return `${shown.join(', ')}${count > shown.length ? `, and ${count - shown.length} more` : ''}`
}

export function planLines(plan: CampaignPlan): string[] {
  const { radius, devices } = plan
  const share = radius.fleetDevices === 0 ? 0 : (100 * devices.count) / radius.fleetDevices
  const { hour, day, week, month, older, never } = radius.lastSeen
  const gateways = radius.soleGateways.slice(0, shownMax).map(({ site, devices: there }) => `${printable(site)} (${there} devices)`)
  return [
    `${counted(devices.count, 'device')} (${share.toFixed(1)} % of the fleet) by ${plan.select ? printable(plan.select) : 'no selector: all of them'}`,
    `  reason      ${printable(plan.reason)}`,
    `  state       ${radius.enrolled} enrolled with ${counted(plan.certificates, 'certificate')}, ${radius.known} not yet`,
    ...(radius.withoutCertificate > 0
      ? [`  refused     ${uncertified(radius.withoutCertificate)}: at enrollment; no notice can name them`]
      : []),
    `  online now  ${plan.online === null ? 'unknown: the broker is another’s' : plan.online}`,
    `  issued to   ${hour} within an hour, ${day} a day, ${week} a week, ${month} a month, ${older} longer ago, ${never} never`,
    ...(radius.groupCount > 0 ? [`  groups      ${some(radius.groups, radius.groupCount)}`] : []),
    ...(radius.siteCount > 0 ? [`  sites       ${some(radius.sites, radius.siteCount)}`] : []),
    ...(radius.ownerCount > 0 ? [`  owners      ${some(radius.owners, radius.ownerCount)}`] : []),
    ...(gateways.length > 0
      ? [
          `  ! the last gateway of ${gateways.join(', ')}${radius.soleGatewayCount > gateways.length ? `, and ${radius.soleGatewayCount - gateways.length} more sites` : ''}`,
        ]
      : []),
    `  by          ${plan.rule.kind === 'group' ? `one rule for the group ${printable(plan.rule.group)}` : 'its certificates, one by one'}`,
    `  then        ${plan.approvalNeeded ? 'a second person approves; ' : ''}${plan.windowSeconds === 0 ? 'at once, and for good' : `denied for ${span(plan.windowSeconds)}, in which it can be undone`}`,
  ]
}

export const iso = (seconds: number) => `${new Date(seconds * 1000).toISOString().slice(0, 19)}Z`

export function span(seconds: number): string {
  if (seconds % 86_400 === 0 && seconds > 0) return `${seconds / 86_400} d`
  if (seconds % 3600 === 0 && seconds > 0) return `${seconds / 3600} h`
  return seconds % 60 === 0 && seconds > 0 ? `${seconds / 60} min` : `${seconds} s`
}

export function lastWord(view: CampaignView): string {
  const word = view.words.at(-1)
  return word ? `${word.what} ${printable(word.by)} ${new Date(word.at * 1000).toISOString().slice(0, 16).replace('T', ' ')}` : ''
}

/** A list and what is said of it: `CRL acme/0 number 12 of 2026-11-23T03:24:51Z`. */
function consumersText(proof: ConsumerProof, fleet: string): string {
  const { live, unlisted, read } = proof
  if (live === 0) return 'it has no certificate that has not ended'
  const untold = `${unlisted} of ${counted(live, 'certificate')} on no list here: another CA issued ${unlisted === 1 ? 'it' : 'them'}`
  if (read === 0) return unlisted > 0 ? untold : `none of ${counted(live, 'certificate')} was found on a list`
  return unlisted > 0 ? `${untold}; ${listsText(proof, fleet)}` : listsText(proof, fleet)
}

function listsText({ certificates, listed, lists, read, ocspRevoked, shown }: ConsumerProof, fleet: string): string {
  const [first] = shown
  const which = `${read === 1 ? '' : 'such as '}${fleet}/${first.shard} number ${first.crlNumber} of ${iso(first.thisUpdate)}`
  const some = read < lists ? ` (${read} of ${lists} lists read)` : ''
  const found =
    listed === certificates ? counted(listed, 'certificate') : `only ${listed} of ${counted(certificates, 'certificate')}`
  const asked = first.ocspThisUpdate === null ? '' : `, as of ${iso(first.ocspThisUpdate)}`
  const said =
    ocspRevoked === read ? `revoked${read === 1 ? '' : ` of ${read} asked about`}` : `revoked of only ${ocspRevoked} of ${read}`
  return `${found} on ${counted(read, 'CRL')}, ${which}${some}; OCSP says ${said}${asked}`
}

type Stages = CampaignView['stages']

const consumersName = 'CRL and OCSP'

/** What CRLs and OCSP say of a campaign, and whether that is all that they should. */
export function consumersSaid(stage: Stages['standardConsumers'], fleet: string): { done: boolean; what: string } {
  if (stage.kind === 'not offered') return { done: false, what: 'not offered here' }
  if (stage.kind === 'waiting') return { done: false, what: '' }
  if (stage.kind === 'unavailable') return { done: false, what: `cannot be had now: ${printable(stage.detail)}` }
  return { done: isProven(stage.proof), what: consumersText(stage.proof, fleet) }
}

function partiesText({ confirmed, of, missing }: NonNullable<Stages['relyingParties']>): string {
  const rest = of - confirmed - Math.min(missing.length, shownMax)
  const named = missing.slice(0, shownMax).map(printable).join(', ')
  const without = named === '' ? '' : `, without ${named}${rest > 0 ? ` and ${rest} more` : ''}`
  return `${confirmed} of ${of} relying parties${without}`
}

const undeliveredText = (count: number) => `${counted(count, 'notice')} ${count === 1 ? 'waits' : 'wait'} for the broker`

/** Of a campaign that is carried out: who has not confirmed it, in words. Devices are not among them: one that is switched off can't. */
export function unconfirmed({ stages, plan }: Pick<CampaignView, 'stages' | 'plan'>): string[] {
  const { undelivered, relyingParties, standardConsumers } = stages
  const consumers = consumersSaid(standardConsumers, plan.fleet)
  const isAsked = standardConsumers.kind !== 'not offered'
  return [
    ...(undelivered ? [undeliveredText(undelivered)] : []),
    ...(relyingParties && relyingParties.confirmed < relyingParties.of ? [partiesText(relyingParties)] : []),
    ...(isAsked && !consumers.done ? [`${consumersName}: ${consumers.what || 'not asked yet'}`] : []),
  ]
}

/** What to do about relying parties that will never say anything again. One that is configured is waited for until it is taken out there. */
export function retiringText(missing: readonly string[], configured: readonly string[], dirOption: string): string {
  const named = missing.filter(name => configured.includes(name)).map(printable)
  const shown = [...named.slice(0, shownMax), ...(named.length > shownMax ? ['…'] : [])].join(', ')
  const others = missing.filter(name => !configured.includes(name))
  const steps = [
    ...(others.length > 0
      ? [`birthmark revoke parties --forget ${others.length > 1 ? 'NAME' : quoted(others[0])}${dirOption}`]
      : []),
    ...(named.length > 0 ? [`take it (${shown}) out of mqtt.services in the configuration, and start the server again`] : []),
  ]
  return steps.length > 0 ? `; if a relying party is retired: ${steps.join('; or ')}` : ''
}

/** A line a stage; `✔` for what is done. */
export function stageLines(
  { stages, state, plan, words, undone }: CampaignView,
  now: number,
  windowEndsAt: number | null,
): string[] {
  const { blocked, revoked, relyingParties } = stages
  const line = (done: boolean, name: string, what: string) => `${done ? '✔' : '·'} ${name.padEnd(16)}${what}`.trimEnd()
  if (state === 'undone') return [`✔ undone          ${printable(undone ?? '')}`]
  if (state === 'expired') return ['✘ expired         nobody approved it in time']
  const left = windowEndsAt === null ? 0 : Math.max(0, Math.ceil(windowEndsAt - now))
  const said = words.map(({ what, by }) => `${what} ${printable(by)}`).join(', ')
  const cut = blocked?.sessionsCut ?? null
  const parties = relyingParties === null || relyingParties.of === 0 ? '' : `${partiesText(relyingParties)}; `
  const consumers = consumersSaid(stages.standardConsumers, plan.fleet)
  return [
    line(true, 'planned', counted(plan.devices.count, 'device')),
    line(state !== 'planned' && state !== 'submitted', 'agreed', state === 'submitted' ? 'waits for a second person' : said),
    line(
      blocked !== null,
      'broker blocked',
      blocked ? `${counted(blocked.devices, 'device')}${blocked.online === null ? '' : `, ${blocked.online} were online`}` : '',
    ),
    line(
      blocked !== null,
      'session cut',
      blocked ? (cut === null ? 'by the external broker’s own rules' : counted(cut, 'session')) : '',
    ),
    ...(blocked && blocked.withoutCertificate > 0
      ? [line(true, 'refused', `${uncertified(blocked.withoutCertificate)}, at enrollment`)]
      : []),
    line(
      revoked !== null,
      'revoked',
      revoked ? `notice ${revoked.seq}` : state === 'quarantined' ? `in ${left} s; until then: undo` : '',
    ),
    line(
      revoked !== null && stages.undelivered === 0,
      'notified',
      revoked ? (stages.undelivered === 0 ? 'the broker has all notices' : undeliveredText(stages.undelivered ?? 0)) : '',
    ),
    line(
      relyingParties !== null && relyingParties.confirmed === relyingParties.of && stages.blockedNotAcked === 0,
      'acked',
      `${parties}${stages.told === 1 ? '1 device was' : `${stages.told} devices were`} told, ${stages.blockedNotAcked} blocked and not acked`,
    ),
    line(consumers.done, consumersName, consumers.what),
  ]
}
