// EnvelopedData (RFC 5652 6) and AuthEnvelopedData (RFC 5083) for one recipient by RSA key transport: which algorithms, which bytes. Pure: no
// key is touched here. The table of what may be used is this file's; what a profile allows beyond AES is the caller's.

import {
  type Bytes,
  contentOf,
  type Element,
  encodeElement,
  encodeInteger,
  encodeOid,
  encodeSequence,
  encodingOf,
  expectTag,
  NULL,
  OCTET_STRING,
  oidValue,
  partsOf,
  SEQUENCE,
  SET,
  smallInteger,
  wholeParts,
} from '@birthmark/device-sdk/core'
import { joinedOctets } from './ber.ts'
import { CmsError } from './cms-error.ts'
import {
  type CertificateId,
  certificateIdNode,
  certificateIdOf,
  DATA,
  type Digest,
  digestIdentifier,
  digestOf,
  rsaEncryption,
} from './cms-signed.ts'
import { derNode, encodeDer, oidBytes } from './der-tree.ts'

const ENVELOPED_DATA = '2a864886f70d010703' // 1.2.840.113549.1.7.3
const AUTH_ENVELOPED_DATA = '2a864886f70d0109100117' // 1.2.840.113549.1.9.16.1.23
const RSA_ENCRYPTION = '2a864886f70d010101' // 1.2.840.113549.1.1.1
const RSAES_OAEP = '2a864886f70d010107' // 1.2.840.113549.1.1.7
const MGF1 = '2a864886f70d010108' // 1.2.840.113549.1.1.8

export type ContentCipher = 'aes-128-cbc' | 'aes-256-cbc' | 'aes-128-gcm' | 'aes-256-gcm' | 'des-ede3-cbc'

/** 2.16.840.1.101.3.4.1.2, .42, .6, .46 and 1.2.840.113549.3.7. DES (1.3.14.3.2.7) and RC2 are known by their absence. */
const ciphers: Record<string, ContentCipher> = {
  '608648016503040102': 'aes-128-cbc',
  '60864801650304012a': 'aes-256-cbc',
  '608648016503040106': 'aes-128-gcm',
  '60864801650304012e': 'aes-256-gcm',
  '2a864886f70d0307': 'des-ede3-cbc',
}

export const keyBytesOf: Record<ContentCipher, number> = {
  'aes-128-cbc': 16,
  'aes-256-cbc': 32,
  'aes-128-gcm': 16,
  'aes-256-gcm': 32,
  'des-ede3-cbc': 24,
}

/** `oaep`: the hash, the same inside MGF1, no label (RFC 4055 4.1). */
export type KeyTransport = { kind: 'pkcs1' } | { kind: 'oaep'; digest: Digest }

export interface Envelope {
  recipient: CertificateId
  transport: KeyTransport
  encryptedKey: Bytes
  cipher: ContentCipher
  /** CBC's initial vector or GCM's nonce. */
  iv: Bytes
  ciphertext: Bytes
  /** GCM: what is authenticated beside the content, and the tag. */
  authenticated: { attributes: Bytes; tag: Bytes } | null
}

const recipientsMax = 8
const attributesMax = 8

const malformed = (what: string) => new CmsError('cms_malformed', what)
const refused = (what: string) => new CmsError('cms_algorithm', what)

function transportOf(identifier: Element): KeyTransport {
  const [type, parameters] = partsOf(identifier, SEQUENCE, 1, 2)
  const oid = oidValue(type)
  if (oid === RSA_ENCRYPTION) {
    if (parameters && parameters.tag !== NULL) throw malformed('key transport')
    return { kind: 'pkcs1' }
  }
  if (oid !== RSAES_OAEP) throw refused(`key transport ${oid}`)
  // The defaults are SHA-1 for both, so that both have to be said.
  const said = parameters ? partsOf(parameters, SEQUENCE, 0, 3) : []
  if (said.length !== 2 || said[0].tag !== 0xa0 || said[1].tag !== 0xa1) throw refused('OAEP with SHA-1 or a label')
  const digest = digestOf(partsOf(said[0], 0xa0, 1, 1)[0])
  const [mgf, mgfHash] = partsOf(partsOf(said[1], 0xa1, 1, 1)[0], SEQUENCE, 2, 2)
  if (oidValue(mgf) !== MGF1 || digestOf(mgfHash) !== digest) throw refused('OAEP with two hash functions')
  return { kind: 'oaep', digest }
}

interface Contents {
  cipher: ContentCipher
  iv: Bytes
  tagBytes: number
  ciphertext: Bytes
}

