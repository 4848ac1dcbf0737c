// Name constraints (RFC 5280 4.2.1.10, 6.1.3 b-c, 6.1.4 g): a CA's limits on the names below it. Apart from validate-path.ts because a device
// that never meets such a CA need not carry it; pass `checkNameConstraints` in the path rules where they are to be processed. Not for a leaf
// pinned as an anchor, which is trusted as it is.

import { type Bytes, utf8Text } from './bytes.ts'
import { type Certificate, extensionOf, type GeneralName, NAME_CONSTRAINTS, SUBJECT_ALT_NAME } from './certificate.ts'
import { childrenOf, contentOf, type Element, expectTag, readWhole, SEQUENCE } from './der.ts'
import { attributesOf, EMAIL_ADDRESS, foldedName, sameName } from './distinguished-name.ts'
import { codeOf } from './errors.ts'

/** Subtrees of one kind. With 64 names a certificate and a bounded path, some ten thousand comparisons at most. */
const subtreesMax = 64

const EMAIL = 1
const DNS = 2
const DIRECTORY = 4
const URI = 6
const ADDRESS = 7

/** Letters, digits, hyphens and dots, the last label not a number, an optional `*.` in front (RFC 5280 4.2.1.6, RFC 1123 2.1). */
function isHostName(host: string): boolean {
  const labels = (host.slice(0, 2) === '*.' ? host.slice(2) : host).split('.')
  const isLabel = (label: string): boolean =>
    label.length <= 63 && /^[a-z0-9-]+$/i.test(label) && label[0] !== '-' && label[label.length - 1] !== '-'
  return host.length <= 253 && labels.every(isLabel) && !/^[0-9]+$/.test(labels[labels.length - 1])
}

/** Whether a GeneralName has the form of its kind (RFC 5280 4.2.1.6): printable IA5 text, a host name, a Name, 4 or 16 octets. */
function isWellFormed(name: GeneralName): boolean {
  const kind = name.tag
  if (kind === ADDRESS) return name.value.length === 4 || name.value.length === 16
  if (kind === DIRECTORY) return attributesOf(readWhole(name.value, SEQUENCE)).length >= 0
  if (kind !== EMAIL && kind !== DNS && kind !== URI) return true
  // A NUL or a line end inside a name has one use: to be read differently further on.
  for (let i = 0; i < name.value.length; i++) if (name.value[i] < 0x20 || name.value[i] > 0x7e) return false
  return kind !== DNS || isHostName(utf8Text(name.value) || '')
}

/** `text`: lower-cased host or mailbox; `parts`: folded relative names. */
interface Name {
  kind: number
  octets: Bytes
  text: string
  parts: string[]
}

function nameOf(kind: number, octets: Bytes): Name {
  const text = kind === EMAIL || kind === DNS || kind === URI ? utf8Text(octets) : ''
  return { kind: kind, octets: octets, text: text === null ? '' : text, parts: kind === DIRECTORY ? foldedName(octets) : [] }
}

/** A mailbox as local part, kept as it is, and lower-case host (RFC 5321 2.4); '' and host when there is no local part. */
function mailbox(text: string): string[] {
  const at = text.lastIndexOf('@')
  return [at < 0 ? '' : text.slice(0, at), text.slice(at + 1).toLowerCase()]
}

/** The host name of a URI's authority, '' when there is none (an address is none). */
function uriHost(text: string): string {
  const start = text.indexOf('://')
  if (start < 0) return ''
  let host = text.slice(start + 3)
  for (let i = 0; i < 3; i++) {
    const end = host.indexOf('/?#'[i])
    if (end >= 0) host = host.slice(0, end)
  }
  host = host.slice(host.lastIndexOf('@') + 1)
  const port = host.lastIndexOf(':')
  if (port >= 0) host = host.slice(0, port)
  return isHostName(host) ? host.toLowerCase() : ''
}

function endsWith(text: string, end: string): boolean {
  return text.length >= end.length && text.slice(text.length - end.length) === end
}

/** Host `host` under constraint `base`: a leading dot means "below it", none means that host alone. */
function hostMatches(host: string, base: string): boolean {
  return base[0] === '.' ? endsWith(host, base) : host === base
}

/** Whether `name` lies in the subtree `base`; for an exclusion, whether any of the names a wildcard stands for does. */
function matches(base: Name, name: Name, excluding: boolean): boolean {
  if (base.kind === DIRECTORY) {
    for (let i = 0; i < base.parts.length; i++) if (base.parts[i] !== name.parts[i]) return false
    return true
  }
  if (base.kind === DNS) {
    const wanted = base.text.toLowerCase()
    const wild = name.text.slice(0, 2) === '*.'
    const host = name.text.slice(wild ? 2 : 0).toLowerCase()
    if (wild && excluding && wanted.slice(wanted.indexOf('.') + 1) === host) return true
    return wanted === '' || host === wanted || endsWith(host, '.' + wanted)
  }
  if (base.kind === EMAIL) {
    const wanted = mailbox(base.text)
    const is = mailbox(name.text)
    return base.text.indexOf('@') >= 0 ? is[0] === wanted[0] && is[1] === wanted[1] : hostMatches(is[1], wanted[1])
  }
  if (base.kind === URI) return hostMatches(uriHost(name.text), base.text.toLowerCase())
  const half = base.octets.length >> 1
  if (name.octets.length !== half) return false
  for (let i = 0; i < half; i++) if ((name.octets[i] ^ base.octets[i]) & base.octets[half + i]) return false
  return true
}

