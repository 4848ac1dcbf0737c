// A fresh private key on its way to one client: packaged, signed by this server, encrypted to a key that the client holds. Nothing of it is
// kept; buffers that held it are overwritten.

import {
  constants,
  createCipheriv,
  createHash,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
  publicEncrypt,
  sign,
} from 'node:crypto'
import { type Bytes, type Certificate, parseCertificate, signatureAlgorithmIdentifier } from '@birthmark/device-sdk/core'
import { EstServerError } from './errors.ts'
import type { RandomBytes } from './ports.ts'
import {
  type ContentCipher,
  ecdhRecipient,
  encodeEnvelopedKey,
  encodeKeyPackage,
  encodeSignedKeyPackage,
  keyBytesOf,
  type RecipientId,
  rsaRecipient,
  sharedInfo,
  signedAttributes,
} from './wire/key-package.ts'

/** Who vouches for the key (RFC 7030 4.4.2): the party that made it, which is this server. */
export interface KeySigner {
  certificate: Certificate
  /** DER, the signer's first. */
  certificates: Bytes[]
  sign(message: Bytes): { algorithm: string; signature: Bytes }
}

/** Over the server's own TLS identity: the client has just authenticated it. Throws `issuer_unusable` for a key that cannot sign so. */
export function keySigner(certificates: Bytes[], privateKeyPem: string): KeySigner {
  const certificate = parseCertificate(certificates[0])
  const key = createPrivateKey(privateKeyPem)
  const algorithm = { 'P-256': 'ecdsa-sha256', 'P-384': 'ecdsa-sha384', RSA: 'rsa-pkcs1-sha256' }[certificate.keyAlgorithm]
  if (algorithm === undefined)
    throw new EstServerError('issuer_unusable', `a ${certificate.keyAlgorithm} key cannot sign server-made keys; use P-256 or RSA`)
  const hash = algorithm.slice(algorithm.lastIndexOf('-') + 1)
  return { certificate, certificates, sign: message => ({ algorithm, signature: new Uint8Array(sign(hash, message, key)) }) }
}

/** RFC 3394 2.2.1, over AES-ECB, since BoringSSL has no wrap cipher by that name. */
export function wrapKey(key: Bytes, wrapping: Bytes): Bytes {
  const blocks = key.length / 8
  const out = Buffer.concat([Buffer.alloc(8, 0xa6), key])
  for (let round = 0; round < 6; round++)
    for (let i = 1; i <= blocks; i++) {
      const cipher = createCipheriv(`aes-${wrapping.length * 8}-ecb`, wrapping, null).setAutoPadding(false)
      const block = Buffer.concat([
        cipher.update(Buffer.concat([out.subarray(0, 8), out.subarray(8 * i, 8 * i + 8)])),
        cipher.final(),
      ])
      // The counter is below 2^8: six rounds of at most four blocks.
      block[7] ^= blocks * round + i
      block.copy(out, 0, 0, 8)
      block.copy(out, 8 * i, 8, 16)
    }
  return out
}

const curves: Record<string, string> = { prime256v1: 'P-256', secp384r1: 'P-384', secp521r1: 'P-521' }

/** Whether a key can be encrypted to. */
export function canReceive(key: KeyObject): boolean {
  if (key.asymmetricKeyType === 'rsa') return (key.asymmetricKeyDetails?.modulusLength ?? 0) >= 2048
  return key.asymmetricKeyType === 'ec' && Object.hasOwn(curves, key.asymmetricKeyDetails?.namedCurve ?? '')
}

function recipientFor(
  key: KeyObject,
  id: RecipientId,
  cipher: ContentCipher,
  contentKey: Bytes,
): { info: Bytes; byIssuer: boolean } {
  if (key.asymmetricKeyType === 'rsa') {
    const padding = constants.RSA_PKCS1_OAEP_PADDING
    return rsaRecipient(id, publicEncrypt({ key, padding, oaepHash: 'sha256' }, contentKey))
  }
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: curves[key.asymmetricKeyDetails?.namedCurve ?? ''] })
  const secret = diffieHellman({ privateKey, publicKey: key })
  // X9.63 with one round: SHA-256 gives what either wrap needs.
  const kek = createHash('sha256')
    .update(secret)
    .update(Uint8Array.of(0, 0, 0, 1))
    .update(sharedInfo(cipher))
    .digest()
  secret.fill(0)
  const wrapped = wrapKey(contentKey, kek.subarray(0, keyBytesOf(cipher)))
  kek.fill(0)
  const ephemeral = new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }))
  return { info: ecdhRecipient(id, cipher, ephemeral, wrapped), byIssuer: false }
}

export interface KeyRecipient {
  key: KeyObject
  id: RecipientId
  cipher: ContentCipher
}

/** DER ContentInfo of EnvelopedData. `pkcs8` is the caller's to overwrite. */
export function envelopeKey(pkcs8: Bytes, { key, id, cipher }: KeyRecipient, signer: KeySigner, random: RandomBytes): Bytes {
  const content = encodeKeyPackage(pkcs8)
  const attributes = signedAttributes(createHash('sha256').update(content).digest())
  const { algorithm, signature } = signer.sign(attributes)
  const { certificate, certificates } = signer
  const signatureAlgorithm = signatureAlgorithmIdentifier(algorithm)
  const signed = encodeSignedKeyPackage(content, attributes, { certificate, certificates, signatureAlgorithm, signature })
  const contentKey = random(keyBytesOf(cipher))
  const iv = random(16)
  const encryption = createCipheriv(cipher, contentKey, iv)
  const encrypted = Buffer.concat([encryption.update(signed), encryption.final()])
  const { info, byIssuer } = recipientFor(key, id, cipher, contentKey)
  for (const buffer of [content, signed, contentKey]) buffer.fill(0)
  return encodeEnvelopedKey(info, byIssuer, cipher, iv, encrypted)
}

/** A public key of DER SubjectPublicKeyInfo; null for one that the runtime does not take. */
export function recipientKey(spki: Bytes): KeyObject | null {
  try {
    return createPublicKey({ key: Buffer.from(spki), type: 'spki', format: 'der' })
  } catch {
    return null
  }
}
