// SCEP's messages (RFC 8894): what a request target asks for, what a PKIMessage says of itself, the attributes of an answer. Pure: bytes and
// text in and out. Old clients are read as they are: base64 unescaped or with `+` come through as a space, no `message` where none is needed.

import {
  type Bytes,
  decodeBase64,
  encodeElement,
  encodingOf,
  expectTag,
  OCTET_STRING,
  PRINTABLE_STRING,
  readWhole,
  SEQUENCE,
  UTF8_STRING,
  wholeParts,
} from '@birthmark/device-sdk/core'
import { CmsError } from './cms-error.ts'
import { attributeValue, type CertificateId, type CmsAttribute, certificateIdOf, type SignedMessage } from './cms-signed.ts'

/** Where SCEP lives. RFC 8894 4.1 names the second path, which clients add to a bare host by themselves. */
export const scepPrefix = '/scep'
export const pkiclientPath = '/cgi-bin/pkiclient.exe'

export interface ScepTarget {
  label: string | null
  /** As it came. */
  operation: string
  /** Unescaped; null where there is none. */
  message: string | null
}

/** The label that a path names, null for none; undefined where the path is not SCEP's. */
export function scepLabelOf(path: string): string | null | undefined {
  // IOS puts the program's name behind whatever path it was given.
  if (path === scepPrefix || path === pkiclientPath || path === `${scepPrefix}/pkiclient.exe`) return null
  return /^\/scep\/([A-Za-z0-9_][A-Za-z0-9._~-]{0,63})(?:\/pkiclient\.exe)?$/.exec(path)?.[1]
}