/** GeneralSubtrees; null when one is malformed or carries minimum or maximum, which RFC 5280 rules out. */
function readSubtrees(list: Element): Name[] | null {
  const items = childrenOf(list, subtreesMax)
  const out: Name[] = []
  for (let i = 0; i < items.length; i++) {
    const parts = childrenOf(expectTag(items[i], SEQUENCE), 3)
    if (parts.length !== 1) return null
    const kind = parts[0].tag & 31
    const octets = contentOf(parts[0])
    const base = nameOf(kind, octets)
    if (kind === DNS && octets.length && (!isHostName(base.text) || base.text[0] === '*')) return null
    if (kind === ADDRESS) {
      if (octets.length !== 8 && octets.length !== 32) return null
      // RFC 4632: the mask is a prefix.
      for (let j = octets.length >> 1, ended = false; j < octets.length; j++)
        for (let bit = 0x80; bit; bit >>= 1) {
          if (ended && octets[j] & bit) return null
          if (!(octets[j] & bit)) ended = true
        }
    }
    out.push(base)
  }
  return out
}

/** All names of a certificate that constraints speak about. */
function namesOf(certificate: Certificate): Name[] {
  const out: Name[] = []
  const attributes = attributesOf(readWhole(certificate.subject, SEQUENCE))
  if (attributes.length) out.push(nameOf(DIRECTORY, certificate.subject))
  for (let i = 0; i < certificate.subjectAltNames.length; i++)
    out.push(nameOf(certificate.subjectAltNames[i].tag, certificate.subjectAltNames[i].value))
  // A legacy address in the subject counts where no subjectAltName speaks for the certificate.
  if (certificate.subjectAltNames.length === 0)
    for (let i = 0; i < attributes.length; i++)
      if (attributes[i].oid === EMAIL_ADDRESS) out.push(nameOf(EMAIL, contentOf(attributes[i].value)))
  return out
}

function violation(permitted: Name[], excluded: Name[], names: Name[]): string | null {
  for (let i = 0; i < names.length; i++) {
    const name = names[i]
    const known = name.kind === EMAIL || name.kind === DNS || name.kind === DIRECTORY || name.kind === URI || name.kind === ADDRESS
    let limited = false
    let allowed = false
    for (let j = 0; j < permitted.length; j++)
      if (permitted[j].kind === name.kind) {
        limited = true
        if (known && matches(permitted[j], name, false)) allowed = true
      }
    for (let j = 0; j < excluded.length; j++)
      // A constraint on a kind that we cannot compare excludes every name of that kind (4.2.1.10: "process or reject").
      if (excluded[j].kind === name.kind && (!known || matches(excluded[j], name, true))) return 'excluded name'
    if (limited && !allowed) return 'name not permitted'
    // 4.2.1.10: a URI without a host cannot be held against a constraint.
    if (name.kind === URI && uriHost(name.text) === '' && (limited || hasKind(excluded, URI))) return 'URI without host'
  }
  return null
}

function hasKind(names: Name[], kind: number): boolean {
  for (let i = 0; i < names.length; i++) if (names[i].kind === kind) return true
  return false
}

/** The constraints of one CA held against the certificates below it, `chain[0..at)`. */
function checkBelow(chain: Certificate[], at: number, constraints: Bytes): string | null {
  const parts = childrenOf(readWhole(constraints, SEQUENCE), 2)
  let permitted: Name[] | null = []
  let excluded: Name[] | null = []
  let last = 0
  for (let j = 0; j < parts.length; j++) {
    if (parts[j].tag <= last || (parts[j].tag !== 0xa0 && parts[j].tag !== 0xa1)) return 'name constraints'
    last = parts[j].tag
    if (last === 0xa0) permitted = readSubtrees(parts[j])
    else excluded = readSubtrees(parts[j])
  }
  if (!permitted || !excluded || parts.length === 0) return 'name constraints'
  for (let j = 0; j < at; j++) {
    if (j > 0 && sameName(chain[j].subject, chain[j].issuer)) continue
    const problem = violation(permitted, excluded, namesOf(chain[j]))
    if (problem) return problem
  }
  return null
}

/**
 * Holds the names of a chain (leaf first, anchor's certificate last) to their form, and against the name constraints of the CAs above each.
 * Null, or what was violated, a malformed constraint too. Self-issued CAs are exempt from those above them, a leaf never is (6.1.3 b).
 */
export function checkNameConstraints(chain: Certificate[]): string | null {
  try {
    for (let i = 0; i < chain.length; i++) {
      const own = extensionOf(chain[i], SUBJECT_ALT_NAME)
      if (!chain[i].subjectAltNames.every(isWellFormed)) return 'malformed name'
      // 4.1.2.6: a CA has a name; anyone else without one carries it in a critical subjectAltName. Parsed, only an empty SEQUENCE has no attribute.
      if (chain[i].subject.length === 2 && (chain[i].isCa || !own || !own.critical)) return 'no name'
      const extension = extensionOf(chain[i], NAME_CONSTRAINTS)
      const problem = extension && checkBelow(chain, i, extension.value)
      if (problem) return problem
    }
    return null
  } catch (error) {
    if (!codeOf(error)) throw error
    return 'malformed name constraints'
  }
}
