// Certificate path building and validation (RFC 5280 section 6, RFC 4158): from a leaf, over certificates that anyone may have sent, to an
// anchor that the caller trusts. The clock, the anchors, the algorithms and the cryptography are handed in; there is no global state.
//
// What it leaves to others: revocation, host names, and policies. No policy is ever required, in which case certificatePolicies,
// policyMappings and inhibitAnyPolicy cannot fail a path (RFC 5280 6.1.5 g) and may be critical; policyConstraints could, and is refused.
//
// Work is bounded by `signaturesMax` whatever is sent: every certificate that enters the search has cost one verified signature.

import type { Verify } from '../agent/ports.ts'
import { algorithmFitsKey, rsaKeyOf } from './algorithm.ts'
import { equalBytes } from './bytes.ts'
import {
  BASIC_CONSTRAINTS,
  type Certificate,
  EXTENDED_KEY_USAGE,
  KEY_CERT_SIGN,
  KEY_USAGE,
  NAME_CONSTRAINTS,
  SUBJECT_ALT_NAME,
} from './certificate.ts'
import { foldedName, sameName } from './distinguished-name.ts'
import { type DeviceError, type DeviceErrorCode, deviceError } from './errors.ts'
import { anchorOf, type TrustAnchor } from './trust-anchor.ts'

/** Everything parsed that is not broken: no SHA-1, no RSA below 2048 bits. */
export const defaultAlgorithms = [
  'ecdsa-sha256',
  'ecdsa-sha384',
  'ecdsa-sha512',
  'ed25519',
  'rsa-pkcs1-sha256',
  'rsa-pkcs1-sha384',
  'rsa-pkcs1-sha512',
  'rsa-pss-sha256',
  'rsa-pss-sha384',
  'rsa-pss-sha512',
  'ml-dsa-44',
  'ml-dsa-65',
]

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
  /** The most certificates between leaf and anchor. Real device chains have three. */
  depthMax: number
  /** The most signatures to verify before giving up with `path_budget`. A chain in order needs one a certificate. */
  signaturesMax: number
  /** `checkNameConstraints` of name-constraints.ts. Absent, a CA with name constraints is refused, which saves a device the code. */
  nameConstraints?: ((chain: Certificate[]) => string | null) | undefined
}

/** A hostile handshake may carry hundreds; no honest one carries more. */
const intermediatesMax = 128

/** Above 8192 bits one verification costs as much as a small chain (a signature budget counts them alike). */
const rsaBitsMin = 2048
const rsaBitsMax = 8192
/** As OpenSSL's own bound for large moduli: a long exponent makes verifying as slow as signing. */
const rsaExponentBytesMax = 8

const ANY_PURPOSE = '551d2500' // 2.5.29.37.0
const POLICY_CONSTRAINTS = '551d24' // 2.5.29.36
/** Critical extensions that parsing, this file, or the absence of policies takes care of; the last three are the policy ones. */
const UNDERSTOOD = [
  BASIC_CONSTRAINTS,
  KEY_USAGE,
  EXTENDED_KEY_USAGE,
  SUBJECT_ALT_NAME,
  NAME_CONSTRAINTS,
  '551d20',
  '551d21',
  '551d36',
]

/** What is wrong with a certificate by itself, or ''. */
function ownProblem(certificate: Certificate, rules: PathRules): DeviceErrorCode | '' {
  if (rules.time >= 0 && rules.time < certificate.notBefore) return 'path_not_yet_valid'
  if ((rules.time >= 0 ? rules.time : (rules.timeFloor as number)) > certificate.notAfter) return 'path_expired'
  for (let i = 0; i < certificate.extensions.length; i++) {
    const oid = certificate.extensions[i].oid
    const critical = certificate.extensions[i].critical
    if (oid === POLICY_CONSTRAINTS || (critical && UNDERSTOOD.indexOf(oid) < 0 && rules.understoodCritical.indexOf(oid) < 0))
      return 'path_critical_extension'
    // RFC 5280 4.2.1.10: in CA certificates alone, and critical.
    if (oid === NAME_CONSTRAINTS && !(critical && certificate.isCa && rules.nameConstraints)) return 'path_name_constraint'
  }
  const purposes = certificate.extendedKeyUsage
  if (rules.purpose !== null && purposes && purposes.indexOf(rules.purpose) < 0 && purposes.indexOf(ANY_PURPOSE) < 0)
    return 'path_key_usage'
  // 4.2.1.3: keyCertSign goes with cA.
  if (!certificate.isCa && certificate.keyUsage >= 0 && certificate.keyUsage & KEY_CERT_SIGN) return 'path_key_usage'
  return ''
}

