// Certificate path building and validation (RFC 5280 section 6, RFC 4158): from a leaf, over certificates that anyone may have sent, to an
// anchor that the caller trusts. The clock, the anchors, the algorithms and the cryptography are handed in; there is no global state.
//
// What it leaves to others: revocation, host names, and policies. No policy is ever required, in which case certificatePolicies,
// policyMappings and inhibitAnyPolicy cannot fail a path (RFC 5280 6.1.5 g) and may be critical; policyConstraints could, and is refused.
//
// Work is bounded by `signaturesMax` whatever is sent: every certificate that enters the search has cost one verified signature.

import { algorithmFitsKey } from './algorithm.ts'
import { type Bytes, equalBytes, hexOf } from './bytes.ts'
import { type Certificate, KEY_CERT_SIGN, NAME_CONSTRAINTS } from './certificate.ts'
import { type DeviceError, type DeviceErrorCode, deviceError } from './errors.ts'
import { anchorOf, type TrustAnchor } from './trust-anchor.ts'
import type { Verify } from './verify.ts'

export { defaultAlgorithms } from './algorithm.ts'

export interface PathRules {
  anchors: TrustAnchor[]
  /** Seconds since 1970; −1 while the time is not trusted. */
  time: number
  /**
   * Looked at when `time` is −1: a moment that has surely passed (build date, last saved time). What ended before it is expired; a notBefore
   * proves nothing then, since the true time may be any later one. Without it, an untrusted time is `path_time_untrusted`.
   */
  timeFloor?: number | undefined
  /** Names of signature algorithms, `defaultAlgorithms` or fewer. */
  algorithms: string[]
  /** EKU OID that the leaf, and every CA that limits its purposes, must allow; null when any will do. */
  purpose: string | null
  /** OIDs of critical extensions, in any certificate of the path, that the caller itself processes. */
  understoodCritical: string[]
  /** The most certificates between leaf and anchor, self-issued ones too. Real device chains have three. */
  depthMax: number
  /** The most signatures to verify before giving up with `path_budget`. A chain in order needs one a certificate. */
  signaturesMax: number
  /** `checkNameConstraints` of name-constraints.ts. Absent, a CA with name constraints is refused, which saves a device the code. */
  nameConstraints?: ((chain: Certificate[]) => string | null) | undefined
  /**
   * `foldName` of distinguished-name.ts, to chain names that differ in case, spaces or string type. Absent, their bytes must agree, as
   * RFC 5280 4.1.2.6 has CAs see to.
   */
  foldName?: ((name: Bytes) => string) | undefined
}

/** A hostile handshake may carry hundreds; no honest one carries more. */
const intermediatesMax = 128

/** NIST SP 800-131A's floor; above 8192 bits one verification costs as much as a small chain, and the budget counts them alike. */
const rsaBitsMin = 2048
const rsaBitsMax = 8192

const ANY_PURPOSE = '551d2500' // 2.5.29.37.0
const POLICY_CONSTRAINTS = '551d24' // 2.5.29.36
/**
 * Critical extensions that parsing, this file, or the absence of policies takes care of: keyUsage, subjectAltName, basicConstraints,
 * nameConstraints, extendedKeyUsage; certificatePolicies, policyMappings, inhibitAnyPolicy.
 */
const UNDERSTOOD = ['551d0f', '551d11', '551d13', '551d1e', '551d25', '551d20', '551d21', '551d36']

/** What is wrong with a certificate by itself, or ''. */
function ownProblem(certificate: Certificate, rules: PathRules): DeviceErrorCode | '' {
  const timed = rules.time >= 0
  if (timed && rules.time < certificate.notBefore) return 'path_not_yet_valid'
  if ((timed ? rules.time : (rules.timeFloor as number)) > certificate.notAfter) return 'path_expired'
  for (let i = 0; i < certificate.extensions.length; i++) {
    const extension = certificate.extensions[i]
    const oid = extension.oid
    // RFC 5280 4.2.1.10: in CA certificates alone, and critical.
    if (oid === NAME_CONSTRAINTS && !(extension.critical && certificate.isCa && rules.nameConstraints))
      return 'path_name_constraint'
    if (
      oid === POLICY_CONSTRAINTS ||
      (extension.critical && UNDERSTOOD.indexOf(oid) < 0 && rules.understoodCritical.indexOf(oid) < 0)
    )
      return 'path_critical_extension'
  }
  const purposes = certificate.extendedKeyUsage
  const purpose = rules.purpose
  if (purpose && purposes && purposes.indexOf(purpose) < 0 && purposes.indexOf(ANY_PURPOSE) < 0) return 'path_key_usage'
  // 4.2.1.3: keyCertSign goes with cA.
  return !certificate.isCa && certificate.keyUsage >= 0 && certificate.keyUsage & KEY_CERT_SIGN ? 'path_key_usage' : ''
}

