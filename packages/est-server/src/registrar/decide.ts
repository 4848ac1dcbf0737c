// May this be issued? A pure function of the question and the facts: no clock, no store, no signature. The only maker of Approval, without
// which nothing is prepared. Rules come in the order in which their answers help: who may not at all, then what was asked wrongly. They are a
// list, so that `explain` walks the very rules that decide.

import { type Bytes, equalBytes, type GeneralName, hexOf, nameText } from '@birthmark/device-sdk/core'
import type { Claim } from './authenticate.ts'
import { type CertificateNames, NameError, namesText, sameNames, subjectName } from './name-template.ts'
import type { ProvenCsr } from './possession.ts'
import { certificateNames, type EnrollmentProfile, issuedUnder } from './profile.ts'
import { isRefusal, type Refusal, refusal } from './refusal.ts'
import { contentRefusal } from './requested-content.ts'
import type { RuleName } from './rule.ts'

/** What must be known of a device; the store's record has it. */
export interface DeviceFacts {
  key: number
  id: string
  fleet: string
  birthSpkiSha256: Bytes | null
  gids: number[]
  closedGids: number[]
  version: number
  idxFloor: number
  supersedes: number
  supersedesSince: number
  suspectedAt: number | null
  /** `quarantined`: denied for now, by a campaign that can still be undone. */
  hold: 'quarantined' | null
  /** By itself, not by a group, and not admitted again. */
  revoked: boolean
}

export interface CertificateFacts {
  issuer: Bytes
  serial: Bytes
  fleet: string
  deviceId: string
  idx: number
  gids: number[]
  spkiSha256: Bytes
  contentSha256: Bytes
  epoch: number
  notBefore: number
  notAfter: number
  secret: Bytes | null
  der: Bytes
}

export interface SecretFacts {
  deviceId: string
  expiresAt: number
  contentSha256: Bytes | null
  issued: boolean
}

/** What a person has said to a request, as far as it is remembered. */
export interface ApprovalFacts {
  id: number
  state: 'waiting' | 'approved' | 'denied'
  /** The issuance it is about; an earlier one's approval does not serve a later. */
  epoch: number
  expiresAt: number
  decidedBy: string
  reason: string
}

/** A claim with what the store knows about it. */
export type Identity =
  | Extract<Claim, { kind: 'birth' }>
  /** `subject`, `alternativeNames`: those of the recorded certificate. */
  | { kind: 'operational'; deviceId: string; certificate: CertificateFacts; subject: Bytes; alternativeNames: GeneralName[] }
  | { kind: 'secret'; deviceId: string; hash: Bytes; secret: SecretFacts }
  /** `use`: what spending the token is recorded under; null for a token that may be used again. */
  | { kind: 'token'; deviceId: string; use: Bytes | null; expiresAt: number }

export type OperationalIdentity = Extract<Identity, { kind: 'operational' }>

export interface Question<C extends CertificateFacts> {
  operation: 'enroll' | 'reenroll'
  /** By SCEP: see Entitlement.lenientNames. */
  lenientNames?: boolean
  profile: EnrollmentProfile
  identity: Identity
  csr: ProvenCsr
  /** Of requestContent(). */
  contentSha256: Bytes
  device: DeviceFacts | null
  latest: C | null
  same: C | null
  keyHolder: { deviceId: string; fleet: string; idx: number } | null
  birthKeyHolder: string | null
  /** Names of the device's groups; only looked up for a profile whose templates use them. */
  groups: readonly string[]
  /** Only looked up for a profile under which a person decides. */
  approval: ApprovalFacts | null
  /** SHA-256 of the SubjectPublicKeyInfo of every CA this server knows. */
  caKeys: Bytes[]
  /** Of the certificate that authenticates, or else of the device's last one. */
  status: 'good' | 'revoked' | 'unknown'
  now: number
}

declare const approved: unique symbol

