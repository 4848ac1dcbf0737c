// Where our verdicts differ from those of x509-limbo and PKITS, and why. The tests fail for a deviation that is not listed and for a listed one
// that no longer happens. A false accept stands here only where the suite tests something that path validation (RFC 5280 section 6.1) does
// not decide: revocation, host names, or what the standard asks of CAs and not of those who check their certificates.

export interface Deviation {
  ours: 'accepted' | 'refused'
  reason: string
}

const crl = 'revocation: CRLs are not path validation’s; est-server and fleet-revocation ask for status at every request'
const conformance = (what: string) => `${what}; RFC 5280 obliges the CA, 6.1 does not check it`

export const limboDeviations: Record<string, Deviation> = {
  'crl::revoked-certificate-with-crl': { ours: 'accepted', reason: crl },
  'crl::crlnumber-missing': { ours: 'accepted', reason: crl },
  'crl::crlnumber-critical': { ours: 'accepted', reason: crl },
  'crl::issuer-missing-crlsign': { ours: 'accepted', reason: crl },
  'pathlen::max-chain-depth-1-self-issued': {
    ours: 'refused',
    reason: 'depthMax bounds work, so self-issued certificates count; pathLenConstraint does not count them',
  },
  'rfc5280::aki::leaf-missing-aki': {
    ours: 'accepted',
    reason: conformance('4.2.1.1 asks for the AKI to help find issuers; the Android attestation leaves in birth/ have none'),
  },
  'rfc5280::aki::intermediate-missing-aki': {
    ours: 'accepted',
    reason: conformance('4.2.1.1 asks for the AKI to help find issuers; a hint that is missing takes nothing from the signature'),
  },
  'rfc5280::aki::cross-signed-root-missing-aki': {
    ours: 'accepted',
    reason: conformance('marked pedantic: an anchor is trusted by name and key, whoever else signed it'),
  },
  'rfc5280::ski::root-missing-ski': {
    ours: 'accepted',
    reason: conformance('4.2.1.2 asks CAs for an SKI; Nuvoton’s TPM roots in birth/ have none'),
  },
  'rfc5280::ski::intermediate-missing-ski': {
    ours: 'accepted',
    reason: conformance('4.2.1.2 asks CAs for an SKI to help find issuers'),
  },
  'rfc5280::root-non-critical-basic-constraints': {
    ours: 'accepted',
    reason: conformance('4.2.1.9 asks CAs to mark it; PKITS 4.6.4 demands that a non-critical one is accepted'),
  },
  'rfc5280::ca-as-leaf-wrong-san': {
    ours: 'accepted',
    reason: 'host name: matching the peer’s name is the TLS client’s; the path itself is the accepted one of ca-as-leaf',
  },
}

const dsa = 'DSA is not among our algorithms: no device of this century has it, FIPS 186-5 withdrew it'

/** PKITS cases by number. */
export const pkitsDeviations: Record<string, Deviation> = {
  '4.1.4': { ours: 'refused', reason: dsa },
  '4.1.5': { ours: 'refused', reason: dsa },
  '4.5.2': { ours: 'accepted', reason: `${crl}: the certificate is revoked` },
  '4.5.5': { ours: 'accepted', reason: `${crl}: the certificate is revoked` },
  '4.5.7': { ours: 'accepted', reason: `${crl}: the certificate is revoked` },
  '4.7.4': { ours: 'accepted', reason: `${crl}: the issuer may not sign CRLs, which are not read` },
  '4.7.5': { ours: 'accepted', reason: `${crl}: the issuer may not sign CRLs, which are not read` },
}

/** Sections that are about CRLs alone (4.4, 4.14, 4.15): a case to be refused for its CRL is accepted here. */
for (const [section, cases] of [
  ['4.4', [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 18, 20, 21]],
  ['4.14', [2, 3, 6, 8, 9, 11, 12, 14, 15, 16, 17, 20, 21, 23, 26, 27, 31, 32, 34, 35]],
  ['4.15', [1, 3, 4, 6, 9, 10]],
] as [string, number[]][])
  for (const number of cases) pkitsDeviations[`${section}.${number}`] = { ours: 'accepted', reason: crl }
