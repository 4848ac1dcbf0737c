// An enrollment profile: whom one EST label admits, and the shape of what it hands out. Parsed once, then only read.

import { anchorOf, type Bytes, equalBytes, parseCertificate, type TrustAnchor } from '@birthmark/device-sdk/core'
import { EstServerError } from '../errors.ts'
import { sha256 } from '../node-crypto.ts'
import { purposesOf } from './certificate-purpose.ts'
import {
  alternativeNamesMax,
  type CertificateNames,
  NameError,
  type NameFacts,
  type NameTemplate,
  parseNameTemplate,
  parseSubjectTemplate,
  renderName,
  renderSubject,
  type SubjectTemplate,
  templatesNeedGroups,
} from './name-template.ts'
import { type Pattern, parsePattern } from './pattern.ts'
import { type ScepRule, type ScepRuleOptions, scepRule } from './scep-rule.ts'
import { type TokenRule, type TokenRuleOptions, tokenRule } from './token-rule.ts'
import { type WebhookRule, type WebhookRuleOptions, webhookRule } from './webhook-rule.ts'

/** Who waits for a person: nobody, a device's first enrollment, every enrollment and renewal. */
export type ApprovalRule = 'none' | 'first' | 'every'

export interface RenewalRule {
  /** Renewing is refused before this fraction of the current certificate's life has passed; 0 for at any time. Below 0.9. */
  readonly windowFraction: number
  /** How long after its end the operational certificate still renews. */
  readonly graceSeconds: number
  /** Whether a renewal may give another subject or alternative names than the current certificate has (RFC 7030 4.2.2). */
  readonly nameMayChange: boolean
  /** Labels whose certificates renew here. Its own unless told: a certificate of another profile was never admitted by this one. */
  readonly labels: readonly (string | null)[]
  /** Hex key identifiers of the issuers whose certificates renew here; null for every issuer that this server knows. */
  readonly issuers: readonly string[] | null
  /** Whether an enrolled device may enroll again by its birth certificate, secret or token: yes, once its certificate has ended, or never. */
  readonly byEnrolling: 'always' | 'expired' | 'never'
}

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
  /** Patterns (pattern.ts) for the serial number of the birth certificates admitted, and for one of their URIs. */
  serialPattern?: string | readonly string[] | null
  uriPattern?: string | readonly string[] | null
  /** Bearer tokens that admit; null, the default, for none. */
  tokens?: TokenRuleOptions | null
  /** Whom to ask besides; null, the default, for nobody. */
  webhook?: WebhookRuleOptions | null
  /** Groups of devices that are admitted without a manifest. */
  groups?: readonly string[]
  /** 'device' (the default: CN and serialNumber, both the device id) or attributes such as `CN={id}`, `OU={model}`. */
  subject?: 'device' | readonly string[]
  /** Alternative names such as `dns:{id}.devices.example`. */
  alternativeNames?: readonly string[]
  /** SPIFFE trust domain; certificates then carry spiffe://<domain>/<fleet>/<device id>. */
  trustDomain?: string | null
  /** Seconds a certificate lives: 10 minutes to 30 years, never beyond the issuer. */
  lifetimeSeconds: number
  /** Seconds before now at which it starts, for poor clocks. 300 unless told. */
  backdateSeconds?: number
  keys?: readonly string[]
  /** Names or dotted OIDs; clientAuth is there in any case. */
  extendedKeyUsage?: readonly string[]
  approval?: ApprovalRule
  /** Groups whose devices may carry requests of others (relayed-peer.ts); null, the default, for none. */
  gateways?: readonly string[] | null
  /** 'birth': a revoked device is readmitted by its birth certificate, under a higher idx and without the groups that were revoked. 'none' unless told. */
  readmission?: 'none' | 'birth'
  renewal?: Partial<RenewalRule>
  /** 'csr', the default: the CSR's signature proves possession. 'channel': the CSR must also name its TLS session (RFC 7030 3.5). */
  possession?: 'csr' | 'channel'
  /** Reached by SCEP too; null, the default, for not. */
  scep?: ScepRuleOptions | null
  /** Whether /serverkeygen makes keys, encrypted to the client; 'plain': in the clear within TLS to a client that names no key. Off by default. */
  serverKeys?: boolean | 'plain'
  /** Answers in base64 of one line, for clients that read no other (strongSwan 5.9); wrapped by default, since libest reads no other. */
  bodyInOneLine?: boolean
  /** How often within `supersedeWindowSeconds` a device may replace a live certificate's key otherwise than by renewing it. */
  supersedesMax?: number
  supersedeWindowSeconds?: number
}

