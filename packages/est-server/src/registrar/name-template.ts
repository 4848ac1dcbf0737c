// What a certificate of a profile calls its bearer: templates over what the store knows of the device, never over what a CSR says. A fact is
// in braces: {id}, {fleet}, or the key of a group written `key=value` ({model} of a device in `model=gw-2`). Templates are parsed with the
// profile; what does not vary with the device is made once and the same object ever after, so that its encoding can be remembered by it.

import { isIP } from 'node:net'
import {
  COMMON_NAME,
  COUNTRY,
  DOMAIN_COMPONENT,
  EMAIL_ADDRESS,
  encodeName,
  equalBytes,
  type GeneralName,
  LOCALITY,
  ORGANIZATION,
  ORGANIZATIONAL_UNIT,
  SERIAL_NUMBER,
  STATE,
} from '@birthmark/device-sdk/core'

export interface NameFacts {
  id: string
  fleet: string
  /** Names of the device's groups. */
  groups: readonly string[]
}

export interface Template {
  readonly source: string
  /** Text, and facts between. */
  readonly parts: readonly (string | { readonly fact: string })[]
}

export interface SubjectAttribute {
  /** Hex of the OID's content octets. */
  readonly oid: string
  readonly value: string
}

export interface SubjectTemplate {
  readonly source: readonly string[]
  readonly attributes: readonly { readonly oid: string; readonly template: Template; readonly fixed: SubjectAttribute | null }[]
}

export type NameKind = 'dns' | 'uri' | 'email' | 'ip'

export interface NameTemplate {
  readonly source: string
  readonly kind: NameKind
  readonly template: Template
  readonly fixed: GeneralName | null
}

/** The names of one certificate. `subject` null: CN and serialNumber, both the device id. */
export interface CertificateNames {
  readonly subject: readonly SubjectAttribute[] | null
  readonly alternativeNames: readonly GeneralName[]
}

/** Why a template has no value for a device: a sentence that names the fact or the rule of the name's syntax. */
export class NameError extends Error {}

/** An X.500 name of more is not a device's; each costs up to 140 bytes in every certificate. */
export const subjectAttributesMax = 12
export const alternativeNamesMax = 8
/** RFC 5280 A.1, upper bounds: ub-common-name, ub-serial-number and the rest. */
const attributeBounds: Record<string, { oid: string; charsMax: number }> = {
  CN: { oid: COMMON_NAME, charsMax: 64 },
  serialNumber: { oid: SERIAL_NUMBER, charsMax: 64 },
  C: { oid: COUNTRY, charsMax: 2 },
  ST: { oid: STATE, charsMax: 128 },
  L: { oid: LOCALITY, charsMax: 128 },
  O: { oid: ORGANIZATION, charsMax: 64 },
  OU: { oid: ORGANIZATIONAL_UNIT, charsMax: 64 },
  DC: { oid: DOMAIN_COMPONENT, charsMax: 63 },
  emailAddress: { oid: EMAIL_ADDRESS, charsMax: 255 },
}
const boundsOf = new Map(Object.entries(attributeBounds).map(([name, { oid, charsMax }]) => [oid, { name, charsMax }]))
const templateCharsMax = 256
// Longer names than any of RFC 5280's; the certificate writer has room for eight of them.
const uriCharsMax = 512

function parseTemplate(source: string): Template {
  if (source.length === 0 || source.length > templateCharsMax) throw new Error(`"${source}": 1 to ${templateCharsMax} characters`)
  const parts: (string | { fact: string })[] = []
  for (const part of source.split(/(\{[^{}]*\})/)) {
    if (part === '') continue
    if (!/[{}]/.test(part)) parts.push(part)
    else if (/^\{[A-Za-z][A-Za-z0-9_.-]{0,31}\}$/.test(part)) parts.push({ fact: part.slice(1, -1) })
    else throw new Error(`"${source}": ${part} is no fact; write {id}, {fleet} or the key of a group such as {model}`)
  }
  return { source, parts }
}

/** Whether the template asks for more than the device id and the fleet. */
function needsGroups({ parts }: Template): boolean {
  return parts.some(part => typeof part !== 'string' && part.fact !== 'id' && part.fact !== 'fleet')
}

