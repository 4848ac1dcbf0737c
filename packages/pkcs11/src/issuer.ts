// An issuer whose key stays in a token (HSM, smart card, SoftHSM) behind PKCS #11.

import {
  EstServerError,
  type Issuer,
  type IssuerCertificateOptions,
  type Log,
  readIssuerCertificate,
  type SecretSource,
} from '@birthmark/est-server'
import type { KeyName, TokenName } from './protocol.ts'
import { signingMechanism } from './signing-mechanism.ts'
import { defaultTokenLimits, keepToken, type TokenKeeperOptions, type TokenLimits } from './token-keeper.ts'

export interface Pkcs11IssuerOptions extends IssuerCertificateOptions {
  /** Path of the PKCS #11 library of the token's maker. */
  library: string
  token: TokenName
  key: KeyName
  pin: SecretSource
  /** Remembers a refused PIN, salted and hashed, over restarts. Without it a restarted service tries a wrong PIN once more each time. */
  refusedPinFile?: string | null
  limits?: Partial<TokenLimits>
  log: Log
  spawn?: TokenKeeperOptions['spawn']
}

const coordinates: Record<string, number> = { 'P-256': 32, 'P-384': 48, 'P-521': 66 }

/**
 * Opens the token, logs in and proves by a signature that its key is the certificate's. Rejects with `issuer_unusable` from the certificate,
 * and with TokenError from the token; a token that fails later is opened again by itself, and `sign` rejects meanwhile.
 */
export async function openPkcs11Issuer(options: Pkcs11IssuerOptions): Promise<Issuer> {
  const read = readIssuerCertificate(options)
  const { algorithm } = read
  const coordinateBytes = coordinates[read.certificate.keyAlgorithm] ?? 0
  if (signingMechanism(algorithm, coordinateBytes) === null)
    throw new EstServerError('issuer_unusable', `issuer key: ${algorithm} is not asked of tokens; use P-256, P-384 or RSA`)
  const { library, token, key, pin } = options
  const keeper = await keepToken({
    request: { library, token, key, pin, algorithm, coordinateBytes },
    verify: read.verify,
    refusedPinFile: options.refusedPinFile ?? null,
    limits: { ...defaultTokenLimits, ...options.limits },
    log: options.log,
    ...(options.spawn ? { spawn: options.spawn } : {}),
  })
  return { ...read, sign: tbs => keeper.sign(tbs), unready: keeper.unready, close: keeper.close }
}