/** That this CSR may be turned into a certificate of this device, and what recording it changes. */
export interface Approval {
  readonly [approved]: true
  readonly csr: ProvenCsr
  readonly contentSha256: Bytes
  readonly profile: EnrollmentProfile
  readonly device: DeviceFacts
  /** Groups of the certificate: the device's, without those that are revoked. */
  readonly gids: number[]
  readonly names: CertificateNames
  readonly epoch: number
  readonly secret: Bytes | null
  /** The person's word that it took; null where it took none. */
  readonly consent: number | null
  /** The floor of the device's idx from now on; 'own' for the idx that is about to be reserved: every earlier certificate is superseded. */
  readonly idxFloor: number | 'own'
  readonly supersedes: number
  readonly supersedesSince: number
}

export type Decision<C> =
  | { kind: 'approved'; approval: Approval }
  | { kind: 'again'; certificate: C }
  /** A person has to decide about issuance `epoch` of this content. */
  | { kind: 'pending'; epoch: number; names: CertificateNames }
  | ({ kind: 'refused' } & Refusal)

const same = (a: Bytes | null, b: Bytes | null) => a !== null && b !== null && equalBytes(a, b)

/**
 * The operation and the kind of credential: a matrix in which every field that is not named is a no. An operational certificate renews through
 * either operation: which rules apply hangs on the credential, not on the path, and clients of both habits exist (RFC 7030 3.3.2, 4.2.2).
 */
export function operationRefusal(operation: 'enroll' | 'reenroll', kind: Identity['kind']): Refusal | null {
  if (kind === 'operational' || operation === 'enroll') return null
  if (kind === 'birth')
    return refusal(
      'birth_certificate_on_reenroll',
      'renewing takes the current operational certificate; a birth certificate enrolls at simpleenroll',
    )
  return refusal('operational_certificate_required', 'renewing takes the current operational certificate, not a secret or token')
}

const iso = (seconds: number) => new Date(seconds * 1000).toISOString()

/** What a rule sees: the question, with a device that is known and, from `certificate.template` on, its names. */
type Case = Question<CertificateFacts> & { device: DeviceFacts; names: CertificateNames }

interface Rule {
  name: RuleName
  /** Null when the rule has nothing against it. */
  judge(c: Case): Refusal | null
  /** For `explain`: what it means that the rule passed; null when it does not apply. */
  passed(c: Case): string | null
}

/**
 * Whether the profile lets a device that was revoked, or is in a revoked group, prove its birth certificate again. What it got by that proof
 * renews as any other: its own certificate's status is asked, and no revoked group is in it.
 */
function readmits({ profile, identity, status }: Case): boolean {
  return profile.readmission === 'birth' && (identity.kind === 'birth' || (identity.kind === 'operational' && status === 'good'))
}

