// Who is at the other end, as far as its credentials alone say: a birth certificate whose path leads to the manufacturer, an operational
// certificate to be looked up, or a one-time secret to be looked up. Whether that device may have anything is decide()'s question.

import {
  type Bytes,
  type Certificate,
  checkBirthCertificate,
  checkNameConstraints,
  codeOf,
  type DeviceError,
  defaultAlgorithms,
  equalBytes,
  parseCertificate,
  type Verify,
} from '@birthmark/device-sdk/core'
import { sha256 } from '../node-crypto.ts'
import type { Pattern } from './pattern.ts'
import { type EnrollmentProfile, isDeviceId } from './profile.ts'
import { type Refusal, type RefusalCode, refusal } from './refusal.ts'
import { credentialCharsMax, secretHash } from './secret.ts'

/** Real device chains have three certificates; what is beyond is not looked at but refused. */
const chainCertificatesMax = 8
const chainSignaturesMax = 8
const uriBytesMax = 512

export type Claim =
  | {
      kind: 'birth'
      deviceId: string
      /** SHA-256 of the birth key's SubjectPublicKeyInfo. */
      spkiSha256: Bytes
      subject: Bytes
      /** The span in which every certificate of the path is valid. */
      notBefore: number
      notAfter: number
    }
  /** A certificate that names our issuer. Nothing about it is believed: the store's own record under these three values is. */
  | { kind: 'operational'; issuerKeyId: Bytes; serial: Bytes; spkiSha256: Bytes }
  | { kind: 'secret'; deviceId: string; hash: Bytes }
  /** A bearer token as it came; what it says is not known before it was checked. */
  | { kind: 'token'; token: string }
  /** A SCEP challenge: which device it was minted for, the store's record says. */
  | { kind: 'challenge'; hash: Bytes }

/** An issuer of operational certificates: DER Name and subject key identifier. */
export interface IssuerName {
  subject: Bytes
  keyId: Bytes
}

const birthCodes: Partial<Record<string, RefusalCode>> = {
  path_expired: 'certificate_expired',
  path_not_yet_valid: 'certificate_expired',
  birth_not_idevid: 'certificate_not_birth',
}

function birthClaim(
  leaf: Certificate,
  rest: Certificate[],
  profile: EnrollmentProfile,
  now: number,
  verify: Verify,
): Claim | Refusal {
  const rules = {
    anchors: profile.birthAnchors,
    time: Math.floor(now),
    algorithms: defaultAlgorithms,
    // IDevIDs seldom carry an extended key usage (802.1AR 8.10 does not ask for one).
    purpose: null,
    understoodCritical: [],
    depthMax: chainCertificatesMax,
    signaturesMax: chainSignaturesMax,
    nameConstraints: checkNameConstraints,
  }
  let answer: Claim | Refusal = refusal('internal', 'path validation did not answer')
  checkBirthCertificate(leaf, rest, rules, verify, (error: DeviceError | null, birth) => {
    if (error || birth === null) {
      answer = refusal(
        birthCodes[error?.code ?? ''] ?? 'certificate_untrusted',
        `birth certificate: ${error?.message ?? 'refused'}`,
      )
    } else if (!isDeviceId(birth.serialNumber)) {
      answer = refusal('device_id_not_allowed', `the serial number ${JSON.stringify(birth.serialNumber)} cannot be a device id`)
    } else if (profile.serialPattern !== null && !profile.serialPattern.test(birth.serialNumber)) {
      answer = refusal(
        'birth_not_admitted',
        `the serial number ${birth.serialNumber} does not match ${profile.serialPattern.source}`,
      )
    } else if (profile.uriPattern !== null && !uriMatches(leaf, profile.uriPattern)) {
      answer = refusal('birth_not_admitted', `no URI of the birth certificate matches ${profile.uriPattern.source}`)
    } else {
      answer = {
        kind: 'birth',
        deviceId: birth.serialNumber,
        spkiSha256: sha256(leaf.spki),
        subject: leaf.subject,
        notBefore: Math.max(...birth.path.map(c => c.notBefore)),
        notAfter: Math.min(...birth.path.map(c => c.notAfter)),
      }
    }
  })
  return answer
}

/** A URI longer than any pattern can be meant for is none. */
function uriMatches(leaf: Certificate, pattern: Pattern): boolean {
  const uris = leaf.subjectAltNames.filter(({ tag, value }) => tag === 6 && value.length <= uriBytesMax)
  return uris.slice(0, 16).some(({ value }) => pattern.test(Buffer.from(value).toString('latin1')))
}

/** The claim of a leaf that names one of our issuers; null for any other. RFC 5280 names an issuer by name; a renewed one has another key. */
export function operationalClaim(leaf: Certificate, issuers: IssuerName[]): Extract<Claim, { kind: 'operational' }> | null {
  const issuer = issuers.find(i => equalBytes(i.subject, leaf.issuer))
  if (!issuer) return null
  const { serial, spki } = leaf
  return { kind: 'operational', issuerKeyId: leaf.authorityKeyId ?? issuer.keyId, serial, spkiSha256: sha256(spki) }
}

/** Judges a client certificate chain, leaf first. `verify` must answer at once; `parse` is for those that others bring, too. */
export function claimOfChain(
  chain: Bytes[],
  profile: EnrollmentProfile,
  issuers: IssuerName[],
  now: number,
  verify: Verify,
  parse: (der: Bytes) => Certificate = parseCertificate,
): Claim | Refusal {
  if (chain.length > chainCertificatesMax)
    return refusal('certificate_untrusted', `${chain.length} certificates; at most ${chainCertificatesMax}`)
  let leaf: Certificate
  let rest: Certificate[]
  try {
    leaf = parseCertificate(chain[0])
    rest = chain.slice(1).map(parse)
  } catch (error) {
    if (codeOf(error) === null) throw error
    return refusal('certificate_malformed', (error as Error).message)
  }
  return operationalClaim(leaf, issuers) ?? birthClaim(leaf, rest, profile, now, verify)
}

export function claimOfToken(token: string, profile: EnrollmentProfile): Claim | Refusal {
  if (profile.tokens === null)
    return refusal('token_not_allowed', 'this server takes no bearer token here; use the birth certificate')
  return { kind: 'token', token }
}

export function claimOfSecret(basic: { user: string; password: string }, profile: EnrollmentProfile): Claim | Refusal {
  if (!profile.admitSecrets)
    return refusal('secret_not_allowed', 'this server takes no one-time secret here; use the birth certificate')
  if (!isDeviceId(basic.user) || basic.password.length > credentialCharsMax)
    return refusal('secret_refused', 'unknown device or secret')
  return { kind: 'secret', deviceId: basic.user, hash: secretHash(profile.fleet, basic.user, basic.password) }
}

/** Judges what a SCEP message showed: the certificate that signed a renewal, or else a challenge. Nothing else admits there. */
export function claimOfMessage(chain: Bytes[] | null, challenge: Bytes | null, issuers: IssuerName[]): Claim | Refusal {
  if (chain === null) return challenge ? { kind: 'challenge', hash: challenge } : refusal('credentials_required', 'no challenge')
  try {
    const claim = operationalClaim(parseCertificate(chain[0]), issuers)
    return claim ?? refusal('certificate_unknown', 'the certificate that signed the message was not issued here')
  } catch (error) {
    if (codeOf(error) === null) throw error
    return refusal('certificate_malformed', (error as Error).message)
  }
}
