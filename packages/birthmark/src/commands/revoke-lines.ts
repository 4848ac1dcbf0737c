// A campaign in words: what a plan stands for, and how far it has come.

import type { CampaignPlan } from '@birthmark/est-server'
import type { CampaignView } from '../campaign-administration.ts'
import { printable } from '../terminal.ts'

const shownMax = 5

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
    `${devices.count} devices (${share.toFixed(1)} % of the fleet) by ${plan.select ? printable(plan.select) : 'no selector: all of them'}`,
    `  reason      ${printable(plan.reason)}`,
    `  state       ${radius.enrolled} enrolled with ${plan.certificates} certificates, ${radius.known} not yet`,
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

export function span(seconds: number): string {
  if (seconds % 86_400 === 0 && seconds > 0) return `${seconds / 86_400} d`
  if (seconds % 3600 === 0 && seconds > 0) return `${seconds / 3600} h`
  return seconds % 60 === 0 && seconds > 0 ? `${seconds / 60} min` : `${seconds} s`
}

export function lastWord(view: CampaignView): string {
  const word = view.words.at(-1)
  return word ? `${word.what} ${printable(word.by)} ${new Date(word.at * 1000).toISOString().slice(0, 16).replace('T', ' ')}` : ''
}

function partiesText({ confirmed, of, missing }: NonNullable<CampaignView['stages']['relyingParties']>): string {
  const rest = of - confirmed - Math.min(missing.length, shownMax)
  const named = missing.slice(0, shownMax).map(printable).join(', ')
  const without = named === '' ? '' : `, without ${named}${rest > 0 ? ` and ${rest} more` : ''}`
  return `${confirmed} of ${of} relying parties${without}; `
}

/** A line a stage; `✔` for what is done. */
export function stageLines({ stages, state, plan, undone }: CampaignView, now: number, windowEndsAt: number | null): string[] {
  const { blocked, revoked, relyingParties } = stages
  const line = (done: boolean, name: string, what: string) => `${done ? '✔' : '·'} ${name.padEnd(16)}${what}`
  if (state === 'undone') return [`✔ undone          ${printable(undone ?? '')}`]
  if (state === 'expired') return ['✘ expired         nobody approved it in time']
  const left = windowEndsAt === null ? 0 : Math.max(0, Math.ceil(windowEndsAt - now))
  const cut = blocked?.sessionsCut ?? null
  return [
    line(true, 'planned', `${plan.devices.count} devices`),
    line(state !== 'planned' && state !== 'submitted', 'agreed', state === 'submitted' ? 'waits for a second person' : ''),
    line(
      blocked !== null,
      'broker blocked',
      blocked ? `${blocked.devices} devices${blocked.online === null ? '' : `, ${blocked.online} were online`}` : '',
    ),
    line(blocked !== null, 'session cut', blocked ? (cut === null ? 'by the external broker’s own rules' : `${cut} sessions`) : ''),
    line(
      revoked !== null,
      'revoked',
      revoked ? `notice ${revoked.seq}` : state === 'quarantined' ? `in ${left} s; until then: undo` : '',
    ),
    line(
      revoked !== null && stages.undelivered === 0,
      'notified',
      revoked
        ? stages.undelivered === 0
          ? 'the broker has all notices'
          : `${stages.undelivered} notices wait for the broker`
        : '',
    ),
    line(
      relyingParties !== null && relyingParties.confirmed === relyingParties.of,
      'acked',
      `${relyingParties === null ? '' : partiesText(relyingParties)}${stages.told} devices were told, ${stages.blockedNotAcked} blocked and not acked`,
    ),
    line(
      revoked !== null,
      'CRL and OCSP',
      stages.standardConsumers === 'not offered' ? 'not offered here' : revoked ? 'say so when asked' : '',
    ),
  ]
}