/** Who may not at all; then what may not be asked. After these, an equal request gets its earlier certificate. */
const standing: Rule[] = [
  {
    name: 'manifest',
    judge: ({ device, identity, profile }) => {
      if (device === null)
        return refusal('device_unknown', `device ${identity.deviceId} is in no manifest of fleet ${profile.fleet}`)
      if (identity.kind === 'birth' && device.birthSpkiSha256 === null)
        return refusal('device_unknown', `device ${device.id} is known, but no birth key of it is`)
      return null
    },
    passed: ({ device }) => `device ${device.id} is known`,
  },
  {
    name: 'birth.key',
    judge: ({ device, identity }) =>
      identity.kind === 'birth' && device.birthSpkiSha256 && !equalBytes(device.birthSpkiSha256, identity.spkiSha256)
        ? refusal('device_key_mismatch', `device ${device.id} was born with another key than this birth certificate's`)
        : null,
    passed: ({ identity }) => (identity.kind === 'birth' ? 'the birth key is the one on record' : null),
  },
  {
    name: 'device.groups',
    judge: c =>
      c.device.closedGids.length > 0 && !readmits(c)
        ? refusal('group_revoked', `device ${c.device.id} is in a revoked group (gid ${c.device.closedGids.join(', ')})`)
        : null,
    passed: ({ device }) =>
      device.closedGids.length > 0 ? 'a group of it is revoked; the profile readmits by birth' : 'none of its groups is revoked',
  },
  {
    name: 'device.status',
    judge: c => {
      const { device, status, identity } = c
      if (identity.kind === 'birth' && readmits(c)) return null
      // A list, a floor or an issuer's end in the store.
      if (status === 'revoked' || device.revoked) return refusal('device_revoked', `device ${device.id} is revoked`)
      // Anything but a plain yes is a no.
      return status === 'good' ? null : refusal('status_unknown', `whether device ${device.id} is revoked cannot be told now`)
    },
    passed: () => 'it is not revoked',
  },
  {
    name: 'device.quarantine',
    judge: ({ device }) =>
      device.hold === 'quarantined'
        ? refusal('device_quarantined', `device ${device.id} is in quarantine, which an operator may still lift`)
        : null,
    passed: () => 'it is not in quarantine',
  },
  {
    name: 'device.clone',
    // Which of the two is the device cannot be told from here, so neither gets anything until an operator has looked, or the window is over.
    judge: ({ device, now, profile }) =>
      device.suspectedAt !== null && now < device.suspectedAt + profile.supersedeWindowSeconds
        ? refusal('clone_suspected', `device ${device.id} is held back: several keys claimed its identity`)
        : null,
    passed: () => 'it is not held back',
  },
  {
    name: 'operation.credential',
    judge: ({ operation, identity }) => operationRefusal(operation, identity.kind),
    passed: ({ operation, identity }) => `${operation} takes ${credentials[identity.kind]}`,
  },
  {
    name: 'renewal.superseded',
    judge: ({ device, identity }) =>
      identity.kind === 'operational' && identity.certificate.idx < device.idxFloor
        ? refusal(
            'certificate_superseded',
            `the certificate with idx ${identity.certificate.idx} was superseded (floor ${device.idxFloor})`,
          )
        : null,
    passed: ({ identity }) => (identity.kind === 'operational' ? 'no newer certificate of the device is in use' : null),
  },
  {
    name: 'renewal.labels',
    // Its own profile admitted the device by other rules than these.
    judge: ({ profile, identity }) =>
      identity.kind === 'operational' && !issuedUnder(profile.renewal.labels, identity.certificate)
        ? refusal(
            'certificate_of_other_profile',
            `the certificate was issued under another label; here those of ${profile.renewal.labels.map(labelText).join(', ')} renew`,
          )
        : null,
    passed: ({ identity }) => (identity.kind === 'operational' ? 'it was issued under a label that renews here' : null),
  },
  {
    name: 'renewal.issuers',
    judge: ({ profile: { renewal }, identity }) => {
      if (identity.kind !== 'operational' || renewal.issuers === null) return null
      const issuer = hexOf(identity.certificate.issuer)
      return renewal.issuers.includes(issuer)
        ? null
        : refusal('issuer_not_admitted', `the certificate is of the issuer with key ${issuer}; the profile names others`)
    },
    passed: ({ identity, profile }) =>
      identity.kind === 'operational' && profile.renewal.issuers !== null ? 'its issuer is one of those named' : null,
  },
  {
    name: 'secret',
    judge: ({ device, identity, now }) =>
      identity.kind === 'secret' && now >= identity.secret.expiresAt
        ? refusal('secret_expired', `the secret of device ${device.id} has expired`)
        : null,
    passed: ({ identity }) => (identity.kind === 'secret' ? `the secret is good until ${iso(identity.secret.expiresAt)}` : null),
  },
  {
    name: 'certificate.template',
    judge: c => {
      try {
        c.names = certificateNames(c.profile, { id: c.device.id, fleet: c.profile.fleet, groups: c.groups })
        return null
      } catch (error) {
        if (!(error instanceof NameError)) throw error
        return refusal('name_not_possible', error.message)
      }
    },
    passed: ({ names, device }) =>
      `its subject is "${nameText(subjectName(names, device.id))}"${names.alternativeNames.length > 0 ? `, also ${namesText(names.alternativeNames)}` : ''}`,
  },
  {
    name: 'renewal.name',
    judge: ({ profile, identity, names, device }) => {
      if (identity.kind !== 'operational' || profile.renewal.nameMayChange) return null
      const given = subjectName(names, device.id)
      if (!equalBytes(given, identity.subject))
        return refusal(
          'subject_changed',
          `the profile now names the device "${nameText(given)}", its certificate says "${nameText(identity.subject)}"`,
        )
      return sameNames(names.alternativeNames, identity.alternativeNames)
        ? null
        : refusal(
            'subject_changed',
            `the profile's alternative names are now ${namesText(names.alternativeNames) || 'none'}, the certificate's ${namesText(identity.alternativeNames) || 'none'}`,
          )
    },
    passed: ({ identity, profile }) =>
      identity.kind === 'operational'
        ? profile.renewal.nameMayChange
          ? 'the profile lets the name change'
          : 'the name stays as it is'
        : null,
  },
  {
    name: 'certificate.subject',
    judge: c => contentRefusal(c.csr, entitlementOf(c)),
    passed: () => 'the CSR asks for no other name, purpose or extension',
  },
  {
    name: 'key.own',
    judge: c => keyRefusal(c, c.device),
    passed: () => "the key is the device's own, and not its birth key",
  },
]

