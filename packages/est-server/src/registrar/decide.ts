// May this be issued? A pure function of the question and the facts: no clock, no store, no signature. The only maker of Approval, without
// which nothing is prepared. Rules come in the order in which their answers help: who may not at all, then what was asked wrongly.

import { type Bytes, equalBytes } from '@birthmark/device-sdk/core'
import type { Claim } from './authenticate.ts'
import type { ProvenCsr } from './possession.ts'
import { type EnrollmentProfile, spiffeId } from './profile.ts'
import { type Refusal, type RefusalCode, refusal } from './refusal.ts'
import { contentRefusal } from './requested-content.ts'

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
}

export interface CertificateFacts {
  issuer: Bytes
  serial: Bytes
  fleet: string
  deviceId: string
  idx: number
  gids: number[]
  spkiSha256: Bytes
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

/** A claim with what the store knows about it. */
export type Identity =
  | Extract<Claim, { kind: 'birth' }>
  /** `subject`: that of the recorded certificate. */
  | { kind: 'operational'; deviceId: string; certificate: CertificateFacts; subject: Bytes }
  | { kind: 'secret'; deviceId: string; hash: Bytes; secret: SecretFacts }

export interface Question<C extends CertificateFacts> {
  operation: 'enroll' | 'reenroll'
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
  readonly uri: string | null
  readonly epoch: number
  readonly secret: Bytes | null
  /** The floor of the device's idx from now on; 'own' for the idx that is about to be reserved: every earlier certificate is superseded. */
  readonly idxFloor: number | 'own'
  readonly supersedes: number
  readonly supersedesSince: number
}

export type Decision<C> =
  | { kind: 'approved'; approval: Approval }
  | { kind: 'again'; certificate: C }
  | ({ kind: 'refused' } & Refusal)

const same = (a: Bytes | null, b: Bytes | null) => a !== null && b !== null && equalBytes(a, b)

/** The operation and the kind of credential: a matrix in which every field that is not named is a no. */
export function operationRefusal(operation: 'enroll' | 'reenroll', kind: Identity['kind']): Refusal | null {
  if (operation === 'reenroll') {
    if (kind === 'operational') return null
    if (kind === 'birth')
      return refusal(
        'birth_certificate_on_reenroll',
        'renewing takes the current operational certificate; a birth certificate enrolls at simpleenroll',
      )
    return refusal('operational_certificate_required', 'renewing takes the current operational certificate, not a secret')
  }
  // An operational certificate here would be a renewal that the rules of renewals (same subject, RFC 7030 4.2.2) do not see.
  if (kind === 'operational')
    return refusal('operational_certificate_on_enroll', 'an operational certificate is renewed at simplereenroll')
  return null
}

function identityRefusal<C extends CertificateFacts>(q: Question<C>): Refusal | null {
  const { device, identity } = q
  if (device === null) return refusal('device_unknown', `device ${identity.deviceId} is in no manifest of fleet ${q.profile.fleet}`)
  if (identity.kind === 'birth') {
    if (device.birthSpkiSha256 === null) return refusal('device_unknown', `device ${device.id} is known, but no birth key of it is`)
    if (!equalBytes(device.birthSpkiSha256, identity.spkiSha256))
      return refusal('device_key_mismatch', `device ${device.id} was born with another key than this birth certificate's`)
  }
  if (device.closedGids.length > 0)
    return refusal('group_revoked', `device ${device.id} is in a revoked group (gid ${device.closedGids.join(', ')})`)
  if (q.status === 'revoked') return refusal('device_revoked', `device ${device.id} is revoked`)
  // Anything but a plain yes is a no.
  if (q.status !== 'good') return refusal('status_unknown', `whether device ${device.id} is revoked cannot be told now`)
  // Which of the two is the device cannot be told from here, so neither gets anything until an operator has looked, or the window is over.
  if (device.suspectedAt !== null && q.now < device.suspectedAt + q.profile.supersedeWindowSeconds)
    return refusal('clone_suspected', `device ${device.id} is held back: several keys claimed its identity`)
  const wrong = operationRefusal(q.operation, identity.kind)
  if (wrong) return wrong
  if (identity.kind === 'operational' && identity.certificate.idx < device.idxFloor)
    return refusal(
      'certificate_superseded',
      `the certificate with idx ${identity.certificate.idx} was superseded (floor ${device.idxFloor})`,
    )
  if (identity.kind === 'secret' && q.now >= identity.secret.expiresAt)
    return refusal('secret_expired', `the secret of device ${device.id} has expired`)
  return null
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
  if (q.keyHolder.idx < device.idxFloor)
    return refusal('key_revoked', 'the requested key belongs to a superseded certificate; make a new one')
  return null
}

/**
 * The certificate that an earlier, equal request got, if this one is to get it too: it is not superseded, not due for renewal (two thirds of
 * its life), and not the very certificate that authenticates a renewal of itself.
 */
function earlier<C extends CertificateFacts>(q: Question<C>, device: DeviceFacts): C | null {
  const c = q.same
  if (c === null || c.idx < device.idxFloor || q.now >= c.notBefore + ((c.notAfter - c.notBefore) * 2) / 3) return null
  if (q.identity.kind === 'operational' && c.idx <= q.identity.certificate.idx) return null
  if (q.identity.kind === 'secret' && !same(c.secret, q.identity.hash)) return null
  return c
}

export function decide<C extends CertificateFacts>(q: Question<C>): Decision<C> {
  const refused = (code: RefusalCode, detail: string): Decision<C> => ({ kind: 'refused', code, detail })
  const { identity, profile, now, latest } = q
  const bad = identityRefusal(q)
  if (bad) return { kind: 'refused', ...bad }
  const device = q.device as DeviceFacts

  const uri = spiffeId(profile, device.id)
  if (uri === '')
    return refused('device_id_not_allowed', `the device id ${device.id} has no SPIFFE spelling (no colon, no dot segment)`)
  const subject = identity.kind === 'secret' ? null : identity.subject
  const content = contentRefusal(q.csr, { deviceId: device.id, uri, subject, renewal: identity.kind === 'operational' })
  if (content) return { kind: 'refused', ...content }
  const key = keyRefusal(q, device)
  if (key) return { kind: 'refused', ...key }

  const again = earlier(q, device)
  if (again) return { kind: 'again', certificate: again }
  if (identity.kind === 'secret') {
    const { contentSha256, issued } = identity.secret
    // Spent on this very request without a certificate to show for it: the attempt died, and may be made again.
    if (issued || (contentSha256 !== null && !equalBytes(contentSha256, q.contentSha256)))
      return refused('secret_used', `the secret of device ${device.id} was used`)
  }

  const approval = {
    csr: q.csr,
    contentSha256: q.contentSha256,
    profile,
    device,
    uri,
    epoch: q.same === null ? 0 : q.same.epoch + 1,
    secret: identity.kind === 'secret' ? identity.hash : null,
  }
  // Renewing retires what came before the certificate that is in use; that one stays good until its successor is used.
  const used = identity.kind === 'operational' ? identity.certificate : null
  const inUse = used ? Math.max(device.idxFloor, used.idx) : device.idxFloor
  const { supersedes, supersedesSince } = device
  const live = latest !== null && latest.notAfter > now && latest.idx >= device.idxFloor && latest.idx !== used?.idx
  if (!live || equalBytes(latest.spkiSha256, q.csr.spkiSha256)) {
    const idxFloor = used || live ? inUse : 'own'
    return { kind: 'approved', approval: { ...approval, idxFloor, supersedes, supersedesSince } as Approval }
  }
  // A second live key for one identity. Once it is a device that was reset; again, and it is rather two devices with one identity.
  const inWindow = now < supersedesSince + profile.supersedeWindowSeconds
  if (inWindow && supersedes >= profile.supersedesMax)
    return refused(
      'clone_suspected',
      `device ${device.id} asks for a new key beside a live one for the ${supersedes + 1}. time since ${supersedesSince}`,
    )
  const counted = inWindow ? { supersedes: supersedes + 1, supersedesSince } : { supersedes: 1, supersedesSince: Math.floor(now) }
  return { kind: 'approved', approval: { ...approval, idxFloor: used ? inUse : 'own', ...counted } as Approval }
}
