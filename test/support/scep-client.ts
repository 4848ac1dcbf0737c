// A SCEP client for tests: builds what a device would send, and whatever else a test wants, and reads answers. The CMS encoders are the server's
// own; what proves that these are right are the programs in test/interop.

import { constants, createHash, createPrivateKey, type KeyObject, privateDecrypt, randomBytes, sign, verify } from 'node:crypto'
import {
  type Bytes,
  CHALLENGE_PASSWORD,
  COMMON_NAME,
  contentOf,
  csrAssemble,
  csrInfo,
  encodeAttribute,
  encodeBits,
  encodeElement,
  encodeInteger,
  encodeName,
  encodeSequence,
  encodeUnsigned,
  equalBytes,
  parseCertificate,
  parseCertsOnly,
  readWhole,
  signatureAlgorithmIdentifier,
  UTF8_STRING,
} from '@birthmark/device-sdk/core'
import { openContent, sealContent } from '../../packages/est-server/src/cms-cipher.ts'
import { importKey } from '../../packages/est-server/src/node-crypto.ts'
import {
  type ContentCipher,
  type KeyTransport,
  keyBytesOf,
  parseEnvelope,
} from '../../packages/est-server/src/wire/cms-envelope.ts'
import {
  attributeValue,
  type CmsAttribute,
  type Digest,
  draftSigned,
  MESSAGE_DIGEST,
  parseSigned,
  SIGNING_TIME,
} from '../../packages/est-server/src/wire/cms-signed.ts'

const text = (tag: number, value: string): Bytes => encodeElement(tag, [Buffer.from(value)])
const oid = (n: number): string => `6086480186f84501090${n}`

export interface ScepKey {
  spki: Bytes
  privateKey: KeyObject
}

/** DER CSR for CN=`name`, signed by `key` (or by another, for a test of that). */
export function scepCsr(
  key: ScepKey,
  name: string,
  challenge: string | null,
  more: { subject?: Bytes; signer?: KeyObject } = {},
): Bytes {
  const attributes = challenge === null ? [] : [encodeAttribute(CHALLENGE_PASSWORD, [text(UTF8_STRING, challenge)])]
  const info = csrInfo(more.subject ?? encodeName([{ oid: COMMON_NAME, value: name }]), key.spki, attributes)
  return csrAssemble(info, 'rsa-pkcs1-sha256', sign('sha256', info, more.signer ?? key.privateKey))
}

/** The certificate for the occasion: version 1, as the plainest clients make it. */
export function selfSigned(key: ScepKey, name: string): Bytes {
  const algorithm = signatureAlgorithmIdentifier('rsa-pkcs1-sha256')
  const subject = encodeName([{ oid: COMMON_NAME, value: name }])
  const validity = encodeSequence([text(0x17, '200101000000Z'), text(0x17, '491231235959Z')])
  const tbs = encodeSequence([encodeUnsigned(randomBytes(8)), algorithm, subject, validity, subject, key.spki])
  return encodeSequence([tbs, algorithm, encodeBits(sign('sha256', tbs, key.privateKey))])
}

export interface ScepMessageForm {
  messageType: string
  /** What goes into the envelope. */
  content: Bytes
  ra: { issuer: Bytes; serial: Bytes; spki: Bytes }
  signer: { certificate: Bytes; issuer: Bytes; serial: Bytes; privateKey: KeyObject }
  transactionId?: string
  cipher?: ContentCipher
  transport?: KeyTransport
  digest?: Digest
  pss?: boolean
  signingTime?: number
  /** Changes the envelope before it is signed. */
  bend?: (envelope: Bytes) => Bytes
  /** Changes attributes before they are signed. */
  attributes?: (attributes: CmsAttribute[]) => CmsAttribute[]
}

/** Issuer and serial of a certificate of any version. */
export function signerOf(certificate: Bytes, privateKey: KeyObject): ScepMessageForm['signer'] {
  const tbs = childrenAt(childrenAt(certificate)[0])
  const at = tbs[0][0] === 0xa0 ? 1 : 0
  const serial = readWhole(tbs[at], 2)
  return { certificate, issuer: tbs[at + 2], serial: contentOf(serial), privateKey }
}

function childrenAt(der: Bytes): Bytes[] {
  const out: Bytes[] = []
  const head = readWhole(der, der[0])
  for (let at = head.content; at < head.end; ) {
    const length = der[at + 1]
    const octets = length > 0x80 ? length & 0x7f : 0
    let size = octets ? 0 : length
    for (let i = 0; i < octets; i++) size = size * 256 + der[at + 2 + i]
    out.push(der.subarray(at, at + 2 + octets + size))
    at += 2 + octets + size
  }
  return out
}