/** What keeps `issuer` from having issued `subject`, short of the signature, or ''. `below`: CAs between it and the leaf. */
function issuerProblem(issuer: TrustAnchor, subject: Certificate, below: number, rules: PathRules): DeviceErrorCode | '' {
  const certificate = issuer.certificate
  if (certificate) {
    if (!certificate.isCa) return 'path_not_ca'
    if (certificate.keyUsage >= 0 && !(certificate.keyUsage & KEY_CERT_SIGN)) return 'path_key_usage'
    if (certificate.pathLength >= 0 && below > certificate.pathLength) return 'path_length'
    const problem = ownProblem(certificate, rules)
    if (problem) return problem
  }
  const algorithm = subject.signatureAlgorithm
  if (rules.algorithms.indexOf(algorithm) < 0 || !algorithmFitsKey(algorithm, issuer.keyAlgorithm)) return 'path_algorithm'
  const rsa = issuer.keyAlgorithm === 'RSA' ? rsaKeyOf(issuer.spki) : null
  if (rsa) {
    const bytes = rsa.modulus.length
    if (bytes < rsaBitsMin / 8 || bytes > rsaBitsMax / 8 || rsa.exponent.length > rsaExponentBytesMax) return 'path_algorithm'
  }
  return ''
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
  const anchors = rules.anchors.length
  const issuers = rules.anchors.concat(intermediates.map(anchorOf))
  // The path so far and, for each of its certificates: the next issuer to try (those that its key identifier points at come first), the
  // CAs below its issuer that are not self-issued (those do not count, 6.1.4 l), and its issuer's name folded, once that was needed.
  const path = [leaf]
  const next = [0]
  const below = [0]
  const wanted = ['']
  const subjects: string[] = []
  let signatures = 0
  let furthest = 0
  let worst: DeviceErrorCode = 'path_no_anchor'
  let where = ''
  let waiting = false
  let running = false
  let finished = false

  const finish = function (code: DeviceErrorCode | '', detail: string): void {
    finished = true
    if (code) done(deviceError(code, detail), null)
    else done(null, path)
  }
  // The same depth is met by many candidates; the likeliest was tried first, so its failure stands.
  const note = function (code: DeviceErrorCode): void {
    if (path.length <= furthest) return
    furthest = path.length
    worst = code
    where = 'issuer of certificate ' + furthest
  }
  const names = function (at: number): boolean {
    const top = path.length - 1
    if (equalBytes(issuers[at].subject, path[top].issuer)) return true
    // Folded at most once a certificate: hostile names would make it the dearest step.
    if (!subjects[at]) subjects[at] = foldedName(issuers[at].subject).join()
    if (!wanted[top]) wanted[top] = foldedName(path[top].issuer).join()
    return subjects[at] === wanted[top]
  }
  const accept = function (at: number): void {
    const certificate = issuers[at].certificate
    if (at >= anchors) {
      const own = certificate as Certificate
      below.push(below[below.length - 1] + (sameName(own.subject, own.issuer) ? 0 : 1))
      path.push(own)
      next.push(0)
      wanted.push('')
      return
    }
    if (certificate) path.push(certificate)
    const problem = rules.nameConstraints ? rules.nameConstraints(path) : null
    if (problem === null) finish('', '')
    else {
      // It came to an anchor and failed by its names alone: nothing says more.
      furthest = issuers.length + 2
      worst = 'path_name_constraint'
      where = problem
      if (certificate) path.pop()
    }
  }
  const step = function (): void {
    const top = path.length - 1
    const subject = path[top]
    const turn = next[top]++
    if (turn >= 2 * issuers.length) {
      note('path_no_anchor')
      path.pop()
      next.pop()
      below.pop()
      wanted.pop()
      if (top === 0) finish(worst, where)
      return
    }
    const at = turn % issuers.length
    const issuer = issuers[at]
    const hinted = !!issuer.subjectKeyId && !!subject.authorityKeyId && equalBytes(issuer.subjectKeyId, subject.authorityKeyId)
    if (hinted !== turn < issuers.length || !names(at)) return
    // The same name and key twice is a loop.
    for (let i = 0; i <= top && at >= anchors; i++)
      if (equalBytes(path[i].spki, issuer.spki) && equalBytes(path[i].subject, issuer.subject)) return
    const problem = at >= anchors && top >= rules.depthMax ? 'path_length' : issuerProblem(issuer, subject, below[top], rules)
    if (problem) note(problem)
    else if (signatures++ >= rules.signaturesMax) finish('path_budget', rules.signaturesMax + ' signatures')
    else {
      waiting = true
      let answered = false
      verify.verify(issuer.spki, subject.signatureAlgorithm, subject.tbs, subject.signature, function (good: boolean): void {
        if (answered) return
        answered = true
        waiting = false
        if (good === true) accept(at)
        else note('path_signature')
        run()
      })
    }
  }
  // A loop rather than calls from callback to callback, so that a synchronous verify does not deepen the stack.
  const run = function (): void {
    if (running) return
    running = true
    while (!waiting && !finished) step()
    running = false
  }

  let pinned = false
  for (let i = 0; i < anchors; i++) {
    const certificate = rules.anchors[i].certificate
    if (certificate && equalBytes(certificate.tbs, leaf.tbs)) pinned = true
  }
  const timed = rules.time >= 0 || rules.timeFloor !== undefined
  const problem = timed ? ownProblem(leaf, rules) : 'path_time_untrusted'
  if (problem) finish(problem, 'leaf')
  else if (intermediates.length > intermediatesMax) finish('path_budget', intermediates.length + ' certificates')
  else if (pinned) finish('', '')
  else run()
}
