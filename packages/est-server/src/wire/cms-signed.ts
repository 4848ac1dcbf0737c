// SignedData (RFC 5652 5) as SCEP uses it: one signer, its certificate inside, signed attributes always. Pure: what comes out of parsing has
// a form and nothing more; whether the digest and the signature are good is for the caller, who is given exactly the bytes that were signed.

import {
  type Bytes,
  compareBytes,
  contentOf,
  type Element,
  encodeElement,
  encodeInteger,
  encodeOid,
  encodeSequence,
  encodeSetOf,
  encodingOf,
  equalBytes,
  expectTag,
  INTEGER,
  integerBytes,
  OCTET_STRING,
  oidValue,
  type PublicKey,
  partsOf,
  publicKeyOf,
  readWhole,
  SEQUENCE,
  SET,
  signatureAlgorithmIdentifier,
  signatureAlgorithmOf,
  timeValue,
  wholeParts,
} from '@birthmark/device-sdk/core'
import { CmsError } from './cms-error.ts'
import { type DerNode, derNode, encodeDer, oidBytes } from './der-tree.ts'

export const SIGNED_DATA = '2a864886f70d010702' // 1.2.840.113549.1.7.2
export const DATA = '2a864886f70d010701' // 1.2.840.113549.1.7.1
export const CONTENT_TYPE = '2a864886f70d010903' // 1.2.840.113549.1.9.3
export const MESSAGE_DIGEST = '2a864886f70d010904' // 1.2.840.113549.1.9.4
export const SIGNING_TIME = '2a864886f70d010905' // 1.2.840.113549.1.9.5

const RSA_ENCRYPTION = '2a864886f70d010101' // 1.2.840.113549.1.1.1

/** 1.2.840.113549.1.1.11 to .13. */
const withRsa = /^2a864886f70d01010[bcd]$/

/** Hash functions by OID (2.16.840.1.101.3.4.2.1 to .3). SHA-1 and MD5 are known by their absence. */
const digests: Record<string, Digest> = {
  '608648016503040201': 'sha256',
  '608648016503040202': 'sha384',
  '608648016503040203': 'sha512',
}

export type Digest = 'sha256' | 'sha384' | 'sha512'

// Chains of three and a CRL or two; attributes of SCEP and what mail programs add.
const certificatesMax = 8
const crlsMax = 4
const attributesMax = 24
const digestAlgorithmsMax = 8

export interface CmsAttribute {
  oid: string
  /** DER of its only value. */
  value: Bytes
}

/** Who is meant, by issuer and serial (content octets) or by subject key identifier. */
export type CertificateId = { issuer: Bytes; serial: Bytes } | { subjectKeyId: Bytes }

/** What of a certificate a signature is verified with and a reply is addressed by. Its own signature and form are not looked at. */
export interface SignerCertificate {
  der: Bytes
  issuer: Bytes
  serial: Bytes
  subject: Bytes
  spki: Bytes
  key: PublicKey
}

export interface SignedMessage {
  contentType: string
  /** The octets that the digest is of; null where there are none. */
  content: Bytes | null
  /** DER, in the order received. */
  certificates: Bytes[]
  /** Null with `refused` set. */
  algorithms: { digest: Digest /** Of device-sdk/core, and of `digest`. */; signature: string } | null
  /** Why there are none: an algorithm that is not used here. The attributes are read all the same, for the refusal to answer to. */
  refused: CmsError | null
  signer: CertificateId
  attributes: CmsAttribute[]
  /** What is signed: the attributes as a SET, as received and, where the sender had them in another order, as DER sorts them. */
  signed: Bytes[]
  signature: Bytes
}

const malformed = (what: string) => new CmsError('cms_malformed', what)

/** The hash function that a digest AlgorithmIdentifier names, its parameters absent or NULL (RFC 5754 2). */
export function digestOf(identifier: Element): Digest {
  const parts = partsOf(identifier, SEQUENCE, 1, 2)
  const oid = oidValue(parts[0])
  const digest = Object.hasOwn(digests, oid) ? digests[oid] : undefined
  if (digest === undefined || (parts[1] && parts[1].end - parts[1].head !== 2))
    throw new CmsError('cms_algorithm', `digest ${oid}: SHA-256, SHA-384 or SHA-512 is needed`)
  return digest
}

const digestIdentifiers = new Map(Object.entries(digests).map(([oid, digest]) => [digest, encodeSequence([encodeOid(oid)])]))

export function digestIdentifier(digest: Digest): Bytes {
  return digestIdentifiers.get(digest) as Bytes
}