export function scepMessage(form: ScepMessageForm): { message: Bytes; transactionId: string; senderNonce: Bytes } {
  const { messageType, ra, signer, cipher = 'aes-128-cbc', transport = { kind: 'pkcs1' }, digest = 'sha256' } = form
  const key = importKey(ra.spki)
  if (key === null) throw new Error('no RA key')
  const sealed = sealContent({ content: form.content, cipher, transport, recipient: ra, key, random: n => randomBytes(n) })
  const content = form.bend ? form.bend(sealed) : sealed
  const transactionId = form.transactionId ?? randomBytes(16).toString('hex')
  const senderNonce = randomBytes(16)
  const attributes: CmsAttribute[] = [
    { oid: oid(2), value: text(0x13, messageType) },
    { oid: oid(7), value: text(0x13, transactionId) },
    { oid: oid(5), value: encodeElement(4, [senderNonce]) },
  ]
  if (form.signingTime !== undefined) {
    const digits = new Date(form.signingTime * 1000).toISOString().replace(/[-:T]|\.\d+/g, '')
    attributes.push({ oid: SIGNING_TIME, value: text(0x17, digits.slice(2)) })
  }
  const draft = draftSigned({
    content,
    contentDigest: createHash(digest).update(content).digest(),
    attributes: form.attributes ? form.attributes(attributes) : attributes,
    certificates: [signer.certificate],
    signer,
    digest,
    signatureAlgorithm: `rsa-${form.pss ? 'pss' : 'pkcs1'}-${digest}`,
  })
  const padding = form.pss ? { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST } : {}
  const signature = sign(digest, draft.toBeSigned, { key: signer.privateKey, ...padding })
  return { message: draft.assemble(signature), transactionId, senderNonce }
}

export interface CertRep {
  status: 'success' | 'failure' | 'pending'
  failInfo: number | null
  failInfoText: string | null
  transactionId: string
  recipientNonce: Bytes
  signatureAlgorithm: string
  /** The certificates inside, issued one first; [] but for success. Undecrypted without a key. */
  certificates: Bytes[]
  /** What was in the envelope; null without one. */
  content: Bytes | null
  cipher: ContentCipher | null
}

function openEnvelope(der: Bytes, privateKey: KeyObject): { content: Bytes; cipher: ContentCipher } {
  const envelope = parseEnvelope(der)
  const contentKey = privateDecrypt(
    envelope.transport.kind === 'pkcs1'
      ? { key: privateKey, padding: constants.RSA_PKCS1_PADDING }
      : { key: privateKey, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: envelope.transport.digest },
    envelope.encryptedKey,
  )
  if (contentKey.length !== keyBytesOf[envelope.cipher]) throw new Error('content key')
  const { sound, content } = openContent(envelope, contentKey)
  if (!sound) throw new Error('the answer does not decrypt')
  return { content, cipher: envelope.cipher }
}

/** What is in the envelope of a successful answer. Nothing is verified. */
export function openAnswer(der: Bytes, privateKey: KeyObject): Bytes {
  return openEnvelope(parseSigned(der).content ?? new Uint8Array(0), privateKey).content
}

/** Verifies the answer against the RA, and decrypts it with `privateKey` where there is one. */
export function readCertRep(der: Bytes, ra: Bytes, privateKey: KeyObject | null): CertRep {
  const signed = parseSigned(der)
  if (signed.algorithms === null) throw signed.refused ?? new Error('algorithms')
  const { digest: hashName, signature: signatureAlgorithm } = signed.algorithms
  const { spki } = parseCertificate(ra)
  const key = importKey(spki)
  if (key === null) throw new Error('no RA key')
  const padding = signatureAlgorithm.startsWith('rsa-pss')
    ? { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
    : {}
  if (!verify(hashName, signed.signed[0], { key, ...padding }, signed.signature)) throw new Error('the answer does not verify')
  const content = signed.content ?? new Uint8Array(0)
  const digest = encodeElement(4, [createHash(hashName).update(content).digest()])
  const claimed = attributeValue(signed.attributes, MESSAGE_DIGEST)
  if (!claimed || !equalBytes(claimed, digest)) throw new Error("the answer's digest is wrong")
  const value = (n: number): Bytes | null => {
    const found = attributeValue(signed.attributes, oid(n))
    return found && contentOf(readWhole(found, found[0]))
  }
  const said = (n: number): string => Buffer.from(value(n) ?? []).toString()
  if (said(2) !== '3') throw new Error(`message type ${said(2)}`)
  const failInfoText = attributeValue(signed.attributes, '2b06010505071801')
  const rep: CertRep = {
    status: said(3) === '0' ? 'success' : said(3) === '3' ? 'pending' : 'failure',
    failInfo: value(4) ? Number(said(4)) : null,
    failInfoText: failInfoText && Buffer.from(contentOf(readWhole(failInfoText, UTF8_STRING))).toString(),
    transactionId: said(7),
    recipientNonce: value(6) ?? new Uint8Array(0),
    signatureAlgorithm,
    certificates: [],
    content: null,
    cipher: null,
  }
  if (rep.status !== 'success' || privateKey === null) return rep
  const opened = openEnvelope(content, privateKey)
  rep.content = opened.content
  rep.cipher = opened.cipher
  try {
    rep.certificates = parseCertsOnly(opened.content)
  } catch {
    // A revocation list.
  }
  return rep
}

/** What CertPoll carries. */
export function issuerAndSubject(issuer: Bytes, subject: Bytes): Bytes {
  return encodeSequence([issuer, subject])
}

/** What GetCert and GetCRL carry. */
export function issuerAndSerial(issuer: Bytes, serial: Bytes): Bytes {
  return encodeSequence([issuer, encodeElement(2, [serial])])
}

export const privateKeyOf = (pem: string): KeyObject => createPrivateKey(pem)
export const integer = encodeInteger
