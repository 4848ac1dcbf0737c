// The private key of a server-generated pair as RFC 7030 4.4.2 wants it: AsymmetricKeyPackage (RFC 5958) in SignedData in EnvelopedData
// (RFC 5652, RFC 5753, RFC 4056/3560). Structures only: what is hashed, signed, wrapped and encrypted is computed by the caller
// (key-envelope.ts). Also what a CSR says of how its sender wants the key.

import {
  type Bytes,
  type Certificate,
  type Csr,
  childrenOf,
  contentOf,
  encodeElement,
  encodeInteger,
  encodeOid,
  encodeSequence,
  encodeSetOf,
  hexOf,
  OCTET_STRING,
  oidValue,
  partsOf,
  readWhole,
  SEQUENCE,
} from '@birthmark/device-sdk/core'
import { CONTENT_TYPE, MESSAGE_DIGEST, SIGNED_DATA } from './cms-signed.ts'

const ASYMMETRIC_DECRYPT_KEY_ID = '2a864886f70d0109100236' // 1.2.840.113549.1.9.16.2.54
const DECRYPT_KEY_ID = '2a864886f70d0109100225' // .37, a symmetric key
const SMIME_CAPABILITIES = '2a864886f70d01090f' // 1.2.840.113549.1.9.15

const ENVELOPED_DATA = '2a864886f70d010703'
const KEY_PACKAGE = '60864801650201024e05' // 2.16.840.1.101.2.1.2.78.5 id-ct-KP-aKeyPackage
const SHA256 = '608648016503040201'
const AES_128_CBC = '608648016503040102'
const AES_256_CBC = '60864801650304012a'
const AES_128_WRAP = '608648016503040105'
const AES_256_WRAP = '60864801650304012d'
const ECDH_SHA256_KDF = '2b8104010b01' // 1.3.132.1.11.1 dhSinglePass-stdDH-sha256kdf-scheme
const RSAES_OAEP = '2a864886f70d010107'
const MGF1 = '2a864886f70d010108'

export type ContentCipher = 'aes-128-cbc' | 'aes-256-cbc'

const ciphers: Record<ContentCipher, { oid: string; wrap: string; keyBytes: number }> = {
  'aes-128-cbc': { oid: AES_128_CBC, wrap: AES_128_WRAP, keyBytes: 16 },
  'aes-256-cbc': { oid: AES_256_CBC, wrap: AES_256_WRAP, keyBytes: 32 },
}

export const keyBytesOf = (cipher: ContentCipher): number => ciphers[cipher].keyBytes

export interface KeyWish {
  /** Key identifier of the asymmetric key to encrypt to (RFC 7030 4.4.1.2), null for none named. */
  keyId: Bytes | null
  /** A symmetric key is named (4.4.1.1): nobody gave us one. */
  symmetric: boolean
  /** The first of ours that its SMIMECapabilities (RFC 8551 2.5.2) has; ours where it has none; null where it has no such one. */
  cipher: ContentCipher | null
}

/** Throws `der_malformed`, `der_limit`. */
export function keyWishOf(csr: Csr): KeyWish {
  const value = (oid: string) => csr.attributes.find(a => a.oid === oid)?.values[0] ?? null
  const named = value(ASYMMETRIC_DECRYPT_KEY_ID)
  const capabilities = value(SMIME_CAPABILITIES)
  let cipher: ContentCipher | null = 'aes-256-cbc'
  if (capabilities !== null) {
    const listed = childrenOf(readWhole(capabilities, SEQUENCE), 64).map(item => oidValue(partsOf(item, SEQUENCE, 1, 2)[0]))
    cipher = listed.includes(AES_256_CBC) ? 'aes-256-cbc' : listed.includes(AES_128_CBC) ? 'aes-128-cbc' : null
  }
  return {
    keyId: named && contentOf(readWhole(named, OCTET_STRING)),
    symmetric: value(DECRYPT_KEY_ID) !== null,
    cipher,
  }
}

const algorithm = (oid: string, ...parameters: Bytes[]) => encodeSequence([encodeOid(oid), ...parameters])
const explicit = (number: number, content: Bytes) => encodeElement(0xa0 + number, [content])
const octets = (bytes: Bytes) => encodeElement(OCTET_STRING, [bytes])
const attribute = (oid: string, value: Bytes) => encodeSequence([encodeOid(oid), encodeSetOf([value])])

const issuerAndSerial = ({ issuer, serial }: Pick<Certificate, 'issuer' | 'serial'>) =>
  encodeSequence([issuer, encodeElement(2, [serial])])

/** RFC 5958 2: one OneAsymmetricKey, which is what PKCS#8 is. */
export function encodeKeyPackage(pkcs8: Bytes): Bytes {
  return encodeSequence([pkcs8])
}