function unescaped(text: string): string {
  // What is no escape stands for itself: base64 has no percent sign, and a name that does not fit is refused by its value.
  return text.replace(/%([0-9A-Fa-f]{2})/g, (_all, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
}

/** Null where path is not SCEP's. Parameters after the first of a name are ignored, as is the order. */
export function parseScepTarget(target: string): ScepTarget | null {
  const mark = target.indexOf('?')
  const label = scepLabelOf(mark < 0 ? target : target.slice(0, mark))
  if (label === undefined) return null
  const parameters = new Map<string, string>()
  for (const pair of mark < 0 ? [] : target.slice(mark + 1).split('&', 8)) {
    // The first sign alone: unescaped base64 ends in more of them.
    const sign = pair.indexOf('=')
    const name = sign < 0 ? pair : pair.slice(0, sign)
    if (!parameters.has(name)) parameters.set(name, sign < 0 ? '' : unescaped(pair.slice(sign + 1)))
  }
  return { label, operation: parameters.get('operation') ?? '', message: parameters.get('message') ?? null }
}

/** The bytes of a PKIOperation by GET. Throws `base64_malformed`. */
export function messageOfGet(message: string, bytesMax: number): Bytes {
  // Who takes the plus sign of a query for a space has done so to base64 as well; line ends stay white space.
  const base64 = message.replaceAll(' ', '+').replace(/[\r\n=]/g, '')
  return decodeBase64(Buffer.from(base64.padEnd(Math.ceil(base64.length / 4) * 4, '='), 'latin1'), bytesMax)
}

// 2.16.840.1.113733.1.9.2 to .7, RFC 8894 3.2.1; id-scep-failInfoText is 1.3.6.1.5.5.7.24.1.
const MESSAGE_TYPE = '6086480186f845010902'
const PKI_STATUS = '6086480186f845010903'
const FAIL_INFO = '6086480186f845010904'
const SENDER_NONCE = '6086480186f845010905'
const RECIPIENT_NONCE = '6086480186f845010906'
const TRANSACTION_ID = '6086480186f845010907'
const FAIL_INFO_TEXT = '2b06010505071801'

/** RFC 8894 3.2.1.2. */
export const messageTypes = {
  '3': 'CertRep',
  '17': 'RenewalReq',
  '19': 'PKCSReq',
  '20': 'CertPoll',
  '21': 'GetCert',
  '22': 'GetCRL',
} as const

export type MessageType = (typeof messageTypes)[keyof typeof messageTypes]

/** RFC 8894 3.2.1.4, in the order of their numbers. */
export const failInfos = ['badAlg', 'badMessageCheck', 'badRequest', 'badTime', 'badCertId'] as const

export type FailInfo = (typeof failInfos)[number]

// A hash of a key in base64 or hex is what clients send; RFC 8894 says no bound.
const transactionIdCharsMax = 255
/** 16 octets say the RFC; what old clients send is echoed as it came. */
const nonceBytesMax = 64

export interface ScepHeader {
  /** Decimal as it came; not every number is a MessageType. */
  messageType: string
  transactionId: string
  senderNonce: Bytes
}

function contentOf(value: Bytes, tag: number): Bytes {
  const element = readWhole(value, tag)
  return value.subarray(element.content, element.end)
}

function printable(value: Bytes): string {
  // A UTF8String passes too: some libraries know no other string.
  const text = Buffer.from(contentOf(value, value[0] === UTF8_STRING ? UTF8_STRING : PRINTABLE_STRING)).toString('latin1')
  if (text.length > transactionIdCharsMax || !/^[\x20-\x7e]*$/.test(text)) throw new CmsError('cms_malformed', 'attribute text')
  return text
}

function part<T>(attributes: CmsAttribute[], oid: string, read: (value: Bytes) => T): T | null {
  const value = attributeValue(attributes, oid)
  return value === null ? null : read(value)
}

function nonceOf(value: Bytes): Bytes {
  const nonce = contentOf(value, OCTET_STRING)
  if (nonce.length > nonceBytesMax) throw new CmsError('cms_malformed', 'nonce')
  return nonce
}

/** What the message says of itself; `cms_malformed` where a part is missing or of another form. */
export function headerOf(message: SignedMessage): ScepHeader {
  const { attributes } = message
  const messageType = part(attributes, MESSAGE_TYPE, printable)
  const transactionId = part(attributes, TRANSACTION_ID, printable)
  const senderNonce = part(attributes, SENDER_NONCE, nonceOf)
  if (messageType === null || !transactionId || senderNonce === null)
    throw new CmsError('cms_malformed', 'messageType, transactionID or senderNonce is missing')
  return { messageType, transactionId, senderNonce }
}

/** As much of it as can be read, to answer what cannot be answered otherwise. */
export function readableHeader(attributes: CmsAttribute[]): ScepHeader {
  const attempt = <T>(oid: string, read: (value: Bytes) => T, otherwise: T): T => {
    try {
      return part(attributes, oid, read) ?? otherwise
    } catch {
      return otherwise
    }
  }
  return {
    messageType: attempt(MESSAGE_TYPE, printable, ''),
    transactionId: attempt(TRANSACTION_ID, printable, ''),
    senderNonce: attempt(SENDER_NONCE, nonceOf, new Uint8Array(0)),
  }
}

export type PkiStatus = { kind: 'success' } | { kind: 'pending' } | { kind: 'failure'; failInfo: FailInfo; text: string | null }

const text = (tag: number, value: string) => encodeElement(tag, [Buffer.from(value)])

/** The attributes of a CertRep (RFC 8894 3.3.2) in answer to `request`. */
export function certRepAttributes(request: ScepHeader, status: PkiStatus, senderNonce: Bytes): CmsAttribute[] {
  const number = { success: '0', failure: '2', pending: '3' }[status.kind]
  const attributes = [
    { oid: MESSAGE_TYPE, value: text(PRINTABLE_STRING, '3') },
    { oid: TRANSACTION_ID, value: text(PRINTABLE_STRING, request.transactionId) },
    { oid: PKI_STATUS, value: text(PRINTABLE_STRING, number) },
    { oid: SENDER_NONCE, value: encodeElement(OCTET_STRING, [senderNonce]) },
    { oid: RECIPIENT_NONCE, value: encodeElement(OCTET_STRING, [request.senderNonce]) },
  ]
  if (status.kind !== 'failure') return attributes
  attributes.push({ oid: FAIL_INFO, value: text(PRINTABLE_STRING, String(failInfos.indexOf(status.failInfo))) })
  if (status.text !== null) attributes.push({ oid: FAIL_INFO_TEXT, value: text(UTF8_STRING, status.text) })
  return attributes
}

/** IssuerAndSubject, what CertPoll carries (RFC 8894 3.3.3): DER Names. */
export function parseIssuerAndSubject(der: Bytes): { issuer: Bytes; subject: Bytes } {
  const [issuer, subject] = wholeParts(der, 2, 2)
  return { issuer: encodingOf(expectTag(issuer, SEQUENCE)), subject: encodingOf(expectTag(subject, SEQUENCE)) }
}

/** IssuerAndSerialNumber, what GetCert and GetCRL carry (3.3.4). */
export function parseIssuerAndSerial(der: Bytes): { issuer: Bytes; serial: Bytes } {
  const id: CertificateId = certificateIdOf(readWhole(der, SEQUENCE))
  if ('subjectKeyId' in id) throw new CmsError('cms_malformed', 'issuer and serial')
  return id
}
