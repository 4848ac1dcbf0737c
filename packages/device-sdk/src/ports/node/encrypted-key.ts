// A private key under a passphrase: PKCS #8 EncryptedPrivateKeyInfo (RFC 5958) by PBES2 with scrypt (RFC 7914 7) and AES-256-CBC, which `openssl pkey`
// opens. Not GCM: OpenSSL takes no AEAD in PBES2. That the right passphrase was given, and nothing was changed, shows when the key is parsed.

import { createCipheriv, type KeyObject, randomBytes, scryptSync } from 'node:crypto'
import { encodePem } from '../../core/base64.ts'
import { type Bytes, bytesOfHex } from '../../core/bytes.ts'
import { encodeElement, encodeSequence, encodeUnsigned, OBJECT_IDENTIFIER, OCTET_STRING } from '../../core/der.ts'

const PBES2 = '2a864886f70d01050d' // 1.2.840.113549.1.5.13
const SCRYPT = '2b06010401da47040b' // 1.3.6.1.4.1.11591.4.11
const AES_256_CBC = '60864801650304012a' // 2.16.840.1.101.3.4.1.42

/** 16 MB and some 50 ms on a server, half a second on a small board: OpenSSL's own, and the most that it opens without being told to (32 MB). */
const cost = 16384
const blockSize = 8

const oid = (hex: string): Bytes => encodeElement(OBJECT_IDENTIFIER, [bytesOfHex(hex)])
const octets = (bytes: Uint8Array): Bytes => encodeElement(OCTET_STRING, [bytes])
const number = (value: number): Bytes => encodeUnsigned(bytesOfHex(value.toString(16).padStart(4, '0')))

/** PEM. */
export function encryptedPem(key: KeyObject, passphrase: string): string {
  const salt = randomBytes(16)
  const iv = randomBytes(16)
  const secret = scryptSync(passphrase, salt, 32, { N: cost, r: blockSize, p: 1 })
  const cipher = createCipheriv('aes-256-cbc', secret, iv)
  const plain = key.export({ type: 'pkcs8', format: 'der' })
  const encrypted = Buffer.concat([cipher.update(plain), cipher.final()])
  secret.fill(0)
  plain.fill(0)
  const derivation = encodeSequence([oid(SCRYPT), encodeSequence([octets(salt), number(cost), number(blockSize), number(1)])])
  const scheme = encodeSequence([oid(AES_256_CBC), octets(iv)])
  const algorithm = encodeSequence([oid(PBES2), encodeSequence([derivation, scheme])])
  return encodePem('ENCRYPTED PRIVATE KEY', encodeSequence([algorithm, octets(encrypted)]))
}
