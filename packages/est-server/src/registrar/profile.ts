// An enrollment profile: whom one EST label admits, and the shape of what it hands out. Parsed once, then only read.

import { anchorOf, type Bytes, parseCertificate, type TrustAnchor } from '@birthmark/device-sdk/core'
import { EstServerError } from '../errors.ts'
import { sha256 } from '../node-crypto.ts'

export interface ProfileOptions {
  fleet: string
  /** EST label (RFC 7030 3.2.2) under which it is reached; null, the default, for requests without one. */
  label?: string | null
  /** DER certificates of the manufacturers whose birth certificates admit. */
  birthAnchors: Bytes[]
  /** Only serials of an imported manifest enroll (the default). Off: any birth certificate under the anchors, its key pinned at first sight. */
  requireManifest?: boolean
  /** Whether a one-time secret admits. Off by default. */
  admitSecrets?: boolean
  /** Groups of devices that are admitted without a manifest. */
  groups?: string[]
  /** Seconds a certificate lives: 10 minutes to 30 years, never beyond the issuer. */
  lifetimeSeconds: number
  /** Seconds before now at which it starts, for poor clocks. 300 unless told. */
  backdateSeconds?: number
  /** SPIFFE trust domain; certificates then carry spiffe://<domain>/<fleet>/<device id>. */
  trustDomain?: string | null
  keys?: string[]
  /** How often within `supersedeWindowSeconds` a device may replace a live certificate's key otherwise than by renewing it. */
  supersedesMax?: number
  supersedeWindowSeconds?: number
}

export type EnrollmentProfile = Readonly<
  Required<Omit<ProfileOptions, 'birthAnchors'>> & {
    birthAnchors: TrustAnchor[]
    keys: readonly string[]
    groups: readonly string[]
  }
>

const defaultKeys = ['P-256', 'P-384', 'Ed25519', 'RSA']
const group = /^[\x21-\x7e]{1,128}$/

export function isGroupName(name: string): boolean {
  return group.test(name)
}

/** Throws `profile_invalid` with what is wrong. */
export function enrollmentProfile(o: ProfileOptions): EnrollmentProfile {
  const wrong = (detail: string) => new EstServerError('profile_invalid', detail)
  if (!/^[a-z0-9-]{1,32}$/.test(o.fleet)) throw wrong('fleet: 1 to 32 of a-z, 0-9 and hyphen')
  // RFC 7030 3.2.2: a label is a path segment and none of EST's own operation names.
  const operations = ['cacerts', 'simpleenroll', 'simplereenroll', 'fullcmc', 'serverkeygen', 'csrattrs']
  if (o.label != null && (!/^[A-Za-z0-9._-]{1,64}$/.test(o.label) || operations.includes(o.label) || o.label.startsWith('.')))
    throw wrong('label: 1 to 64 of A-Z, a-z, 0-9, dot, underscore, hyphen, and no EST operation')
  if (!(o.lifetimeSeconds >= 600 && o.lifetimeSeconds <= 30 * 366 * 86_400)) throw wrong('lifetimeSeconds: 10 minutes to 30 years')
  const backdateSeconds = o.backdateSeconds ?? 300
  if (!(backdateSeconds >= 0 && backdateSeconds <= 86_400)) throw wrong('backdateSeconds: at most a day')
  const keys = o.keys ?? defaultKeys
  for (const key of keys) if (!defaultKeys.includes(key)) throw wrong(`keys: ${key} is none of ${defaultKeys.join(', ')}`)
  const groups = [...new Set(o.groups ?? [])]
  if (groups.length > 8 || !groups.every(isGroupName)) throw wrong('groups: at most eight, of printable ASCII without spaces')
  const trustDomain = o.trustDomain ?? null
  // SPIFFE ID 2.1: lower-case letters, digits, dots, hyphens, underscores.
  if (trustDomain !== null && !/^[a-z0-9._-]{1,255}$/.test(trustDomain)) throw wrong('trustDomain: a SPIFFE trust domain name')
  if (o.birthAnchors.length === 0 && !o.admitSecrets) throw wrong('birthAnchors: nobody could enroll')
  let birthAnchors: TrustAnchor[]
  try {
    birthAnchors = o.birthAnchors.map(der => anchorOf(parseCertificate(der)))
  } catch (error) {
    throw new EstServerError('profile_invalid', `birthAnchors: ${(error as Error).message}`, error)
  }
  return {
    fleet: o.fleet,
    label: o.label ?? null,
    birthAnchors,
    requireManifest: o.requireManifest ?? true,
    admitSecrets: o.admitSecrets ?? false,
    groups,
    lifetimeSeconds: o.lifetimeSeconds,
    backdateSeconds,
    trustDomain,
    keys,
    // A device that was reset gets a new key once; a second new key within a week is rather two devices than one.
    supersedesMax: o.supersedesMax ?? 1,
    supersedeWindowSeconds: o.supersedeWindowSeconds ?? 7 * 86_400,
  }
}

/**
 * What a device asks for, as far as a certificate depends on it: the key and the profile. Names and extensions are the identity's whatever the
 * CSR says (a CSR that wants others is refused), so two requests of a device that agree in this ask for the same certificate.
 */
export function requestContent(profile: EnrollmentProfile, spkiSha256: Bytes): Bytes {
  return profile.label === null ? spkiSha256 : sha256(Buffer.concat([spkiSha256, Buffer.from(profile.label)]))
}

/** Device ids go into names, topics and client ids: no character there has another meaning. 64 is X.520's bound of serialNumber. */
export function isDeviceId(id: string): boolean {
  return /^[A-Za-z0-9._:-]{1,64}$/.test(id)
}

/** The URI of a device's certificate; null without a trust domain, '' when SPIFFE has no spelling for the id (2.2: no colon, no dot segment). */
export function spiffeId(profile: EnrollmentProfile, deviceId: string): string | null {
  if (profile.trustDomain === null) return null
  if (deviceId.includes(':') || deviceId === '.' || deviceId === '..') return ''
  return `spiffe://${profile.trustDomain}/${profile.fleet}/${deviceId}`
}
