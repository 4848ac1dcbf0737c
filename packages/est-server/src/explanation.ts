// "Would this CSR get a certificate, and if not, which rule says so?" Walks the rules that enrollment walks, over the same records, and changes
// nothing: no device is made known, no secret or token spent, nobody asked, nothing signed. What cannot be known without the device itself
// (its TLS session, the secret's value, what the owner's system would say) is assumed to be in order, and said.

import {
  type Bytes,
  challengePassword,
  decodeBase64,
  encodeSequence,
  nameText,
  oidText,
  parseCsr,
} from '@birthmark/device-sdk/core'
import { createGroupNames } from './group-names.ts'
import { sha256 } from './node-crypto.ts'
import { createPeerIdentities } from './peer-identity.ts'
import type { Clock } from './ports.ts'
import type { IssuerName } from './registrar/authenticate.ts'
import { purposeText } from './registrar/certificate-purpose.ts'
import { type DeviceFacts, decide, type Identity, isForgiven, labelText, type Step, waitsForPerson } from './registrar/decide.ts'
import { type CertificateNames, namesText, subjectName } from './registrar/name-template.ts'
import { type Channel, prove } from './registrar/possession.ts'
import { type EnrollmentProfile, requestContent } from './registrar/profile.ts'
import { isRefusal, type Refusal, type RefusalCode, refusal } from './registrar/refusal.ts'
import { type RuleName, ruleOf } from './registrar/rule.ts'
import type { CertificateRecord, EnrollmentFacts, Store } from './store/store.ts'

export interface ExplanationRequest {
  label: string | null
  /** DER CertificationRequest. */
  csr: Bytes
  /**
   * As whom: `chain`: by a birth or operational certificate, DER, leaf first. Otherwise a device by its id, as if it had shown an unspent one-time
   * secret, a good bearer token, or the birth certificate on record.
   */
  as: { kind: 'chain'; chain: Bytes[] } | { kind: 'secret' | 'token' | 'birth'; deviceId: string }
}

export interface CertificatePreview {
  subject: string
  alternativeNames: string
  purposes: string[]
  keyAlgorithm: string
  notBefore: number
  /** Not beyond the issuer's end, which is not looked at here. */
  notAfter: number
  groups: string[]
}

export interface Explanation {
  label: string | null
  device: string | null
  /** What such a credential asks for. */
  operation: 'enroll' | 'reenroll'
  /** The rules that passed, in order. */
  steps: Step[]
  /** What was taken for granted. */
  assumed: string[]
  verdict:
    | { kind: 'issue' }
    /** An equal, earlier request has one already. */
    | { kind: 'again'; idx: number }
    | { kind: 'wait'; rule: RuleName }
    | { kind: 'refuse'; rule: RuleName; code: RefusalCode; detail: string }
  /** For `issue` and `wait`. */
  certificate: CertificatePreview | null
}

export interface ExplanationParts {
  store: Store
  profiles: readonly EnrollmentProfile[]
  /** As enrollment has them. */
  issuers: () => { names: IssuerName[]; caKeys: Bytes[] }
  status(membership: { fleet: string; idx: number; gids: number[] }, issuerKeyId: Bytes | null): 'good' | 'revoked' | 'unknown'
  clock: Clock
}

