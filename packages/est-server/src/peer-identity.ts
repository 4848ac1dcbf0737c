// Who a peer is: the registrar's judgement of its credentials joined with what the store holds about them. Remembers per connection what does
// not change; what does change (records, status, time) is looked up at every request.

import { codeOf, equalBytes, parseCertificate } from '@birthmark/device-sdk/core'
import type { BearerTokens } from './bearer-token.ts'
import { certificateMemory } from './certificate-memory.ts'
import type { Peer } from './enrollment-request.ts'
import { createVerifier } from './node-crypto.ts'
import type { Clock } from './ports.ts'
import {
  type Claim,
  claimOfChain,
  claimOfMessage,
  claimOfSecret,
  claimOfToken,
  type IssuerName,
  operationalClaim,
} from './registrar/authenticate.ts'
import type { Identity, OperationalIdentity } from './registrar/decide.ts'
import type { KeyMemory } from './registrar/possession.ts'
import type { EnrollmentProfile } from './registrar/profile.ts'
import { isRefusal, type Refusal, refusal } from './registrar/refusal.ts'
import type { TokenRule } from './registrar/token-rule.ts'
import type { Store } from './store/store.ts'

export interface PeerIdentities {
  /** What the credentials claim: judged once per connection, again when a birth path leaves the time it was valid in. */
  claimOf(peer: Peer, profile: EnrollmentProfile): Claim | Refusal
  /** A claim with the store's record of it. */
  identify(claim: Claim, profile: EnrollmentProfile): Promise<Identity | Refusal>
  /** The operational certificate that the peer shows, if we issued it to this fleet and it has not ended. Spends no signature on others. */
  operational(peer: Peer, profile: EnrollmentProfile): Promise<OperationalIdentity | null>
  /** The device that the peer's certificate is of, null for none: enough to tell it its own name, not to give it anything. */
  deviceIdOf(peer: Peer, profile: EnrollmentProfile): Promise<string | null>
  keyMemoryOf(peer: Peer): KeyMemory
  /** Whether the certificate that the peer shows was judged and refused, which may have cost many signatures. */
  isStranger(peer: Peer, profile: EnrollmentProfile): boolean
}

/** A refusal that time may lift stands this long: judging a chain anew at each request would be work without bound for anybody who asks. */
const refusalSeconds = 60

interface PeerMemory {
  claims: Map<EnrollmentProfile, { claim: Claim | Refusal; at: number }>
  key: KeyMemory
}

export function createPeerIdentities(
  store: Pick<Store, 'secret' | 'certificate'>,
  issuers: () => IssuerName[],
  clock: Clock,
  tokens: BearerTokens | null,
): PeerIdentities {
  const verifier = createVerifier()
  const parseKnown = certificateMemory()
  const memories = new WeakMap<Peer, PeerMemory>()

  function memoryOf(peer: Peer): PeerMemory {
    let memory = memories.get(peer)
    if (memory === undefined) {
      memory = { claims: new Map(), key: peer.scep?.signer ?? { spki: null, key: null } }
      memories.set(peer, memory)
    }
    return memory
  }

  function stillStands({ claim, at }: { claim: Claim | Refusal; at: number }): boolean {
    const now = clock.now()
    if (isRefusal(claim)) return claim.code !== 'certificate_expired' || Math.abs(now - at) < refusalSeconds
    return claim.kind !== 'birth' || (now >= claim.notBefore && now <= claim.notAfter)
  }

  async function identify(
    claim: Claim,
    profile: EnrollmentProfile,
    graceSeconds = profile.renewal.graceSeconds,
  ): Promise<Identity | Refusal> {
    if (claim.kind === 'birth') return claim
    if (claim.kind === 'token') {
      // claimOf() lets no token through where the profile has no rule for it, and createEnrollment() no rule without a verifier.
      const stated = await (tokens as BearerTokens).verify(claim.token, profile.tokens as TokenRule)
      return isRefusal(stated) ? stated : { kind: 'token', ...stated }
    }
    if (claim.kind === 'challenge') {
      const secret = await store.secret(claim.hash)
      if (secret === null || secret.fleet !== profile.fleet) return refusal('secret_refused', 'unknown challenge')
      return { kind: 'secret', deviceId: secret.deviceId, hash: claim.hash, secret }
    }
    if (claim.kind === 'secret') {
      const secret = await store.secret(claim.hash)
      return secret === null ? refusal('secret_refused', 'unknown device or secret') : { ...claim, secret }
    }
    // By issuer, serial and key, never by the certificate's own hash: the twin of an ECDSA certificate has another one. What else the
    // peer's copy says is not read; our record speaks for it, and TLS has shown that the peer holds the recorded key.
    // An issuer of the same name may have been retired since, or during the connection.
    if (!issuers().some(({ keyId }) => equalBytes(keyId, claim.issuerKeyId)))
      return refusal('certificate_unknown', 'this operational certificate is of an issuer that is not admitted, or no longer')
    const certificate = await store.certificate(claim.issuerKeyId, claim.serial)
    if (certificate === null || certificate.fleet !== profile.fleet || !equalBytes(certificate.spkiSha256, claim.spkiSha256))
      return refusal('certificate_unknown', 'this operational certificate was not issued here, or to another fleet')
    // TLS has let an ended certificate through: no handshake of ours judges one.
    if (clock.now() > certificate.notAfter + graceSeconds) {
      const ended = new Date(certificate.notAfter * 1000).toISOString()
      const grace = graceSeconds > 0 ? `, more than ${graceSeconds / 86_400} days of grace ago` : ''
      return refusal('certificate_expired', `the operational certificate ended ${ended}${grace}`)
    }
    const { subject, subjectAltNames: alternativeNames } = parseCertificate(certificate.der)
    return { kind: 'operational', deviceId: certificate.deviceId, certificate, subject, alternativeNames }
  }

  function claimOf(peer: Peer, profile: EnrollmentProfile): Claim | Refusal {
    if (peer.scep) return claimOfMessage(peer.chain, peer.scep.challenge, issuers())
    // Together with a certificate the credentials are left alone: the stronger of the two identifies, and no failure falls back.
    if (peer.chain === null || peer.chain.length === 0) {
      if (peer.bearer) return claimOfToken(peer.bearer, profile)
      if (peer.basic === null) return refusal('credentials_required', 'no client certificate and no secret came with the request')
      return claimOfSecret(peer.basic, profile)
    }
    const { claims } = memoryOf(peer)
    const known = claims.get(profile)
    if (known && stillStands(known)) return known.claim
    const claim = claimOfChain(peer.chain, profile, issuers(), clock.now(), verifier, parseKnown)
    claims.set(profile, { claim, at: clock.now() })
    return claim
  }

  return {
    claimOf,
    identify,
    async deviceIdOf(peer, profile) {
      if (peer.chain === null) return null
      const claim = claimOf(peer, profile)
      const identity = isRefusal(claim) ? claim : await identify(claim, profile)
      return isRefusal(identity) ? null : identity.deviceId
    },

    async operational({ chain }, profile) {
      if (!chain?.length) return null
      let claim: Claim | null
      try {
        claim = operationalClaim(parseCertificate(chain[0]), issuers())
      } catch (error) {
        if (codeOf(error) === null) throw error
        return null
      }
      const identity = claim && (await identify(claim, profile, 0))
      return identity && !isRefusal(identity) && identity.kind === 'operational' ? identity : null
    },

    keyMemoryOf: peer => memoryOf(peer).key,

    isStranger(peer, profile) {
      const known = memories.get(peer)?.claims.get(profile)
      return known !== undefined && isRefusal(known.claim)
    },
  }
}
