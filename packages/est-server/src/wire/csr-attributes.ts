// What a server tells a client to put into its CSR: CsrAttrs (RFC 8951 3.5, RFC 9908 3.2), and within it the CSR template of RFC 9908 3.4.
// Pure, both ways: DER in, structures out, and back. What is asked for and what is then accepted is the profile's; unknown attributes are
// kept as they came (RFC 8951: a client ignores what it does not know).

import {
  BIT_STRING,
  BOOLEAN,
  type Bytes,
  booleanValue,
  bytesOfHex,
  childrenOf,
  contentOf,
  type Element,
  EXTENSION_REQUEST,
  encodeElement,
  encodeInteger,
  encodeOid,
  encodeSequence,
  encodeSetOf,
  encodingOf,
  OBJECT_IDENTIFIER,
  OCTET_STRING,
  oidValue,
  partsOf,
  readWhole,
  SEQUENCE,
  SET,
  smallInteger,
} from '@birthmark/device-sdk/core'

export const CSR_TEMPLATE = '2a864886f70d010910023d' // 1.2.840.113549.1.9.16.2.61 id-aa-certificationRequestInfoTemplate
export const EXTENSION_REQUEST_TEMPLATE = '2a864886f70d010910023e' // .62 id-aa-extensionReqTemplate

/** Bounds of what is read: a template of every attribute and extension in use stays far below. */
const itemsMax = 64
const bytesMax = 16_384

/** A bare OID, or an attribute with its values (DER). */
export type CsrAttribute = { oid: string; values: Bytes[] | null }

export interface ExtensionTemplate {
  oid: string
  critical: boolean
  /** Content of extnValue; null where the client fills it in. */
  value: Bytes | null
}

export interface CsrTemplate {
  /** RDNs of attributes, each with its DER value or null where the client fills it in; null where nothing is asked of the name. */
  subject: { oid: string; value: Bytes | null }[][] | null
  /** DER AlgorithmIdentifier, and a placeholder of the size that an RSA key is to have; null where any key will do. */
  key: { algorithm: Bytes; placeholder: Bytes | null } | null
  extensions: ExtensionTemplate[]
}

export function encodeCsrAttributes(attributes: CsrAttribute[]): Bytes {
  return encodeSequence(
    attributes.map(({ oid, values }) => (values === null ? encodeOid(oid) : encodeSequence([encodeOid(oid), encodeSetOf(values)]))),
  )
}

/** Throws `der_malformed`, `der_limit`. */
export function parseCsrAttributes(der: Bytes): CsrAttribute[] {
  if (der.length > bytesMax) throw new RangeError('CsrAttrs of more than 16 KB')
  return childrenOf(readWhole(der, SEQUENCE), itemsMax).map(item => {
    if (item.tag === OBJECT_IDENTIFIER) return { oid: oidValue(item), values: null }
    const [type, values] = partsOf(item, SEQUENCE, 2, 2)
    return { oid: oidValue(type), values: partsOf(values, SET, 0, itemsMax).map(encodingOf) }
  })
}

function encodeExtension({ oid, critical, value }: ExtensionTemplate): Bytes {
  const parts = [encodeOid(oid)]
  if (critical) parts.push(encodeElement(BOOLEAN, [Uint8Array.of(0xff)]))
  if (value !== null) parts.push(encodeElement(OCTET_STRING, [value]))
  return encodeSequence(parts)
}

/** The values of an extension attribute: those who fill nothing in get the plain request (RFC 9908 3.4: the template form only where needed). */
export function extensionAttribute(extensions: ExtensionTemplate[]): { oid: string; values: Bytes[] } {
  const open = extensions.some(({ value }) => value === null)
  return {
    oid: open ? EXTENSION_REQUEST_TEMPLATE : EXTENSION_REQUEST,
    values: [encodeSequence(extensions.map(encodeExtension))],
  }
}

