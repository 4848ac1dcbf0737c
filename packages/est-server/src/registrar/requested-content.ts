// What a CSR asks for beside its key, held against what the profile gives. Nothing of it is copied: the answer is either "that is what you
// would get anyway" or a refusal that names the first thing too much, since a certificate that silently lacks what was asked for fails
// later and somewhere else. RFC 7030 4.2.1, 4.2.2; RFC 5280 4.2.1.

import {
  AUTHORITY_KEY_ID,
  attributesOf,
  BASIC_CONSTRAINTS,
  type Bytes,
  booleanValue,
  COMMON_NAME,
  COUNTRY,
  childrenOf,
  codeOf,
  contentOf,
  DIGITAL_SIGNATURE,
  EXTENDED_KEY_USAGE,
  type Extension,
  KEY_USAGE,
  LOCALITY,
  namedBits,
  nameText,
  ORGANIZATION,
  ORGANIZATIONAL_UNIT,
  oidText,
  oidValue,
  readElement,
  readWhole,
  SEQUENCE,
  SERIAL_NUMBER,
  STATE,
  SUBJECT_ALT_NAME,
  SUBJECT_KEY_ID,
  sameName,
  stringOf,
} from '@birthmark/device-sdk/core'
import { purposeText } from './certificate-purpose.ts'
import { type CertificateNames, namesText, sameNames, subjectName } from './name-template.ts'
import type { ProvenCsr } from './possession.ts'
import { type Refusal, refusal } from './refusal.ts'

export interface Entitlement {
  deviceId: string
  /** What the certificate will be called. */
  names: CertificateNames
  /** Hex OIDs of the purposes it will have. */
  purposes: readonly string[]
  /** DER Name the identity bears now: of the birth certificate or, for a renewal, of the current one. */
  subject: Bytes | null
  /** RFC 7030 4.2.2: a renewal's subject is the current one, not merely the same device. */
  renewal: boolean
  /** The request came by SCEP, whose clients cannot leave their organization or host name out: beside the own id they are passed over. */
  lenientNames: boolean
}

/** O, OU, C, L, ST, and unstructuredName and -Address (1.2.840.113549.1.9.2, .8), which Cisco routers add. None of them reaches a certificate. */
const passedOver = [ORGANIZATION, ORGANIZATIONAL_UNIT, COUNTRY, LOCALITY, STATE, '2a864886f70d010902', '2a864886f70d010908']

function subjectRefusal(subject: Bytes, e: Entitlement): Refusal | null {
  if (e.renewal && !e.lenientNames) {
    if (e.subject && sameName(subject, e.subject)) return null
    // A profile under which names may change gives its own whatever the old one was; asking for just that is in order.
    if (sameName(subject, subjectName(e.names, e.deviceId))) return null
    return refusal(
      'subject_changed',
      `the CSR's subject is "${nameText(subject)}", the current one is "${e.subject ? nameText(e.subject) : ''}"`,
    )
  }
  // An empty subject leaves the naming to the server. CN and serialNumber may repeat the own id; anything else is not the device's to choose,
  // unless it is the name that it was born with.
  for (const attribute of attributesOf(readWhole(subject, SEQUENCE))) {
    const value = stringOf(attribute.value)
    const own = (attribute.oid === COMMON_NAME || attribute.oid === SERIAL_NUMBER) && value === e.deviceId
    if (own || e.names.subject?.some(given => given.oid === attribute.oid && given.value === value)) continue
    if (e.subject && sameName(subject, e.subject)) continue
    if (e.lenientNames && passedOver.includes(attribute.oid)) continue
    return refusal('subject_not_own', `the CSR asks for subject "${nameText(subject)}"; this is device ${e.deviceId}`)
  }
  return null
}

function altNameRefusal(value: Bytes, e: Entitlement): Refusal | null {
  for (const element of childrenOf(readWhole(value, SEQUENCE), 64)) {
    const name = { tag: element.tag & 31, value: contentOf(element) }
    if (element.tag === (0x80 | name.tag) && e.names.alternativeNames.some(given => sameNames([given], [name]))) continue
    return refusal('subject_alt_name_not_allowed', `the CSR asks for the alternative name ${namesText([name])}`)
  }
  return null
}

function extensionRefusal({ oid, value }: Extension, e: Entitlement): Refusal | null {
  if (oid === SUBJECT_ALT_NAME) return altNameRefusal(value, e)
  if (oid === BASIC_CONSTRAINTS) {
    const first = childrenOf(readWhole(value, SEQUENCE), 2)[0]
    return first && (first.tag !== 1 || booleanValue(first)) ? refusal('ca_not_allowed', 'the CSR asks for a CA certificate') : null
  }
  if (oid === KEY_USAGE) {
    const more = namedBits(readElement(value, 0, value.length)) & ~DIGITAL_SIGNATURE
    return more === 0 ? null : refusal('key_usage_not_allowed', 'the CSR asks for key usages other than digitalSignature')
  }
  if (oid === EXTENDED_KEY_USAGE) {
    const more = childrenOf(readWhole(value, SEQUENCE), 32).find(purpose => !e.purposes.includes(oidValue(purpose)))
    if (more === undefined) return null
    return refusal(
      'extended_key_usage_not_allowed',
      `the CSR asks for the extended key usage ${purposeText(oidText(oidValue(more)))}; the profile gives ${e.purposes.map(oid => purposeText(oidText(oid))).join(', ')}`,
    )
  }
  // Key identifiers are computed here, whatever was asked.
  if (oid === SUBJECT_KEY_ID || oid === AUTHORITY_KEY_ID) return null
  return refusal('extension_not_allowed', `the CSR asks for the extension ${oidText(oid)}`)
}

/** Null when all that is asked for is what the identity is given anyway. Never throws on what a peer sent. */
export function contentRefusal(csr: ProvenCsr, entitlement: Entitlement): Refusal | null {
  try {
    const first = subjectRefusal(csr.csr.subject, entitlement)
    if (first) return first
    for (const extension of csr.extensions) {
      const refused = extensionRefusal(extension, entitlement)
      if (refused) return refused
    }
    return null
  } catch (error) {
    if (codeOf(error) === null) throw error
    return refusal('csr_malformed', (error as Error).message)
  }
}