function contentsOf(info: Element): Contents {
  const [type, algorithm, encrypted] = partsOf(info, SEQUENCE, 3, 3)
  oidValue(type)
  const [name, parameters] = partsOf(algorithm, SEQUENCE, 1, 2)
  const oid = oidValue(name)
  const cipher = Object.hasOwn(ciphers, oid) ? ciphers[oid] : undefined
  if (cipher === undefined) throw refused(`content encryption ${oid}: AES is needed`)
  let iv: Bytes
  let tagBytes = 0
  if (cipher.endsWith('gcm')) {
    // RFC 5084 3.2: nonce and the length of the tag, 12 where it is not said.
    const [nonce, length] = partsOf(parameters, SEQUENCE, 1, 2)
    iv = contentOf(expectTag(nonce, OCTET_STRING))
    tagBytes = length ? smallInteger(length) : 12
    if (iv.length !== 12 || tagBytes < 12 || tagBytes > 16) throw refused('GCM nonce or tag')
  } else {
    iv = contentOf(expectTag(parameters, OCTET_STRING))
    if (iv.length !== (cipher === 'des-ede3-cbc' ? 8 : 16)) throw malformed('initial vector')
  }
  // IMPLICIT OCTET STRING: in one piece, or in several where the sender streamed it. A context tag does not say which to derOfBer.
  const ciphertext =
    encrypted.tag === 0xa0 ? joinedOctets(partsOf(encrypted, 0xa0, 1, 4096).map(encodingOf)) : contentOf(expectTag(encrypted, 0x80))
  return { cipher, iv, tagBytes, ciphertext }
}

/** Parses DER (see derOfBer). Throws CmsError and core's der codes. Nothing here depends on a key. */
export function parseEnvelope(der: Bytes): Envelope {
  const info = wholeParts(der, 2, 2)
  const type = oidValue(info[0])
  const authenticated = type === AUTH_ENVELOPED_DATA
  if (!authenticated && type !== ENVELOPED_DATA) throw malformed('not EnvelopedData')
  const fields = partsOf(partsOf(info[1], 0xa0, 1, 1)[0], SEQUENCE, 3, 7)
  smallInteger(fields.shift() as Element)
  if (fields[0].tag === 0xa0) fields.shift()
  const recipients = partsOf(fields.shift(), SET, 0, recipientsMax)
  if (recipients.length !== 1) throw new CmsError('cms_recipients', `${recipients.length} recipients; one is needed`)
  // Key agreement and passwords ([1] to [4]) are other structures.
  if (recipients[0].tag !== SEQUENCE) throw refused('a recipient other than by key transport')
  const [version, rid, transport, encryptedKey] = partsOf(recipients[0], SEQUENCE, 4, 4)
  smallInteger(version)
  const envelope = {
    recipient: certificateIdOf(rid),
    transport: transportOf(transport),
    encryptedKey: contentOf(expectTag(encryptedKey, OCTET_STRING)),
  }
  const { tagBytes, ...contents } = contentsOf(expectTag(fields.shift(), SEQUENCE))
  if (tagBytes > 0 !== authenticated)
    throw refused(`${contents.cipher} in ${authenticated ? 'AuthEnvelopedData' : 'EnvelopedData'}`)
  if (!authenticated) return { ...envelope, ...contents, authenticated: null }
  let attributes: Bytes = new Uint8Array(0)
  if (fields[0]?.tag === 0xa1) {
    const list = fields.shift() as Element
    partsOf(list, 0xa1, 1, attributesMax)
    attributes = new Uint8Array(encodingOf(list))
    // RFC 5083 2.2: as with signed attributes, the SET OF is what counts.
    attributes[0] = SET
  }
  const tag = contentOf(expectTag(fields[0], OCTET_STRING))
  if (tag.length !== tagBytes) throw malformed('tag')
  return { ...envelope, ...contents, authenticated: { attributes, tag } }
}

function transportIdentifier(transport: KeyTransport): Bytes {
  if (transport.kind === 'pkcs1') return rsaEncryption
  // RFC 4055 4.1 spells the hash functions of OAEP with NULL.
  const [oid] = wholeParts(digestIdentifier(transport.digest), 1, 1)
  const hash = encodeSequence([encodingOf(oid), new Uint8Array([5, 0])])
  const mgf = encodeSequence([encodeOid(MGF1), hash])
  return encodeSequence([encodeOid(RSAES_OAEP), encodeSequence([encodeElement(0xa0, [hash]), encodeElement(0xa1, [mgf])])])
}

const version0 = encodeInteger(0)
const oidOf = new Map(Object.entries(ciphers).map(([oid, cipher]) => [cipher, encodeOid(oid)]))

/** The DER of an envelope for one recipient, named by issuer and serial. */
export function encodeEnvelope(envelope: Envelope & { recipient: { issuer: Bytes; serial: Bytes } }): Bytes {
  const { recipient, transport, encryptedKey, cipher, iv, ciphertext, authenticated } = envelope
  const nonce = derNode(OCTET_STRING, [iv])
  const parameters = authenticated ? derNode(SEQUENCE, [nonce, encodeInteger(authenticated.tag.length)]) : nonce
  const recipientInfo = derNode(SEQUENCE, [
    version0,
    certificateIdNode(recipient),
    transportIdentifier(transport),
    derNode(OCTET_STRING, [encryptedKey]),
  ])
  const algorithm = derNode(SEQUENCE, [oidOf.get(cipher) as Bytes, parameters])
  const fields = [
    version0,
    derNode(SET, [recipientInfo]),
    derNode(SEQUENCE, [oidBytes(DATA), algorithm, derNode(0x80, [ciphertext])]),
    ...(authenticated ? [derNode(OCTET_STRING, [authenticated.tag])] : []),
  ]
  const type = authenticated ? AUTH_ENVELOPED_DATA : ENVELOPED_DATA
  return encodeDer(derNode(SEQUENCE, [oidBytes(type), derNode(0xa0, [derNode(SEQUENCE, fields)])]))
}
