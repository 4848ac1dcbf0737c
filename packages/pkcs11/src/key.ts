// Any key in a token, for whoever knows its public half: signs what it is given. What is signed, and whether a signature may leave, is the caller's.

import { createPublicKey, verify } from 'node:crypto'
import type { Bytes } from '@birthmark/device-sdk/core'
import type { Log, SecretSource } from '@birthmark/est-server'
import type { FromToken, KeyName, PublicKeyRequest, TokenName } from './protocol.ts'
import { TokenError } from './token-error.ts'
import { defaultTokenLimits, keepToken, spawnTokenProcess, type TokenKeeperOptions, type TokenLimits } from './token-keeper.ts'

export interface Pkcs11KeyOptions {
  /** Path of the PKCS #11 library of the token's maker. */
  library: string
  token: TokenName
  key: KeyName
  pin: SecretSource
  /** SubjectPublicKeyInfo, DER: a token that holds another key under this name is not used. */
  spki: Bytes
  /** `ecdsa-sha256` for P-256, `ecdsa-sha384` for P-384, `rsa-pkcs1-sha256`. */
  algorithm: string
  /** As for an issuer. */
  refusedPinFile?: string | null
  limits?: Partial<TokenLimits>
  log: Log
  spawn?: TokenKeeperOptions['spawn']
}

export interface Pkcs11Key {
  /** In X.509 form, unverified. Rejects with TokenError. */
  sign(data: Bytes): Promise<Bytes>
  close(): Promise<void>
}

/**
 * The public half of a key, as SubjectPublicKeyInfo: asked of the token, without a PIN. The token is believed; openPkcs11Key() lets the private
 * half prove that it belongs there. Rejects with TokenError.
 */
export function readPkcs11PublicKey(request: PublicKeyRequest, limits: TokenLimits = defaultTokenLimits): Promise<Bytes> {
  const child = spawnTokenProcess()
  return new Promise<Bytes>((resolve, reject) => {
    const ended = (detail: string) => reject(new TokenError({ code: 'process_ended', detail, next: 'try again' }))
    const timer = setTimeout(() => {
      reject(new TokenError({ code: 'timeout', detail: `no answer within ${limits.openMs} ms`, next: 'is the token stuck?' }))
    }, limits.openMs)
    child.once('error', error => ended(error.message))
    child.once('exit', code => ended(`the token process ended (exit ${code})`))
    child.on('message', (message: FromToken) => {
      clearTimeout(timer)
      if (message.kind === 'public') resolve(message.spki)
      else if (message.kind === 'unopened') reject(new TokenError(message.failure))
    })
    child.send({ kind: 'public', request })
  }).finally(() => child.kill('SIGKILL'))
}

const known: Record<string, { coordinateBytes: number; digest: string } | undefined> = {
  'ecdsa-sha256': { coordinateBytes: 32, digest: 'sha256' },
  'ecdsa-sha384': { coordinateBytes: 48, digest: 'sha384' },
  'rsa-pkcs1-sha256': { coordinateBytes: 0, digest: 'sha256' },
}

/** Opens the token, logs in and lets the key prove itself. Rejects with TokenError; nothing is left running then. */
export async function openPkcs11Key(options: Pkcs11KeyOptions): Promise<Pkcs11Key> {
  const { library, token, key, pin, spki, algorithm } = options
  const how = known[algorithm]
  if (!how)
    throw new TokenError({
      code: 'key_mismatch',
      detail: `${algorithm} is not asked of tokens`,
      next: 'use a P-256, P-384 or RSA key',
    })
  const publicKey = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })
  const keeper = await keepToken({
    request: { library, token, key, pin, algorithm, coordinateBytes: how.coordinateBytes },
    verify: (data, signature) => verify(how.digest, data, publicKey, signature),
    refusedPinFile: options.refusedPinFile ?? null,
    limits: { ...defaultTokenLimits, ...options.limits },
    log: options.log,
    ...(options.spawn ? { spawn: options.spawn } : {}),
  })
  return { sign: data => keeper.sign(data), close: keeper.close }
}
