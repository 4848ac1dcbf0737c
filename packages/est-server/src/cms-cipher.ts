// Content encryption of CMS on node:crypto. What was decrypted says whether it is sound as a value, never as an error: for a message that a
// stranger may have bent, the difference between the two is an oracle (FAULTS 33), and the caller goes on all the same.

import { constants, createCipheriv, createDecipheriv, createSecretKey, type KeyObject, publicEncrypt } from 'node:crypto'
import type { Bytes } from '@birthmark/device-sdk/core'
import { type ContentCipher, type Envelope, encodeEnvelope, type KeyTransport, keyBytesOf } from './wire/cms-envelope.ts'

// Keys go in as KeyObjects: bytes are first taken for one, and for a CryptoKey, by throwing and catching, which costs more than the cipher. A key
// beside its options cannot be spared that; it is then thrown without the stack that nobody reads.
function encryptedFor(key: KeyObject, transport: KeyTransport, contentKey: Bytes): Bytes {
  const depth = Error.stackTraceLimit
  Error.stackTraceLimit = 0
  try {
    return transport.kind === 'pkcs1'
      ? publicEncrypt({ key, padding: constants.RSA_PKCS1_PADDING }, contentKey)
      : publicEncrypt({ key, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: transport.digest }, contentKey)
  } finally {
    Error.stackTraceLimit = depth
  }
}

/** Decrypts the content. `sound`: false for a wrong key or bent bytes, whatever `content` is then. `key` has the cipher's length. */
export function openContent(envelope: Envelope, key: Bytes): { sound: boolean; content: Bytes } {
  const { cipher, iv, ciphertext, authenticated } = envelope
  const nothing = new Uint8Array(0)
  if (authenticated) {
    const decipher = createDecipheriv(cipher as 'aes-128-gcm', createSecretKey(key), iv, {
      authTagLength: authenticated.tag.length,
    })
    decipher.setAuthTag(authenticated.tag)
    if (authenticated.attributes.length > 0) decipher.setAAD(authenticated.attributes)
    const content = decipher.update(ciphertext)
    try {
      decipher.final()
      return { sound: true, content }
    } catch {
      return { sound: false, content: nothing }
    }
  }
  const block = iv.length
  if (ciphertext.length === 0 || ciphertext.length % block !== 0) return { sound: false, content: nothing }
  // The padding is looked at here, every octet of the last block, so that neither an exception nor its time tells where it broke.
  const decipher = createDecipheriv(cipher, createSecretKey(key), iv).setAutoPadding(false)
  const padded = Buffer.concat([decipher.update(ciphertext), decipher.final()])
  const pad = padded[padded.length - 1]
  let wrong = pad === 0 || pad > block ? 1 : 0
  for (let i = 1; i <= block; i++) wrong |= (i <= pad ? 1 : 0) & (padded[padded.length - i] === pad ? 0 : 1)
  return { sound: wrong === 0, content: padded.subarray(0, padded.length - (wrong === 0 ? pad : 0)) }
}

/** Encrypts `content` for one RSA key. `random`: key and initial vector. */
export function sealContent(seal: {
  content: Bytes
  cipher: ContentCipher
  transport: KeyTransport
  recipient: { issuer: Bytes; serial: Bytes }
  key: KeyObject
  random: (length: number) => Bytes
}): Bytes {
  const { content, cipher, transport, recipient, random } = seal
  const keyBytes = keyBytesOf[cipher]
  const gcm = cipher.endsWith('gcm')
  // Drawn at once: it costs as much as one of the two.
  const drawn = random(keyBytes + (gcm ? 12 : cipher === 'des-ede3-cbc' ? 8 : 16))
  const [key, iv] = [drawn.subarray(0, keyBytes), drawn.subarray(keyBytes)]
  const contentKey = createSecretKey(key)
  const encryptedKey = encryptedFor(seal.key, transport, key)
  const encoded = { recipient, transport, encryptedKey, cipher, iv }
  if (gcm) {
    const sealing = createCipheriv(cipher as 'aes-128-gcm', contentKey, iv, { authTagLength: 16 })
    const ciphertext = Buffer.concat([sealing.update(content), sealing.final()])
    return encodeEnvelope({ ...encoded, ciphertext, authenticated: { attributes: new Uint8Array(0), tag: sealing.getAuthTag() } })
  }
  const sealing = createCipheriv(cipher, contentKey, iv)
  const ciphertext = Buffer.concat([sealing.update(content), sealing.final()])
  return encodeEnvelope({ ...encoded, ciphertext, authenticated: null })
}