function factOf(fact: string, facts: NameFacts): string {
  if (fact === 'id') return facts.id
  if (fact === 'fleet') return facts.fleet
  const found = facts.groups.filter(group => group.startsWith(`${fact}=`)).map(group => group.slice(fact.length + 1))
  if (found.length === 1 && found[0] !== '') return found[0]
  throw new NameError(
    found.length > 1 ? `device ${facts.id} is in ${found.length} groups ${fact}=…` : `device ${facts.id} is in no group ${fact}=…`,
  )
}

function render({ parts }: Template, facts: NameFacts, spell: (value: string) => string = value => value): string {
  let text = ''
  for (const part of parts) text += typeof part === 'string' ? part : spell(factOf(part.fact, facts))
  return text
}

function attributeOf(oid: string, value: string): SubjectAttribute {
  const { name, charsMax } = boundsOf.get(oid) as { name: string; charsMax: number }
  const wrong = (what: string) => new NameError(`${name}=${value.slice(0, 80)}: ${what}`)
  if ([...value].length > charsMax) throw wrong(`more than ${charsMax} characters`)
  if (/[\u0000-\u001f\u007f-\u009f]/.test(value)) throw wrong('a control character')
  if (oid === COUNTRY && !/^[A-Z]{2}$/.test(value)) throw wrong('a country is two capital letters')
  if ((oid === DOMAIN_COMPONENT || oid === EMAIL_ADDRESS) && !/^[\x21-\x7e]+$/.test(value)) throw wrong('ASCII without spaces')
  return { oid, value }
}

/** `CN={id}`, `O=Acme`, … in order. Throws Error with what is wrong. */
export function parseSubjectTemplate(source: readonly string[]): SubjectTemplate {
  if (source.length === 0 || source.length > subjectAttributesMax) throw new Error(`1 to ${subjectAttributesMax} attributes`)
  const attributes = source.map(one => {
    const [, name, value] = /^([A-Za-z]+)=(.*)$/s.exec(one) ?? []
    const known = name === undefined ? undefined : attributeBounds[name]
    if (known === undefined || !Object.hasOwn(attributeBounds, name))
      throw new Error(`"${one}": write ${Object.keys(attributeBounds).join(', ')}, an equals sign and the value`)
    const template = parseTemplate(value)
    const varies = template.parts.some(part => typeof part !== 'string')
    return { oid: known.oid, template, fixed: varies ? null : attributeOf(known.oid, value) }
  })
  const of = (oid: string) => attributes.filter(attribute => attribute.oid === oid).map(({ template }) => template.source)
  // The broker, and whoever else meets the certificate without our store, knows the device by its CN; its own firmware by serialNumber.
  if (of(COMMON_NAME).join() !== '{id}') throw new Error('CN={id} has to be there, once: relying parties know a device by it')
  if (!['', '{id}'].includes(of(SERIAL_NUMBER).join())) throw new Error('serialNumber can only be {id}')
  return { source, attributes }
}

const tags: Record<NameKind, number> = { email: 1, dns: 2, uri: 6, ip: 7 }
export const isNameKind = (kind: string): kind is NameKind => Object.hasOwn(tags, kind)

/** Sixteen or four octets of an address in text (RFC 5952, RFC 4291 2.2). */
function addressOctets(address: string): Uint8Array {
  if (isIP(address) === 4) return Uint8Array.from(address.split('.'), Number)
  const [head, tail] = address.split('::')
  const words = (text: string | undefined) =>
    (text ? text.split(':') : []).flatMap(word => {
      if (!word.includes('.')) return [Number.parseInt(word, 16)]
      const [a, b, c, d] = word.split('.').map(Number)
      return [a * 256 + b, c * 256 + d]
    })
  const [first, last] = [words(head), words(tail)]
  const all = [...first, ...Array<number>(8 - first.length - last.length).fill(0), ...last]
  return Uint8Array.from(all.flatMap(word => [word >> 8, word & 0xff]))
}

