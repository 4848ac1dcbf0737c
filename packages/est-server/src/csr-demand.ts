// From a profile to the csrattrs answer: what a client's CSR should hold so that it gets what the profile gives. Made so that a CSR that
// follows it is never refused for its content. Two forms of the same, since clients of both kinds exist (RFC 9908 4): the plain list of
// RFC 7030, and a template, which newer clients read instead of the list.

import {
  attributesOf,
  BIT_STRING,
  type Bytes,
  bytesOfHex,
  CHALLENGE_PASSWORD,
  COMMON_NAME,
  EXTENDED_KEY_USAGE,
  encodeElement,
  encodeName,
  encodeOid,
  encodeSequence,
  encodingOf,
  KEY_USAGE,
  OBJECT_IDENTIFIER,
  PRINTABLE_STRING,
  readWhole,
  SEQUENCE,
  SERIAL_NUMBER,
  SUBJECT_ALT_NAME,
  UTF8_STRING,
} from '@birthmark/device-sdk/core'
import type { CertificateNames, SubjectAttribute } from './registrar/name-template.ts'
import type { EnrollmentProfile } from './registrar/profile.ts'
import {
  CSR_TEMPLATE,
  type CsrAttribute,
  type ExtensionTemplate,
  encodeCsrAttributes,
  encodeCsrTemplate,
  extensionAttribute,
  keyAlgorithmOf,
} from './wire/csr-attributes.ts'

const EC_PUBLIC_KEY = '2a8648ce3d0201' // 1.2.840.10045.2.1
const RSA_ENCRYPTION = '2a864886f70d010101' // 1.2.840.113549.1.1.1
const ECDSA_SHA256 = '2a8648ce3d040302' // 1.2.840.10045.4.3.2

const curves: Record<string, string> = { 'P-256': '2a8648ce3d030107', 'P-384': '2b81040022', 'P-521': '2b81040023' }
const bare: Record<string, string> = { Ed25519: '2b6570', 'ML-DSA-44': '608648016503040311', 'ML-DSA-65': '608648016503040312' }

/** RFC 9908 3.2: exactly one key type can be said, and only as a demand. Null where the profile leaves a choice. */
function keyAttribute(name: string): CsrAttribute | null {
  if (Object.hasOwn(curves, name))
    return { oid: EC_PUBLIC_KEY, values: [encodeElement(OBJECT_IDENTIFIER, [bytesOfHex(curves[name])])] }
  // Any size that the key policy takes: a number here would be the only one.
  if (name === 'RSA') return { oid: RSA_ENCRYPTION, values: [] }
  return Object.hasOwn(bare, name) ? { oid: bare[name], values: [] } : null
}

/** A subject attribute's value as a certificate has it. */
function encodedValue(attribute: SubjectAttribute): Bytes {
  return encodingOf(attributesOf(readWhole(encodeName([attribute]), SEQUENCE))[0].value)
}

/**
 * DER CsrAttrs. `deviceId`, `names`: of the client whose certificate was recognised; they are then filled in, and left to it otherwise.
 *
 * A profile that wants the channel binding gives no template: a template has no way to ask for an attribute that the client fills in, and a
 * client that reads it ignores the list, where challengePassword stands (RFC 9908 4).
 */
export function csrDemand(
  profile: EnrollmentProfile,
  deviceId: string | null,
  possession: 'csr' | 'channel' = 'csr',
  names: CertificateNames | null = null,
): Bytes {
  const onlyKey = profile.keys.length === 1 ? profile.keys[0] : null
  const extensions: ExtensionTemplate[] = [
    { oid: KEY_USAGE, critical: true, value: encodeElement(BIT_STRING, [Uint8Array.of(7, 0x80)]) },
    { oid: EXTENDED_KEY_USAGE, critical: false, value: encodeSequence(profile.extendedKeyUsage.map(encodeOid)) },
  ]
  // A client that is not known cannot be told its own name; that the server gives it one needs no asking.
  if (names !== null && names.alternativeNames.length > 0)
    extensions.push({
      ...{ oid: SUBJECT_ALT_NAME, critical: false },
      value: encodeSequence(names.alternativeNames.map(({ tag, value }) => encodeElement(0x80 | tag, [value]))),
    })

  const items: CsrAttribute[] = []
  if (possession === 'channel') items.push({ oid: CHALLENGE_PASSWORD, values: null })
  const key = onlyKey === null ? null : keyAttribute(onlyKey)
  if (key !== null) items.push(key)
  items.push(extensionAttribute(extensions))
  if (onlyKey === 'P-256') items.push({ oid: ECDSA_SHA256, values: null })
  if (possession === 'csr') {
    const text = (tag: number) => (deviceId === null ? null : encodeElement(tag, [Buffer.from(deviceId)]))
    const subject =
      profile.subject === 'device'
        ? [[{ oid: COMMON_NAME, value: text(UTF8_STRING) }], [{ oid: SERIAL_NUMBER, value: text(PRINTABLE_STRING) }]]
        : profile.subject.attributes.map(({ oid, fixed }, i) => {
            const known = names?.subject?.[i] ?? fixed
            return [{ oid, value: known && encodedValue(known) }]
          })
    const algorithm = onlyKey === null ? null : keyAlgorithmOf(onlyKey)
    const template = encodeCsrTemplate({ subject, key: algorithm && { algorithm, placeholder: null }, extensions })
    items.push({ oid: CSR_TEMPLATE, values: [template] })
  }
  return encodeCsrAttributes(items)
}