export type EnrollmentProfile = Readonly<{
  label: string | null
  fleet: string
  birthAnchors: TrustAnchor[]
  requireManifest: boolean
  admitSecrets: boolean
  serialPattern: Pattern | null
  uriPattern: Pattern | null
  tokens: TokenRule | null
  webhook: WebhookRule | null
  subject: 'device' | SubjectTemplate
  alternativeNames: readonly NameTemplate[]
  /** Whether the names need the device's groups to be looked up. */
  namesNeedGroups: boolean
  trustDomain: string | null
  lifetimeSeconds: number
  backdateSeconds: number
  keys: readonly string[]
  /** Hex OIDs, clientAuth first. One object for the life of the profile: encodings are remembered by it. */
  extendedKeyUsage: readonly string[]
  groups: readonly string[]
  approval: ApprovalRule
  readmission: 'none' | 'birth'
  gateways: readonly string[] | null
  renewal: RenewalRule
  possession: 'csr' | 'channel'
  scep: ScepRule | null
  serverKeys: boolean | 'plain'
  bodyInOneLine: boolean
  supersedesMax: number
  supersedeWindowSeconds: number
}>

const defaultKeys = ['P-256', 'P-384', 'Ed25519', 'RSA']
/** Besides those: ML-DSA where a profile asks for it, since a certificate with such a key is 2 to 3 KB. */
export const keyTypes: readonly string[] = [...defaultKeys, 'ML-DSA-44', 'ML-DSA-65']
const group = /^[\x21-\x7e]{1,128}$/

export function isGroupName(name: string): boolean {
  return group.test(name)
}

/** RFC 7030 3.2.2: a label is a path segment and none of EST's own operation names. */
export function isLabel(label: string): boolean {
  const operations = ['cacerts', 'simpleenroll', 'simplereenroll', 'fullcmc', 'serverkeygen', 'csrattrs']
  return /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$/.test(label) && !operations.includes(label)
}