function signatureOf(identifier: Element, digest: Digest): string {
  const parts = partsOf(identifier, SEQUENCE, 1, 2)
  // RFC 3370 3.2: rsaEncryption beside the digest algorithm says the same as sha256WithRSAEncryption, and is what most clients write.
  const oid = oidValue(parts[0])
  // RFC 4055 5: sha256WithRSAEncryption and its kin are to be accepted without their NULL, as pkijs writes them.
  const whole =
    parts.length === 1 && withRsa.test(oid)
      ? readWhole(encodeSequence([encodeOid(oid), new Uint8Array([5, 0])]), SEQUENCE)
      : identifier
  const name = oid === RSA_ENCRYPTION ? `rsa-pkcs1-${digest}` : signatureAlgorithmOf(whole)
  if (name === '' || name.endsWith('sha1')) throw new CmsError('cms_algorithm', `signature algorithm ${oidValue(parts[0])}`)
  // Ed25519 and ML-DSA name no hash.
  if (/sha\d+$/.test(name) && !name.endsWith(digest)) throw new CmsError('cms_algorithm', `${name} over a ${digest} digest`)
  return name
}

export function certificateIdOf(element: Element): CertificateId {
  if (element.tag === 0x80) return { subjectKeyId: contentOf(element) }
  const [issuer, serial] = partsOf(element, SEQUENCE, 2, 2)
  return { issuer: encodingOf(expectTag(issuer, SEQUENCE)), serial: integerBytes(serial) }
}

export function certificateIdNode({ issuer, serial }: { issuer: Bytes; serial: Bytes }): DerNode {
  return derNode(SEQUENCE, [issuer, derNode(INTEGER, [serial])])
}

function attributesOf(list: Element): CmsAttribute[] {
  const seen = new Set<string>()
  return partsOf(list, 0xa0, 1, attributesMax).map(item => {
    const [type, values] = partsOf(item, SEQUENCE, 2, 2)
    const oid = oidValue(type)
    if (seen.has(oid)) throw malformed('an attribute twice')
    seen.add(oid)
    return { oid, value: encodingOf(partsOf(values, SET, 1, 1)[0]) }
  })
}

/** The first certificate that `id` means, among those of a message. */
export function signerCertificateOf(certificates: Bytes[], id: CertificateId): SignerCertificate | null {
  for (const der of certificates) {
    const found = readSignerCertificate(der)
    if ('subjectKeyId' in id) {
      // Said by the certificate itself, so as good as any other way to point at it: the signature decides.
      if (Buffer.from(der).includes(Buffer.from(id.subjectKeyId))) return found
    } else if (equalBytes(found.issuer, id.issuer) && equalBytes(found.serial, id.serial)) return found
  }
  return null
}

/**
 * Reads the certificate that a client made for the occasion. They come as version 1, with serial 0, without extensions: nothing of that
 * matters where the certificate only carries a key and a name to answer to. Whoever claims an identity by it has it parsed strictly.
 */
export function readSignerCertificate(der: Bytes): SignerCertificate {
  const fields = partsOf(wholeParts(der, 3, 3)[0], SEQUENCE, 6, 10)
  const at = fields[0].tag === 0xa0 ? 1 : 0
  return {
    der,
    serial: integerBytes(fields[at]),
    issuer: encodingOf(expectTag(fields[at + 2], SEQUENCE)),
    subject: encodingOf(expectTag(fields[at + 4], SEQUENCE)),
    spki: encodingOf(expectTag(fields[at + 5], SEQUENCE)),
    key: publicKeyOf(fields[at + 5]),
  }
}

