// The issuers that this process has keys of, and the one among them that signs now. With one issuer that never changes (tests, embedders) there
// is nothing to ask; with a roll-over its word counts at every request.

import { type Bytes, equalBytes, parseCertificate } from '@birthmark/device-sdk/core'
import { type Authority, createAuthority } from './ca/issuance.ts'
import type { IssuerCertificate } from './ca/issuer-certificate.ts'
import type { Issuer } from './ca/issuer-key.ts'
import type { Lint } from './ca/lint.ts'
import { sha256 } from './node-crypto.ts'
import type { IssuerName } from './registrar/authenticate.ts'
import type { RollOver } from './roll-over.ts'

export interface SigningIssuer {
  issuer: Issuer
  authority: Authority
}

export interface IssuerStand {
  /** Null when another issuer signs, whose key this process does not have. */
  signing: SigningIssuer | null
  /** Those whose certificates hold. */
  names: IssuerName[]
  /** Hashes of the public keys of all CAs. */
  caKeys: Bytes[]
  /** For /cacerts. */
  caCertificates: Bytes[]
  /** What goes with a certificate of the issuer: what leads to the trust anchor, without the anchor itself (RFC 7030 4.2.3). */
  chainOf(issuerKeyId: Bytes): Bytes[]
}

export interface IssuerSet {
  current(): IssuerStand
  /** Asks again who signs; whether the answer has changed. */
  refresh(): Promise<boolean>
}

function standOf(signing: SigningIssuer | null, issuers: IssuerCertificate[], caCertificates: Bytes[]): IssuerStand {
  const chains = issuers.map(({ keyId, certificate, chain }) => ({
    keyId,
    chain: [certificate.der, ...chain].map(parseCertificate).flatMap(c => (equalBytes(c.subject, c.issuer) ? [] : [c.der])),
  }))
  return {
    signing,
    names: issuers.map(({ keyId, certificate }) => ({ subject: certificate.subject, keyId })),
    caKeys: caCertificates.map(der => sha256(parseCertificate(der).spki)),
    caCertificates,
    chainOf: keyId => chains.find(other => equalBytes(other.keyId, keyId))?.chain ?? [],
  }
}

/** One issuer, for good. Throws `issuer_unusable`. */
export function soleIssuer(issuer: Issuer, lints: readonly Lint[] = []): IssuerSet {
  const stand = standOf({ issuer, authority: createAuthority(issuer, lints) }, [issuer], [issuer.certificate.der, ...issuer.chain])
  return { current: () => stand, refresh: async () => false }
}

/** Those that a roll-over moves among. Throws `issuer_unusable`. */
export function createIssuerSet(rollOver: RollOver, issuers: Issuer[], lints: readonly Lint[] = []): IssuerSet {
  const signers = issuers.map(issuer => ({ issuer, authority: createAuthority(issuer, lints) }))
  let version = -1
  let stand: IssuerStand
  return {
    current() {
      if (version !== rollOver.version()) {
        const signing = signers.find(({ issuer }) => equalBytes(issuer.keyId, rollOver.signing())) ?? null
        stand = standOf(signing, rollOver.admitted(), rollOver.caCertificates())
        version = rollOver.version()
      }
      return stand
    },
    refresh: rollOver.refresh,
  }
}
