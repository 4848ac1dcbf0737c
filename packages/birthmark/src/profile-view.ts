// A profile as people and scripts see it: what it says in plain values, then in lines, and what its author may not have meant.

import { nameText, oidText } from '@birthmark/device-sdk/core'
import { type EnrollmentProfile, purposeText } from '@birthmark/est-server'

export interface ProfileView {
  label: string | null
  fleet: string
  birthAnchors: string[]
  requireManifest: boolean
  serialPattern: string | null
  uriPattern: string | null
  admitSecrets: boolean
  /** The issuer of bearer tokens. */
  tokens: string | null
  /** Host of the owner's system. */
  webhook: string | null
  groups: string[]
  subject: string[]
  alternativeNames: string[]
  lifetimeSeconds: number
  backdateSeconds: number
  keys: string[]
  purposes: string[]
  approval: EnrollmentProfile['approval']
  readmission: EnrollmentProfile['readmission']
  gateways: EnrollmentProfile['gateways']
  renewal: EnrollmentProfile['renewal']
  possession: EnrollmentProfile['possession']
  serverKeys: EnrollmentProfile['serverKeys']
  /** What may not be meant. */
  cautions: string[]
}

export function viewOfProfile(p: EnrollmentProfile): ProfileView {
  const spiffe = p.trustDomain === null ? [] : [`uri:spiffe://${p.trustDomain}/${p.fleet}/{id}`]
  return {
    label: p.label,
    fleet: p.fleet,
    birthAnchors: p.birthAnchors.map(anchor => nameText(anchor.subject)),
    requireManifest: p.requireManifest,
    serialPattern: p.serialPattern?.source ?? null,
    uriPattern: p.uriPattern?.source ?? null,
    admitSecrets: p.admitSecrets,
    tokens: p.tokens?.issuer ?? null,
    webhook: p.webhook?.url.host ?? null,
    groups: [...p.groups],
    subject: p.subject === 'device' ? ['CN={id}', 'serialNumber={id}'] : [...p.subject.source],
    alternativeNames: [...spiffe, ...p.alternativeNames.map(({ source }) => source)],
    lifetimeSeconds: p.lifetimeSeconds,
    backdateSeconds: p.backdateSeconds,
    keys: [...p.keys],
    purposes: p.extendedKeyUsage.map(oid => purposeText(oidText(oid))),
    approval: p.approval,
    readmission: p.readmission,
    gateways: p.gateways,
    renewal: p.renewal,
    possession: p.possession,
    serverKeys: p.serverKeys,
    cautions: cautionsOf(p),
  }
}

function cautionsOf(p: EnrollmentProfile): string[] {
  const cautions: string[] = []
  const open = p.birthAnchors.length > 0 && !p.requireManifest && !p.serialPattern && !p.uriPattern
  if (open && p.approval === 'none' && p.webhook === null)
    cautions.push('every device that its anchors ever certified enrolls: no manifest, no pattern, nobody is asked')
  for (const { source, fixed, template } of p.alternativeNames)
    if (fixed !== null || !template.parts.some(part => typeof part !== 'string' && part.fact === 'id'))
      cautions.push(`several devices get the name ${source}: it lacks {id}`)
  const serves = p.extendedKeyUsage.map(oid => purposeText(oidText(oid))).includes('serverAuth')
  if (serves && !p.alternativeNames.some(({ kind }) => kind === 'dns' || kind === 'ip'))
    cautions.push('serverAuth without a dns: or ip: name: no TLS client will find the name it looks for')
  if (p.renewal.byEnrolling === 'never' && p.renewal.graceSeconds === 0)
    cautions.push('a device whose certificate has ended can neither renew nor enroll again')
  return cautions
}

/** `90d`, `12h`, … the largest unit that fits. */
export function durationText(seconds: number): string {
  for (const [unit, length] of [
    ['d', 86_400],
    ['h', 3600],
    ['m', 60],
  ] as const)
    if (seconds > 0 && seconds % length === 0) return `${seconds / length}${unit}`
  return `${seconds}s`
}

export const labelName = (label: string | null) => (label === null ? '(no label)' : label)

export function profileLines(v: ProfileView): string[] {
  const birth = [
    `birth certificates under ${v.birthAnchors.length} ${v.birthAnchors.length === 1 ? 'anchor' : 'anchors'}`,
    ...(v.requireManifest ? ['in an imported manifest'] : ['known or not']),
    ...(v.serialPattern ? [`serial ${v.serialPattern}`] : []),
    ...(v.uriPattern ? [`URI ${v.uriPattern}`] : []),
  ].join(', ')
  const admits = [
    ...(v.birthAnchors.length > 0 ? [birth] : []),
    ...(v.admitSecrets ? ['one-time secrets'] : []),
    ...(v.tokens ? [`tokens of ${v.tokens}`] : []),
  ].join('; ')
  const { windowFraction, graceSeconds, nameMayChange, labels, issuers, byEnrolling } = v.renewal
  const renewal = [
    windowFraction === 0 ? 'at any time' : `from ${Math.round(windowFraction * 100)}% of the life`,
    graceSeconds === 0 ? 'until the end' : `until ${durationText(graceSeconds)} after the end`,
    nameMayChange ? 'the name may change' : 'the name stays',
    ...(labels.length === 1 && labels[0] === v.label ? [] : [`certificates of ${labels.map(labelName).join(', ')}`]),
    ...(issuers ? [`issuers ${issuers.map(id => id.slice(0, 16)).join(', ')}`] : []),
    ...(byEnrolling === 'always' ? [] : [`enrolling again: ${byEnrolling === 'never' ? 'never' : 'once expired'}`]),
  ].join(', ')
  return [
    `admits       ${admits}${v.webhook ? `; and ${v.webhook} is asked` : ''}`,
    `subject      ${v.subject.join(', ')}`,
    ...(v.alternativeNames.length > 0 ? [`names        ${v.alternativeNames.join(', ')}`] : []),
    `for          ${v.purposes.join(', ')}; ${durationText(v.lifetimeSeconds)}; keys ${v.keys.join(', ')}`,
    `renewal      ${renewal}`,
    ...(v.approval === 'none'
      ? []
      : [`approval     by hand: ${v.approval === 'first' ? 'the first enrollment' : 'every certificate'}`]),
    ...(v.gateways ? [`gateways     devices in ${v.gateways.join(', ')} carry requests of others`] : []),
    ...(v.readmission === 'birth' ? ['readmission  a revoked device, by its birth certificate'] : []),
    ...(v.possession === 'channel' ? ['possession   the CSR names its TLS session'] : []),
    ...(v.serverKeys ? [`server keys  on request${v.serverKeys === 'plain' ? ', unwrapped inside TLS' : ''}`] : []),
  ]
}