export function encodeCsrTemplate({ subject, key, extensions }: CsrTemplate): Bytes {
  const parts = [encodeInteger(0)]
  if (subject !== null) {
    const attribute = ({ oid, value }: { oid: string; value: Bytes | null }) =>
      encodeSequence(value === null ? [encodeOid(oid)] : [encodeOid(oid), value])
    parts.push(encodeSequence(subject.map(rdn => encodeSetOf(rdn.map(attribute)))))
  }
  if (key !== null) {
    const bits = key.placeholder === null ? [] : [encodeElement(BIT_STRING, [Uint8Array.of(0), key.placeholder])]
    parts.push(encodeElement(0xa0, [key.algorithm, ...bits]))
  }
  const { oid, values } = extensionAttribute(extensions)
  const attribute = extensions.length === 0 ? [] : [encodeSequence([encodeOid(oid), encodeSetOf(values)])]
  parts.push(encodeElement(0xa1, attribute))
  return encodeSequence(parts)
}

const wrong = (detail: string): never => {
  throw new SyntaxError(`CSR template: ${detail}`)
}

function extensionOf(element: Element): ExtensionTemplate {
  const [type, ...rest] = partsOf(element, SEQUENCE, 1, 3)
  const critical = rest[0]?.tag === BOOLEAN && booleanValue(rest.shift() as Element)
  const value = rest.shift()
  if (rest.length > 0 || (value && value.tag !== OCTET_STRING)) wrong('extension')
  return { oid: oidValue(type), critical, value: value ? contentOf(value) : null }
}

/** DER of one CertificationRequestInfoTemplate. Throws SyntaxError, or `der_malformed` / `der_limit`. */
export function parseCsrTemplate(der: Bytes): CsrTemplate {
  const parts = partsOf(readWhole(der, SEQUENCE), SEQUENCE, 2, 4)
  if (smallInteger(parts[0]) !== 0) wrong('version')
  let at = 1
  let subject: CsrTemplate['subject'] = null
  if (parts[at].tag === SEQUENCE)
    subject = childrenOf(parts[at++], itemsMax).map(rdn =>
      partsOf(rdn, SET, 1, itemsMax).map(attribute => {
        const [type, value] = partsOf(attribute, SEQUENCE, 1, 2)
        return { oid: oidValue(type), value: value ? encodingOf(value) : null }
      }),
    )
  let key: CsrTemplate['key'] = null
  if (parts[at]?.tag === 0xa0) {
    const [algorithm, bits] = partsOf(parts[at++], 0xa0, 1, 2)
    if (bits && bits.tag !== BIT_STRING) wrong('key')
    key = { algorithm: encodingOf(algorithm), placeholder: bits ? contentOf(bits).subarray(1) : null }
  }
  if (at !== parts.length - 1) wrong('fields')
  const extensions: ExtensionTemplate[] = []
  let seen = 0
  for (const attribute of partsOf(parts[at], 0xa1, 0, itemsMax)) {
    const [type, values] = partsOf(attribute, SEQUENCE, 2, 2)
    const oid = oidValue(type)
    if (oid !== EXTENSION_REQUEST && oid !== EXTENSION_REQUEST_TEMPLATE) continue
    // RFC 9908 3.4: one of the two kinds, once, with one value.
    if (seen++ > 0) wrong('two requests for extensions')
    for (const extension of childrenOf(partsOf(values, SET, 1, 1)[0], itemsMax)) extensions.push(extensionOf(extension))
  }
  return { subject, key, extensions }
}

const algorithms: Record<string, string> = {
  'P-256': '301306072a8648ce3d020106082a8648ce3d030107',
  'P-384': '301006072a8648ce3d020106052b81040022',
  'P-521': '301006072a8648ce3d020106052b81040023',
  Ed25519: '300506032b6570',
  'ML-DSA-44': '300b0609608648016503040311',
  'ML-DSA-65': '300b0609608648016503040312',
  RSA: '300d06092a864886f70d0101010500',
}

/** DER AlgorithmIdentifier of a key type by its name in core; null for one that is not known here. */
export function keyAlgorithmOf(name: string): Bytes | null {
  return Object.hasOwn(algorithms, name) ? bytesOfHex(algorithms[name]) : null
}