const credentials = {
  birth: 'a birth certificate',
  operational: 'an operational certificate',
  secret: 'a one-time secret',
  token: 'a bearer token',
}
export const labelText = (label: string | null) => (label === null ? 'no label' : label)

function entitlementOf({ device, names, profile, identity, lenientNames = false }: Case) {
  const subject = 'subject' in identity ? identity.subject : null
  const purposes = profile.extendedKeyUsage
  return { deviceId: device.id, names, purposes, subject, renewal: identity.kind === 'operational', lenientNames }
}

/**
 * A device that was revoked and admitted again: its last certificate is superseded although no other followed it. Nothing that revoked it is
 * held against the device, and nothing is done with it any more.
 */
export function isForgiven(last: { idx: number }, device: { idxFloor: number } | null): boolean {
  return device !== null && last.idx < device.idxFloor
}

/** What stands against making a new certificate. */
const making: Rule[] = [
  {
    name: 'secret',
    judge: ({ identity, device, contentSha256: asked }) => {
      if (identity.kind !== 'secret') return null
      const { contentSha256, issued } = identity.secret
      // Spent on this very request without a certificate to show for it: the attempt died, and may be made again.
      return issued || (contentSha256 !== null && !equalBytes(contentSha256, asked))
        ? refusal('secret_used', `the secret of device ${device.id} was used`)
        : null
    },
    passed: ({ identity }) => (identity.kind === 'secret' ? 'the secret is unspent' : null),
  },
  {
    name: 'renewal.window',
    judge: c => {
      const opens = windowOpens(c)
      return opens === null || c.now >= opens
        ? null
        : refusal('renewal_too_early', `device ${c.device.id} may renew from ${iso(opens)} on`)
    },
    passed: c => {
      const opens = windowOpens(c)
      return opens === null ? null : `renewing is open since ${iso(opens)}`
    },
  },
  {
    name: 'renewal.byEnrolling',
    judge: ({ identity, latest, profile: { renewal }, device, now }) => {
      if (identity.kind === 'operational' || latest === null || renewal.byEnrolling === 'always') return null
      if (renewal.byEnrolling === 'expired' && now > latest.notAfter) return null
      if (isForgiven(latest, device)) return null
      const until = renewal.byEnrolling === 'expired' ? ` before ${iso(latest.notAfter)}` : ''
      return refusal('enrolling_again_not_allowed', `device ${device.id} is enrolled and does not enroll again${until}`)
    },
    passed: ({ identity, latest }) =>
      identity.kind === 'operational' || latest === null ? null : 'the profile lets an enrolled device enroll again',
  },
]