/** DER SET of the signed attributes: what the signature is over (RFC 5652 5.4). `digest`: SHA-256 of the key package. */
export function signedAttributes(digest: Bytes): Bytes {
  return encodeSetOf([attribute(CONTENT_TYPE, encodeOid(KEY_PACKAGE)), attribute(MESSAGE_DIGEST, octets(digest))])
}

/** `signatureAlgorithm`: DER. `certificates`: the signer's first. */
export function encodeSignedKeyPackage(
  content: Bytes,
  attributes: Bytes,
  signer: { certificate: Certificate; certificates: Bytes[]; signatureAlgorithm: Bytes; signature: Bytes },
): Bytes {
  // [0] IMPLICIT in place of the SET's own tag.
  const implicit = Uint8Array.from(attributes)
  implicit[0] = 0xa0
  const signerInfo = encodeSequence([
    encodeInteger(1),
    issuerAndSerial(signer.certificate),
    algorithm(SHA256),
    implicit,
    signer.signatureAlgorithm,
    octets(signer.signature),
  ])
  const signedData = encodeSequence([
    // 3: the content is not of type data (RFC 5652 5.1).
    encodeInteger(3),
    encodeSetOf([algorithm(SHA256)]),
    encodeSequence([encodeOid(KEY_PACKAGE), explicit(0, octets(content))]),
    encodeElement(0xa0, signer.certificates),
    encodeSetOf([signerInfo]),
  ])
  return encodeSequence([encodeOid(SIGNED_DATA), explicit(0, signedData)])
}

/** Whom an envelope is for: by certificate, or by the key identifier that it gave. */
export type RecipientId = Pick<Certificate, 'issuer' | 'serial'> | { keyId: Bytes }

/** RFC 3560 2: RSAES-OAEP with SHA-256 throughout. */
export function rsaRecipient(id: RecipientId, encryptedKey: Bytes): { info: Bytes; byIssuer: boolean } {
  const byIssuer = 'issuer' in id
  const sha256 = algorithm(SHA256)
  const oaep = encodeSequence([explicit(0, sha256), explicit(1, algorithm(MGF1, sha256))])
  const rid = byIssuer ? issuerAndSerial(id) : encodeElement(0x80, [id.keyId])
  return {
    info: encodeSequence([encodeInteger(byIssuer ? 0 : 2), rid, algorithm(RSAES_OAEP, oaep), octets(encryptedKey)]),
    byIssuer,
  }
}

/** ECC-CMS-SharedInfo (RFC 5753 7.2), hashed into the key-encryption key. */
export function sharedInfo(cipher: ContentCipher): Bytes {
  const bits = Buffer.alloc(4)
  bits.writeUInt32BE(ciphers[cipher].keyBytes * 8)
  return encodeSequence([algorithm(ciphers[cipher].wrap), explicit(2, octets(bits))])
}

/** RFC 5753 3.1: ephemeral-static ECDH. `ephemeral`: DER SubjectPublicKeyInfo. `wrappedKey`: RFC 3394. */
export function ecdhRecipient(id: RecipientId, cipher: ContentCipher, ephemeral: Bytes, wrappedKey: Bytes): Bytes {
  const [keyAlgorithm, point] = childrenOf(readWhole(ephemeral, SEQUENCE), 2)
  const originator = encodeElement(0xa1, [
    ephemeral.subarray(keyAlgorithm.head, keyAlgorithm.end),
    ephemeral.subarray(point.head, point.end),
  ])
  const rid = 'issuer' in id ? issuerAndSerial(id) : encodeElement(0xa0, [octets(id.keyId)])
  return encodeElement(0xa1, [
    encodeInteger(3),
    explicit(0, originator),
    algorithm(ECDH_SHA256_KDF, algorithm(ciphers[cipher].wrap)),
    encodeSequence([encodeSequence([rid, octets(wrappedKey)])]),
  ])
}

/** `zeroVersion`: one recipient by issuer and serial and by key transport (RFC 5652 6.1). `encrypted`: of the whole inner ContentInfo. */
export function encodeEnvelopedKey(
  recipient: Bytes,
  zeroVersion: boolean,
  cipher: ContentCipher,
  iv: Bytes,
  encrypted: Bytes,
): Bytes {
  const content = encodeSequence([
    encodeOid(SIGNED_DATA),
    algorithm(ciphers[cipher].oid, octets(iv)),
    encodeElement(0x80, [encrypted]),
  ])
  const enveloped = encodeSequence([encodeInteger(zeroVersion ? 0 : 2), encodeSetOf([recipient]), content])
  return encodeSequence([encodeOid(ENVELOPED_DATA), explicit(0, enveloped)])
}

/** Whether a key is named so by RFC 5280 4.2.1.2 or by its certificate. `sha1`: of the subjectPublicKey bits. */
export function isNamed(keyId: Bytes, ...identifiers: (Bytes | null)[]): boolean {
  return identifiers.some(identifier => identifier !== null && hexOf(identifier) === hexOf(keyId))
}