/** What keeps `issuer` from having issued `subject`, short of the signature, or ''. `below`: CAs between it and the leaf. */
function issuerProblem(issuer: TrustAnchor, subject: Certificate, below: number, rules: PathRules): DeviceErrorCode | '' {
  const certificate = issuer.certificate
  const algorithm = subject.signatureAlgorithm
  if (certificate) {
    if (!certificate.isCa) return 'path_not_ca'
    // Absent is −1, which has every bit.
    if (!(certificate.keyUsage & KEY_CERT_SIGN)) return 'path_key_usage'
    if (certificate.pathLength >= 0 && below > certificate.pathLength) return 'path_length'
    const problem = ownProblem(certificate, rules)
    if (problem) return problem
    if (issuer.keyAlgorithm === 'RSA' && (certificate.keyBits < rsaBitsMin || certificate.keyBits > rsaBitsMax))
      return 'path_algorithm'
  }
  return rules.algorithms.indexOf(algorithm) < 0 || !algorithmFitsKey(algorithm, issuer.keyAlgorithm) ? 'path_algorithm' : ''
}

/**
 * Searches a path from `leaf` over `intermediates` (any order, any junk) to an anchor and validates it. Answers exactly once: with the path,
 * leaf first and the anchor's certificate last where it has one, or with the error of the attempt that came furthest. When `verify`
 * answers at once, so does this.
 *
 * A leaf that is itself an anchor (the same TBSCertificate) needs no issuer: whoever pins one device's certificate means it.
 * Key identifiers only order the attempts; the signature decides.
 */
export function validatePath(
  leaf: Certificate,
  intermediates: Certificate[],
  rules: PathRules,
  verify: Verify,
  done: (error: DeviceError | null, path: Certificate[] | null) => void,
): void {
  const fold = rules.foldName || hexOf
  const anchors = rules.anchors.length
  const issuers = rules.anchors.concat(intermediates.map(anchorOf))
  // Folded once each: for hostile names this would be the dearest step.
  const names = issuers.map(issuer => fold(issuer.subject))
  // What is still to be tried, the next first. A list rather than recursion, so that a synchronous verify does not deepen the stack.
  let attempts: (() => void)[] = []
  let signatures = 0
  let furthest = 0
  let worst: DeviceErrorCode = 'path_no_anchor'
  // The number of the signature being verified; −1 once there is an answer.
  let waiting = 0
  let running = false

  const finish = (code: DeviceErrorCode | '', path: Certificate[] | null): void => {
    waiting = -1
    done(code ? deviceError(code, 'certificate ' + furthest) : null, path)
  }
  // The same depth is met by many candidates; the likeliest was tried first, so its failure stands.
  const note = (code: DeviceErrorCode, depth: number): void => {
    if (depth > furthest) {
      furthest = depth
      worst = code
    }
  }
  const run = (): void => {
    if (running) return
    running = true
    while (!waiting) (attempts.shift() as () => void)()
    running = false
  }
  /**
   * Tries all that may have issued the last certificate of `path`, before all else. `name`: its issuer's; `below`: how many CAs in the path
   * are not self-issued (the others do not count for a path length, 6.1.4 l).
   */
  const extend = (path: Certificate[], name: string, below: number): void => {
    const depth = path.length
    const subject = path[depth - 1]
    const next: (() => void)[] = []
    let hinted = 0
    const attempt = (issuer: TrustAnchor, above: Certificate | null): void => {
      const problem = above && depth > rules.depthMax ? 'path_length' : issuerProblem(issuer, subject, below, rules)
      if (problem) {
        note(problem, depth)
        return
      }
      if (signatures === rules.signaturesMax) {
        finish('path_budget', null)
        return
      }
      const turn = ++signatures
      waiting = turn
      verify.verify(issuer.spki, subject.signatureAlgorithm, subject.tbs, subject.signature, good => {
        if (waiting !== turn) return
        waiting = 0
        const longer = path.concat(issuer.certificate || [])
        if (good !== true) note('path_signature', depth)
        else if (above) {
          const wanted = fold(above.issuer)
          extend(longer, wanted, wanted === name ? below : below + 1)
        }
        // A path that came to an anchor and fails by its names alone says more than any other.
        else if (rules.nameConstraints && rules.nameConstraints(longer) !== null) note('path_name_constraint', depth + 2)
        else finish('', longer)
        run()
      })
    }
    issuers.forEach((issuer, at) => {
      const above = at < anchors ? null : issuer.certificate
      // The same name and key twice is a loop.
      const loops = (link: Certificate): boolean => equalBytes(link.spki, issuer.spki) && equalBytes(link.subject, issuer.subject)
      if (names[at] !== name || (above && path.some(loops))) return
      // Those that the key identifier points at come first.
      const points = issuer.subjectKeyId && subject.authorityKeyId && equalBytes(issuer.subjectKeyId, subject.authorityKeyId)
      next.splice(points ? hinted++ : next.length, 0, () => attempt(issuer, above))
    })
    attempts = next.concat(() => note('path_no_anchor', depth), attempts)
  }

  const pinned = rules.anchors.some(anchor => anchor.certificate && equalBytes(anchor.certificate.tbs, leaf.tbs))
  const timed = rules.time >= 0 || rules.timeFloor !== undefined
  const problem = !timed ? 'path_time_untrusted' : intermediates.length > intermediatesMax ? 'path_budget' : ownProblem(leaf, rules)
  if (problem || pinned) finish(problem, problem ? null : [leaf])
  else {
    attempts.push(() => finish(worst, null))
    extend([leaf], fold(leaf.issuer), 0)
    run()
  }
}