function windowOpens({ identity, profile: { renewal } }: Case): number | null {
  if (identity.kind !== 'operational' || renewal.windowFraction === 0) return null
  const { notBefore, notAfter } = identity.certificate
  return Math.ceil(notBefore + (notAfter - notBefore) * renewal.windowFraction)
}

/** The last word is a person's, who is asked about nothing that a rule refuses. */
function approvalVerdict(c: Case, epoch: number): Refusal | 'pending' | null {
  const { approval, profile, latest, now } = c
  if (!waitsForPerson(profile, latest)) return null
  if (approval === null || approval.epoch !== epoch || now >= approval.expiresAt || approval.state === 'waiting') return 'pending'
  if (approval.state === 'approved') return null
  const why = approval.reason === '' ? '' : `: ${approval.reason}`
  return refusal('approval_denied', `${approval.decidedBy} denied this request of device ${c.device.id}${why}`)
}

/**
 * Whether a new certificate takes a person's word: for every one, or for the first that the device has under this profile. One of a profile
 * that asked nobody is no person's word.
 */
export function waitsForPerson(profile: EnrollmentProfile, latest: CertificateFacts | null): boolean {
  return (
    profile.approval === 'every' ||
    (profile.approval === 'first' && !(latest && issuedUnder([profile.label, ...profile.renewal.labels], latest)))
  )
}

/** One rule's word, for `explain`. */
export interface Step {
  rule: RuleName
  detail: string
}

function keyRefusal<C extends CertificateFacts>(q: Question<C>, device: DeviceFacts): Refusal | null {
  const key = q.csr.spkiSha256
  if (same(device.birthSpkiSha256, key))
    return refusal('key_is_birth_key', 'the requested key is the birth key; an operational key is made anew')
  if (q.birthKeyHolder !== null)
    return refusal('key_of_another_device', `the requested key is the birth key of device ${q.birthKeyHolder}`)
  if (q.caKeys.some(ca => equalBytes(ca, key))) return refusal('key_is_ca_key', 'the requested key is the key of a CA')
  if (q.keyHolder === null) return null
  if (q.keyHolder.deviceId !== device.id || q.keyHolder.fleet !== device.fleet)
    return refusal('key_of_another_device', `the requested key is the key of device ${q.keyHolder.deviceId}`)
  if (q.keyHolder.idx < device.idxFloor || (q.identity.kind === 'birth' && q.status === 'revoked'))
    return refusal('key_revoked', 'the requested key belongs to a certificate that was superseded or revoked; make a new one')
  return null
}

/**
 * The certificate that an earlier, equal request got, if this one is to get it too: it is not superseded, not due for renewal (two thirds of
 * its life), and not the very certificate that authenticates a renewal of itself.
 */
function earlier<C extends CertificateFacts>(q: Question<C>, device: DeviceFacts): C | null {
  const c = q.same
  if (c === null || device.revoked || (q.identity.kind === 'birth' && q.status === 'revoked')) return null
  if (c.idx < device.idxFloor || q.now >= c.notBefore + ((c.notAfter - c.notBefore) * 2) / 3) return null
  if (q.identity.kind === 'operational' && c.idx <= q.identity.certificate.idx) return null
  if (q.identity.kind === 'secret' && !same(c.secret, q.identity.hash)) return null
  return c
}