function nameOf(kind: NameKind, text: string): GeneralName {
  const wrong = (what: string) => new NameError(`${kind}:${text.slice(0, 80)}: ${what}`)
  if (kind === 'ip') {
    if (isIP(text) === 0 || text.includes('%')) throw wrong('no IP address')
    return { tag: tags.ip, value: addressOctets(text) }
  }
  // RFC 5280 4.2.1.6: IA5String; RFC 1034 3.5 as RFC 1123 2.1 widened it. No wildcard: a device is one host.
  const host = /^(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$/
  if (kind === 'dns' && !host.test(text)) throw wrong('no host name (letters, digits and hyphens between dots)')
  if (kind === 'email') {
    const [local, domain, more] = text.split('@')
    if (more !== undefined || !/^[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}$/.test(local) || !host.test(domain ?? ''))
      throw wrong('no mail address')
  }
  if (kind === 'uri') {
    if (text.length > uriCharsMax || !/^[a-z][a-z0-9+.-]*:[\x21\x23-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7a\x7e]+$/.test(text))
      throw wrong('no absolute URI')
    // A reader that normalises would see another name than the one that was written.
    if (/\/\.{1,2}(?:[/?#]|$)|\/\//.test(text.replace(/^[a-z][a-z0-9+.-]*:\/\//, ''))) throw wrong('a dot segment or an empty one')
  }
  return { tag: tags[kind], value: Buffer.from(text, 'latin1') }
}

// RFC 3986 2.3: what is unreserved stands for itself; a colon in a path segment does too (3.3) and MAC addresses have it.
const spellUri = (value: string) => encodeURIComponent(value).replaceAll('%3A', ':')

/** `dns:{id}.devices.example`, `uri:urn:dev:{id}`, `email:…`, `ip:{ip}`. Throws Error with what is wrong. */
export function parseNameTemplate(source: string): NameTemplate {
  const at = source.indexOf(':')
  const kind = source.slice(0, at)
  if (at < 0 || !isNameKind(kind)) throw new Error(`"${source}": write dns:, uri:, email: or ip: and the name`)
  const template = parseTemplate(source.slice(at + 1))
  const varies = template.parts.some(part => typeof part !== 'string')
  return { source, kind, template, fixed: varies ? null : nameOf(kind, template.source) }
}

/** Throws NameError when a template has no value for this device. */
export function renderSubject(subject: SubjectTemplate, facts: NameFacts): SubjectAttribute[] {
  return subject.attributes.map(({ oid, template, fixed }) => fixed ?? attributeOf(oid, render(template, facts)))
}

export function renderName({ kind, template, fixed }: NameTemplate, facts: NameFacts): GeneralName {
  const name = fixed ?? nameOf(kind, render(template, facts, kind === 'uri' ? spellUri : undefined))
  // An id is one label: `gw-1.gateways` under `{id}.acme.example` would be the device `gw-1` under `{id}.gateways.acme.example`.
  if (kind === 'dns' && facts.id.includes('.') && template.parts.some(part => typeof part !== 'string' && part.fact === 'id'))
    throw new NameError(`the device id ${facts.id} has a dot, which makes more than one label of a host name`)
  return name
}

export function templatesNeedGroups(subject: 'device' | SubjectTemplate, names: readonly NameTemplate[]): boolean {
  return (
    (subject !== 'device' && subject.attributes.some(({ template }) => needsGroups(template))) ||
    names.some(n => needsGroups(n.template))
  )
}

/** DER Name. */
export function subjectName(names: CertificateNames, deviceId: string): Uint8Array {
  const device = [
    { oid: COMMON_NAME, value: deviceId },
    { oid: SERIAL_NUMBER, value: deviceId },
  ]
  return encodeName(names.subject === null ? device : [...names.subject])
}

/** Whether two lists hold the same names, in any order. */
export function sameNames(a: readonly GeneralName[], b: readonly GeneralName[]): boolean {
  const within = (some: readonly GeneralName[], all: readonly GeneralName[]) =>
    some.every(one => all.some(other => other.tag === one.tag && equalBytes(other.value, one.value)))
  return a.length === b.length && within(a, b) && within(b, a)
}

/** `DNS gw-1.example, URI urn:…`, for people; '' for none. */
export function namesText(names: readonly GeneralName[]): string {
  const shown = ['otherName', 'email', 'DNS', 'X.400', 'directory name', 'EDI', 'URI', 'IP address', 'registered ID']
  return names
    .map(({ tag, value }) => {
      const text = tag === 7 ? addressText(value) : JSON.stringify(Buffer.from(value).toString('latin1').slice(0, 100)).slice(1, -1)
      return [1, 2, 6, 7].includes(tag) ? `${shown[tag]} ${text}` : (shown[tag] ?? 'unknown')
    })
    .join(', ')
}

function addressText(octets: Uint8Array): string {
  if (octets.length === 4) return octets.join('.')
  return Buffer.from(octets)
    .toString('hex')
    .replace(/(.{4})(?=.)/g, '$1:')
}
