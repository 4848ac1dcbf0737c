// The registration authority of SCEP with its key in a token: it decrypts and signs there (est-server's RaKey).

import { randomBytes } from 'node:crypto'
import type { Bytes } from '@birthmark/device-sdk/core'
import { EstServerError, type Log, type RaKey, readRaCertificate, type SecretSource, verifySignature } from '@birthmark/est-server'
import type { KeyName, TokenName } from './protocol.ts'
import { defaultTokenLimits, keepToken, type TokenKeeperOptions, type TokenLimits } from './token-keeper.ts'

export interface Pkcs11RaOptions {
  /** PEM or DER. */
  certificate: string | Bytes
  /** Path of the PKCS #11 library of the token's maker. */
  library: string
  token: TokenName
  key: KeyName
  pin: SecretSource
  /** As in Pkcs11IssuerOptions. */
  refusedPinFile?: string | null
  limits?: Partial<TokenLimits>
  log: Log
  spawn?: TokenKeeperOptions['spawn']
}

/**
 * Opens the token, logs in and lets the key prove that it is the certificate's. Rejects with `issuer_unusable` from the certificate and with
 * TokenError from the token; a token that fails later is opened again by itself, and what was asked of it rejects meanwhile.
 */
export async function openPkcs11Ra(options: Pkcs11RaOptions): Promise<RaKey> {
  const certificate = readRaCertificate(options.certificate)
  const { library, token, key, pin } = options
  const algorithm = 'rsa-pkcs1-sha256'
  const keeper = await keepToken({
    request: { library, token, key, pin, algorithm, coordinateBytes: 0 },
    verify: (data, signature) => verifySignature(certificate.spki, algorithm, data, signature),
    refusedPinFile: options.refusedPinFile ?? null,
    limits: { ...defaultTokenLimits, ...options.limits },
    log: options.log,
    ...(options.spawn ? { spawn: options.spawn } : {}),
  })
  return {
    certificate,
    async decrypt(encryptedKey, oaep, bytes) {
      // Made whether needed or not: bent padding and a key of another length end like a wrong key, and in the same time (FAULTS 33).
      const otherwise = randomBytes(bytes)
      const found = await keeper.decrypt(encryptedKey, oaep)
      return found?.length === bytes ? found : otherwise
    },
    async sign(how, message) {
      const signature = await keeper.sign(message, how)
      if (!verifySignature(certificate.spki, how, message, signature))
        throw new EstServerError('signature_wrong', 'the RA key gave a signature that does not verify')
      return signature
    },
    unready: keeper.unready,
    close: keeper.close,
  }
}