/** Throws `profile_invalid`: the option's name, a colon, and what is wrong. */
export function enrollmentProfile(o: ProfileOptions): EnrollmentProfile {
  const wrong = (detail: string, cause?: unknown) => new EstServerError('profile_invalid', detail, cause)
  const named = <T>(name: string, make: () => T): T => {
    try {
      return make()
    } catch (error) {
      throw wrong(`${name}: ${(error as Error).message}`, error)
    }
  }
  if (!/^[a-z0-9-]{1,32}$/.test(o.fleet)) throw wrong('fleet: 1 to 32 of a-z, 0-9 and hyphen')
  const label = o.label ?? null
  if (label !== null && !isLabel(label))
    throw wrong('label: 1 to 64 of A-Z, a-z, 0-9, dot, underscore, hyphen, and no EST operation')
  if (!(o.lifetimeSeconds >= 600 && o.lifetimeSeconds <= 30 * 366 * 86_400)) throw wrong('lifetimeSeconds: 10 minutes to 30 years')
  const backdateSeconds = o.backdateSeconds ?? 300
  if (!(backdateSeconds >= 0 && backdateSeconds <= 86_400)) throw wrong('backdateSeconds: at most a day')
  const keys = [...new Set(o.keys ?? defaultKeys)]
  for (const key of keys) if (!keyTypes.includes(key)) throw wrong(`keys: ${key} is none of ${keyTypes.join(', ')}`)
  if (keys.length === 0) throw wrong('keys: none is allowed, so nobody could enroll')
  const groups = [...new Set(o.groups ?? [])]
  if (groups.length > 8 || !groups.every(isGroupName)) throw wrong('groups: at most eight, of printable ASCII without spaces')
  const trustDomain = o.trustDomain ?? null
  // SPIFFE ID 2.1: lower-case letters, digits, dots, hyphens, underscores.
  if (trustDomain !== null && !/^[a-z0-9._-]{1,255}$/.test(trustDomain)) throw wrong('trustDomain: a SPIFFE trust domain name')
  const tokens = o.tokens ? tokenRule(o.tokens) : null
  const webhook = o.webhook ? webhookRule(o.webhook) : null
  const admitSecrets = o.admitSecrets ?? false
  if (o.birthAnchors.length === 0 && !admitSecrets && tokens === null && !o.scep) throw wrong('birthAnchors: nobody could enroll')
  const birthAnchors = named('birthAnchors', () => o.birthAnchors.map(der => anchorOf(parseCertificate(der))))
  const patternOf = (name: 'serialPattern' | 'uriPattern') => {
    const source = o[name] ?? null
    return source === null ? null : named(name, () => parsePattern(source))
  }
  const { subject: subjectOption = 'device' } = o
  const subject = subjectOption === 'device' ? subjectOption : named('subject', () => parseSubjectTemplate(subjectOption))
  const alternativeNames = named('alternativeNames', () => (o.alternativeNames ?? []).map(parseNameTemplate))
  if (alternativeNames.length > alternativeNamesMax) throw wrong(`alternativeNames: at most ${alternativeNamesMax}`)
  // SPIFFE X.509-SVID 2: exactly one URI.
  if (trustDomain !== null && alternativeNames.some(({ kind }) => kind === 'uri'))
    throw wrong('alternativeNames: a certificate with a SPIFFE ID has no other URI')
  const approval = o.approval ?? 'none'
  if (!['none', 'first', 'every'].includes(approval)) throw wrong('approval: none, first or every')
  const readmission = o.readmission ?? 'none'
  if (readmission !== 'none' && readmission !== 'birth') throw wrong('readmission: none or birth')
  if (readmission === 'birth' && birthAnchors.length === 0) throw wrong('readmission: birth certificates are not admitted at all')
  const possession = o.possession ?? 'csr'
  if (possession !== 'csr' && possession !== 'channel') throw wrong('possession: csr or channel')
  const gateways = o.gateways ? [...new Set(o.gateways)] : null
  if (gateways && (gateways.length === 0 || gateways.length > 8 || !gateways.every(isGroupName)))
    throw wrong('gateways: 1 to 8 names of groups')
  if (gateways && possession === 'channel')
    throw wrong('gateways: a device behind one has no TLS session that its CSR could name, as possession: channel asks')
  const scep = o.scep ? scepRule(o.scep) : null
  if (scep && possession === 'channel')
    throw wrong('scep: there is no TLS session that a CSR could name, as possession: channel asks')
  const serverKeys = o.serverKeys ?? false
  if (serverKeys !== true && serverKeys !== false && serverKeys !== 'plain') throw wrong('serverKeys: true, false or plain')
  // A person's answer comes minutes later, and a key made now would have to wait somewhere.
  if (serverKeys !== false && approval !== 'none') throw wrong('serverKeys: not together with approval, since no key is kept')
  return {
    fleet: o.fleet,
    label,
    birthAnchors,
    requireManifest: o.requireManifest ?? true,
    admitSecrets,
    serialPattern: patternOf('serialPattern'),
    uriPattern: patternOf('uriPattern'),
    tokens,
    webhook,
    groups,
    subject,
    alternativeNames,
    namesNeedGroups: templatesNeedGroups(subject, alternativeNames),
    trustDomain,
    lifetimeSeconds: o.lifetimeSeconds,
    backdateSeconds,
    keys,
    extendedKeyUsage: named('extendedKeyUsage', () => purposesOf(o.extendedKeyUsage ?? [])),
    approval,
    readmission,
    gateways,
    renewal: renewalRule(o.renewal ?? {}, label),
    possession,
    serverKeys,
    bodyInOneLine: o.bodyInOneLine ?? false,
    scep,
    // A device that was reset gets a new key once; a second new key within a week is rather two devices than one.
    supersedesMax: o.supersedesMax ?? 1,
    supersedeWindowSeconds: o.supersedeWindowSeconds ?? 7 * 86_400,
  }
}