/** `trace` is told every rule that passed and applies, in order. */
export function decide<C extends CertificateFacts>(q: Question<C>, trace?: (step: Step) => void): Decision<C> {
  const { identity, profile, latest } = q
  // One object for all rules; that a device is there and has names is what the first rules see to.
  const c = { ...q, names: null } as object as Case
  const forbidden = firstRefusal(standing, c, trace)
  if (forbidden !== null) return { kind: 'refused', ...forbidden }
  const { device, names } = c
  const again = earlier(q, device)
  if (again) return { kind: 'again', certificate: again }
  const unmakable = firstRefusal(making, c, trace)
  if (unmakable !== null) return { kind: 'refused', ...unmakable }

  const epoch = q.same === null ? 0 : q.same.epoch + 1
  const keyChange = superseding(q, device)
  if (isRefusal(keyChange)) return { kind: 'refused', ...keyChange }
  const word = approvalVerdict(c, epoch)
  if (word === 'pending') return { kind: 'pending', epoch, names }
  if (word !== null) return { kind: 'refused', ...word }
  if (trace && waitsForPerson(profile, latest)) trace({ rule: 'approval', detail: `${q.approval?.decidedBy} approved it` })
  const approval: Omit<Approval, typeof approved> = {
    csr: q.csr,
    contentSha256: q.contentSha256,
    profile,
    device,
    gids: device.closedGids.length === 0 ? device.gids : device.gids.filter(gid => !device.closedGids.includes(gid)),
    names,
    epoch,
    secret: identity.kind === 'secret' ? identity.hash : null,
    consent: waitsForPerson(profile, latest) ? (q.approval?.id ?? null) : null,
    idxFloor: keyChange.idxFloor,
    supersedes: keyChange.supersedes,
    supersedesSince: keyChange.supersedesSince,
  }
  return { kind: 'approved', approval: approval as Approval }
}

/** What the first rule that has anything against it says; the trace is told of those before. */
function firstRefusal(rules: readonly Rule[], c: Case, trace: ((step: Step) => void) | undefined): Refusal | null {
  for (let i = 0; i < rules.length; i++) {
    const against = rules[i].judge(c)
    if (against !== null) return against
    if (trace) tell(rules[i], c, trace)
  }
  return null
}

function tell(rule: Rule, c: Case, trace: (step: Step) => void): void {
  const detail = rule.passed(c)
  if (detail !== null) trace({ rule: rule.name, detail })
}

type KeyChange = Pick<Approval, 'idxFloor' | 'supersedes' | 'supersedesSince'>

/** What the new certificate does to those before it, unless it is one key too many for one identity. */
function superseding<C extends CertificateFacts>(q: Question<C>, device: DeviceFacts): KeyChange | Refusal {
  const { identity, profile, now, latest } = q
  // Renewing retires what came before the certificate that is in use; that one stays good until its successor is used.
  const used = identity.kind === 'operational' ? identity.certificate : null
  const inUse = used ? Math.max(device.idxFloor, used.idx) : device.idxFloor
  const { supersedes, supersedesSince } = device
  // A revoked certificate is nobody's live one: readmission is no second device.
  const revoked = identity.kind === 'birth' && q.status === 'revoked'
  const live = latest !== null && !revoked && latest.notAfter > now && latest.idx >= device.idxFloor && latest.idx !== used?.idx
  if (!live || equalBytes(latest.spkiSha256, q.csr.spkiSha256)) {
    return { idxFloor: used || live ? inUse : 'own', supersedes, supersedesSince }
  }
  // A second live key for one identity. Once it is a device that was reset; again, and it is rather two devices with one identity.
  const inWindow = now < supersedesSince + profile.supersedeWindowSeconds
  if (inWindow && supersedes >= profile.supersedesMax)
    return refusal(
      'clone_suspected',
      `device ${device.id} asks for a new key beside a live one for the ${supersedes + 1}. time since ${supersedesSince}`,
    )
  const counted = inWindow ? { supersedes: supersedes + 1, supersedesSince } : { supersedes: 1, supersedesSince: Math.floor(now) }
  return { idxFloor: used ? inUse : 'own', ...counted }
}