export function createExplanation(parts: ExplanationParts): (request: ExplanationRequest) => Promise<Explanation> {
  const { store, profiles, clock, status } = parts
  const groupNames = createGroupNames(store)

  /** What the story would do with a device that is not known yet, on paper. */
  async function onPaper(profile: EnrollmentProfile, identity: Identity, facts: EnrollmentFacts) {
    const vouched = identity.kind === 'birth' || identity.kind === 'token'
    let { device } = facts
    // Its birth key would be pinned now.
    if (device && identity.kind === 'birth' && !profile.requireManifest && !device.birthSpkiSha256 && facts.latest === null)
      device = { ...device, birthSpkiSha256: identity.spkiSha256 }
    if (!vouched || profile.requireManifest || device !== null)
      return { device, groups: device ? await groupNames(profile.fleet, device.gids) : [] }
    const of = (await store.groups(profile.fleet)).filter(({ name }) => profile.groups.includes(name))
    const made: DeviceFacts = {
      ...{ key: 0, id: identity.deviceId, fleet: profile.fleet, version: 0, idxFloor: 0, supersedes: 0, supersedesSince: 0 },
      birthSpkiSha256: identity.kind === 'birth' ? identity.spkiSha256 : null,
      gids: of.map(({ gid }) => gid),
      closedGids: of.flatMap(({ gid, bound }) => (bound === null ? [] : [gid])),
      suspectedAt: null,
      hold: null,
      revoked: false,
    }
    return { device: made, groups: profile.groups }
  }

  async function identityOf({ as }: ExplanationRequest, profile: EnrollmentProfile, x: Explanation): Promise<Identity | Refusal> {
    const now = clock.now()
    if (as.kind === 'chain') {
      const identities = createPeerIdentities(store, () => parts.issuers().names, clock, null)
      const peer = { chain: as.chain, basic: null, address: '', tlsVersion: '', resumed: false }
      const claim = identities.claimOf(peer, profile)
      if (isRefusal(claim)) return claim
      x.assumed.push('the device holds the key of its certificate, as TLS would show')
      if (claim.kind === 'birth') {
        x.steps.push({ rule: 'birth.path', detail: `the birth certificate of ${claim.deviceId} leads to a trusted manufacturer` })
        if (profile.serialPattern || profile.uriPattern)
          x.steps.push({ rule: 'birth.pattern', detail: 'its serial number and URIs match' })
      }
      const identity = await identities.identify(claim, profile)
      if (!isRefusal(identity) && identity.kind === 'operational')
        x.steps.push({
          rule: 'credentials.validity',
          detail: `issued here as idx ${identity.certificate.idx}, valid until ${new Date(identity.certificate.notAfter * 1000).toISOString()}${now > identity.certificate.notAfter ? ', now within its grace' : ''}`,
        })
      return identity
    }
    const { deviceId } = as
    if (as.kind === 'secret') {
      if (!profile.admitSecrets) return refusal('secret_not_allowed', 'this profile takes no one-time secret')
      x.assumed.push('the one-time secret is right, unspent and not expired')
      const secret = { deviceId, expiresAt: now + 60, contentSha256: null, issued: false }
      return { kind: 'secret', deviceId, hash: new Uint8Array(32), secret }
    }
    if (as.kind === 'token') {
      if (profile.tokens === null) return refusal('token_not_allowed', 'this profile takes no bearer token')
      x.assumed.push('the bearer token is good')
      return { kind: 'token', deviceId, use: null, expiresAt: now + 60 }
    }
    x.assumed.push('the device shows the birth certificate of its manifest, under a manufacturer that this profile trusts')
    if (profile.serialPattern !== null && !profile.serialPattern.test(deviceId))
      return refusal('birth_not_admitted', `the serial number ${deviceId} does not match ${profile.serialPattern.source}`)
    const none = sha256(new Uint8Array())
    const { device } = await store.enrollmentFacts(profile.fleet, deviceId, none, none)
    const subject = encodeSequence([])
    return { kind: 'birth', deviceId, spkiSha256: device?.birthSpkiSha256 ?? none, subject, notBefore: now, notAfter: now }
  }

  async function walk(request: ExplanationRequest, profile: EnrollmentProfile, x: Explanation): Promise<Refusal | null> {
    const identity = await identityOf(request, profile, x)
    if (isRefusal(identity)) return identity
    x.device = identity.deviceId
    x.operation = identity.kind === 'operational' ? 'reenroll' : 'enroll'
    const csr = prove(
      request.csr,
      profile.keys,
      sessionOf(request.csr, x),
      { spki: null, key: null },
      profile.possession === 'channel',
    )
    if (isRefusal(csr)) return csr
    x.steps.push({ rule: 'certificate.keys', detail: `a ${csr.csr.keyAlgorithm} key is allowed` })
    x.steps.push({ rule: 'possession.csr', detail: 'the CSR is signed with its key' })
    if (profile.webhook !== null) x.assumed.push(`the owner's system (${profile.webhook.url.host}) says yes`)
    const { fleet } = profile
    const contentSha256 = requestContent(profile, csr.spkiSha256)
    const facts = await store.enrollmentFacts(fleet, identity.deviceId, csr.spkiSha256, contentSha256)
    const { device, groups } = await onPaper(profile, identity, facts)
    const standing = identity.kind === 'operational' ? identity.certificate : facts.latest
    const isAsked = standing !== null && (identity.kind === 'operational' || !isForgiven(standing, facts.device))
    const anchors = profiles.flatMap(({ birthAnchors }) => birthAnchors.map(({ spki }) => sha256(spki)))
    const decision = decide<CertificateRecord>(
      {
        ...{ operation: x.operation, profile, identity, csr, contentSha256, groups, ...facts, device },
        approval: waitsForPerson(profile, facts.latest) ? await store.approval(fleet, identity.deviceId, contentSha256) : null,
        caKeys: [...parts.issuers().caKeys, ...anchors],
        status: isAsked ? status(standing, standing.issuer) : 'good',
        now: clock.now(),
      },
      step => x.steps.push(step),
    )
    if (decision.kind === 'refused') return decision
    if (decision.kind === 'again') {
      x.verdict = { kind: 'again', idx: decision.certificate.idx }
      return null
    }
    x.verdict = decision.kind === 'pending' ? { kind: 'wait', rule: 'approval' } : { kind: 'issue' }
    const names = decision.kind === 'pending' ? decision.names : decision.approval.names
    x.certificate = preview(profile, identity.deviceId, names, csr.csr.keyAlgorithm, groups, Math.floor(clock.now()))
    return null
  }

  return async request => {
    const { label } = request
    const x: Explanation = {
      ...{ label, device: null, operation: 'enroll', steps: [], assumed: [], certificate: null },
      verdict: { kind: 'issue' },
    }
    const profile = profiles.find(one => one.label === label)
    if (profile) x.steps.push({ rule: 'label', detail: `the profile of ${labelText(label)}, fleet ${profile.fleet}` })
    const against = profile
      ? await walk(request, profile, x)
      : refusal('label_unknown', `no profile is named ${JSON.stringify(label)}`)
    if (against !== null) x.verdict = { kind: 'refuse', rule: ruleOf(against.code), code: against.code, detail: against.detail }
    return x
  }
}

/** The session that the CSR names, if it names one: whether it is the device's own is seen on the connection alone. */
function sessionOf(der: Bytes, x: Explanation): Channel {
  try {
    const claimed = challengePassword(parseCsr(der))
    if (claimed === null) return { resumed: false }
    const tlsExporter = decodeBase64(Buffer.from(claimed), 256)
    x.assumed.push('the challengePassword is the channel binding of the TLS session')
    return { resumed: false, tlsExporter }
  } catch {
    // prove() says what is wrong with it.
    return { resumed: false }
  }
}

function preview(
  profile: EnrollmentProfile,
  deviceId: string,
  names: CertificateNames,
  keyAlgorithm: string,
  groups: readonly string[],
  at: number,
): CertificatePreview {
  return {
    subject: nameText(subjectName(names, deviceId)),
    alternativeNames: namesText(names.alternativeNames),
    purposes: profile.extendedKeyUsage.map(oid => purposeText(oidText(oid))),
    keyAlgorithm,
    notBefore: at - profile.backdateSeconds,
    notAfter: at + profile.lifetimeSeconds,
    groups: [...groups],
  }
}