function renewalRule(o: Partial<RenewalRule>, ownLabel: string | null): RenewalRule {
  const wrong = (detail: string) => new EstServerError('profile_invalid', `renewal.${detail}`)
  const { windowFraction = 0, graceSeconds = 0, byEnrolling = 'always', labels = [ownLabel], issuers = null } = o
  // Beyond nine tenths a device that was off for a while finds the window shut by its end.
  if (!(windowFraction >= 0 && windowFraction <= 0.9)) throw wrong('windowFraction: 0 to 0.9 of the life')
  if (!(graceSeconds >= 0 && graceSeconds <= 10 * 366 * 86_400)) throw wrong('graceSeconds: at most ten years')
  if (!['always', 'expired', 'never'].includes(byEnrolling)) throw wrong('byEnrolling: always, expired or never')
  if (labels.length > 64 || labels.some(label => label !== null && !isLabel(label))) throw wrong('labels: at most 64 labels')
  if (issuers !== null && (issuers.length === 0 || issuers.length > 16 || issuers.some(id => !/^(?:[0-9a-f]{2}){1,64}$/.test(id))))
    throw wrong('issuers: 1 to 16 key identifiers in lower-case hex')
  return { windowFraction, graceSeconds, byEnrolling, labels: [...labels], issuers, nameMayChange: o.nameMayChange ?? false }
}

/**
 * What a device asks for, as far as a certificate depends on it: the key and the profile. Names and extensions are the identity's whatever the
 * CSR says (a CSR that wants others is refused), so two requests of a device that agree in this ask for the same certificate.
 */
export function requestContent(profile: EnrollmentProfile, spkiSha256: Bytes): Bytes {
  return contentUnder(profile.label, spkiSha256)
}

function contentUnder(label: string | null, spkiSha256: Bytes): Bytes {
  return label === null ? spkiSha256 : sha256(Buffer.concat([spkiSha256, Buffer.from(label)]))
}

/**
 * Whether a certificate was issued under one of these labels. The content that it was recorded for says so (requestContent): no record of the
 * label is needed, and none can disagree.
 */
export function issuedUnder(labels: readonly (string | null)[], certificate: { spkiSha256: Bytes; contentSha256: Bytes }): boolean {
  return labels.some(label => equalBytes(contentUnder(label, certificate.spkiSha256), certificate.contentSha256))
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

/** With an ML-DSA key and addresses for its status a certificate still has room (der-writer.ts), and a small device still reads it. */
const nameBytesMax = 2048

const deviceNames: CertificateNames = { subject: null, alternativeNames: [] }

/** The names that a certificate of this profile gives to a device. Throws NameError when a template has no value for it. */
export function certificateNames(profile: EnrollmentProfile, facts: NameFacts): CertificateNames {
  const { subject, alternativeNames, trustDomain } = profile
  if (subject === 'device' && alternativeNames.length === 0 && trustDomain === null) return deviceNames
  const uri = spiffeId(profile, facts.id)
  if (uri === '') throw new NameError(`the device id ${facts.id} has no SPIFFE spelling (no colon, no dot segment)`)
  const names = alternativeNames.map(name => renderName(name, facts))
  // SPIFFE X.509-SVID 2: one URI, so the maker of profiles refuses templates of others beside it.
  if (uri !== null) names.unshift({ tag: 6, value: Buffer.from(uri, 'latin1') })
  if (names.reduce((bytes, { value }) => bytes + value.length, 0) > nameBytesMax)
    throw new NameError(`the alternative names of device ${facts.id} have more than ${nameBytesMax} bytes`)
  return { subject: subject === 'device' ? null : renderSubject(subject, facts), alternativeNames: names }
}