/** Parses DER (see derOfBer). Throws CmsError and core's der codes. */
export function parseSigned(der: Bytes): SignedMessage {
  const info = wholeParts(der, 2, 2)
  if (oidValue(info[0]) !== SIGNED_DATA) throw malformed('not SignedData')
  const [, digestAlgorithms, inner, ...rest] = partsOf(partsOf(info[1], 0xa0, 1, 1)[0], SEQUENCE, 4, 6)
  partsOf(digestAlgorithms, SET, 0, digestAlgorithmsMax)
  const [contentType, wrapped] = partsOf(inner, SEQUENCE, 1, 2)
  const content = wrapped ? contentOf(expectTag(partsOf(wrapped, 0xa0, 1, 1)[0], OCTET_STRING)) : null
  const last = rest.pop()
  let certificates: Bytes[] = []
  for (const part of rest) {
    // ExtendedCertificates and attribute certificates have tags of their own and are nobody's signer.
    if (part.tag === 0xa0)
      certificates = partsOf(part, 0xa0, 0, certificatesMax).flatMap(c => (c.tag === SEQUENCE ? [encodingOf(c)] : []))
    else partsOf(part, 0xa1, 0, crlsMax)
  }
  const signers = partsOf(last, SET, 0, certificatesMax)
  if (signers.length !== 1) throw new CmsError('cms_signers', `${signers.length} signers; one is needed`)
  const [version, sid, digestAlgorithm, ...more] = partsOf(signers[0], SEQUENCE, 5, 7)
  integerBytes(version)
  if (more[0].tag !== 0xa0) throw malformed('no signed attributes')
  const attributes = attributesOf(more[0])
  // A copy, which slice() of a Buffer is not.
  const asReceived = new Uint8Array(encodingOf(more[0]))
  // RFC 5652 5.4: the IMPLICIT [0] is not what is signed, the SET OF is.
  asReceived[0] = SET
  const items = partsOf(more[0], 0xa0, 1, attributesMax).map(encodingOf)
  const sorted = items.every((item, i) => i === 0 || compareBytes(items[i - 1], item) <= 0)
  let algorithms: SignedMessage['algorithms'] = null
  let refused: CmsError | null = null
  try {
    const digest = digestOf(digestAlgorithm)
    algorithms = { digest, signature: signatureOf(more[1], digest) }
  } catch (error) {
    if (!(error instanceof CmsError)) throw error
    refused = error
  }
  return {
    contentType: oidValue(contentType),
    content,
    certificates,
    algorithms,
    refused,
    signer: certificateIdOf(sid),
    attributes,
    signed: sorted ? [asReceived] : [asReceived, encodeSetOf(items)],
    signature: contentOf(expectTag(more[2], OCTET_STRING)),
  }
}

export function attributeValue(attributes: CmsAttribute[], oid: string): Bytes | null {
  return attributes.find(attribute => attribute.oid === oid)?.value ?? null
}

/** Seconds since 1970 of a signingTime (RFC 5652 11.3), null without one. */
export function signingTimeOf(attributes: CmsAttribute[]): number | null {
  const value = attributeValue(attributes, SIGNING_TIME)
  if (value === null) return null
  const [time] = wholeParts(encodeSequence([value]), 1, 1)
  return timeValue(time)
}

const version1 = encodeInteger(1)

/** Key transport and, beside a digest, a signature. */
export const rsaEncryption = encodeSequence([encodeOid(RSA_ENCRYPTION), new Uint8Array([5, 0])])

export interface SignedDraft {
  /** What the signer signs. */
  toBeSigned: Bytes
  /** The whole message, DER. */
  assemble(signature: Bytes): Bytes
}

/**
 * A SignedData in the making. `attributes`: beside contentType and messageDigest, which are added. `contentSha`: digest of `content`, or of
 * nothing where it is null.
 */
export function draftSigned(draft: {
  content: Bytes | null
  contentDigest: Bytes
  attributes: CmsAttribute[]
  certificates: Bytes[]
  signer: { issuer: Bytes; serial: Bytes }
  digest: Digest
  signatureAlgorithm: string
}): SignedDraft {
  const all: CmsAttribute[] = [
    { oid: CONTENT_TYPE, value: oidBytes(DATA) },
    { oid: MESSAGE_DIGEST, value: encodeElement(OCTET_STRING, [draft.contentDigest]) },
    ...draft.attributes,
  ]
  const set = encodeSetOf(all.map(({ oid, value }) => encodeDer(derNode(SEQUENCE, [oidBytes(oid), derNode(SET, [value])]))))
  return {
    toBeSigned: set,
    assemble(signature) {
      const digest = digestIdentifier(draft.digest)
      const attributes = new Uint8Array(set)
      attributes[0] = 0xa0
      // With a plain rsaEncryption beside the digest, as the oldest clients expect it (RFC 3370 3.2).
      const algorithm = draft.signatureAlgorithm.startsWith('rsa-pkcs1-')
        ? rsaEncryption
        : signatureAlgorithmIdentifier(draft.signatureAlgorithm)
      const signer = [version1, certificateIdNode(draft.signer), digest, attributes, algorithm, derNode(OCTET_STRING, [signature])]
      const content = draft.content ? [derNode(0xa0, [derNode(OCTET_STRING, [draft.content])])] : []
      const data = [
        version1,
        derNode(SET, [digest]),
        derNode(SEQUENCE, [oidBytes(DATA), ...content]),
        ...(draft.certificates.length > 0 ? [derNode(0xa0, draft.certificates)] : []),
        derNode(SET, [derNode(SEQUENCE, signer)]),
      ]
      return encodeDer(derNode(SEQUENCE, [oidBytes(SIGNED_DATA), derNode(0xa0, [derNode(SEQUENCE, data)])]))
    },
  }
}
