// From an issuer's settings to an issuer that signs. The package for tokens is loaded only where a token is named: it is native.

import { join } from 'node:path'
import {
  EstServerError,
  failureCode,
  type Issuer,
  type Log,
  type LoopTurns,
  readSecret,
  SecretError,
  softwareIssuer,
  type TimerClock,
} from '@birthmark/est-server'
import { CommandError } from './command-error.ts'
import type { SignerSettings } from './issuer-settings.ts'

export interface IssuerParts {
  /** Folder in which a refused PIN is remembered. */
  state: string
  clock: TimerClock
  log: Log
  /** As KeyThreadPorts'. */
  loopTurns?: LoopTurns | undefined
  /** As Issuer.statusUrl. */
  statusUrl?: string | null
}

/** Rejects with CommandError: a token that is away, a wrong PIN, a certificate that has ended or may not issue. */
export async function openIssuer({ certificates, key }: SignerSettings, parts: IssuerParts): Promise<Issuer> {
  const [certificate, ...chain] = certificates
  const { state, clock, log, loopTurns } = parts
  const common = { certificate, chain, now: Math.floor(clock.now()), statusUrl: parts.statusUrl ?? null, log }
  try {
    if (key.kind === 'software') {
      const passphrase = key.passphrase && readSecret(key.passphrase)
      try {
        return softwareIssuer({ ...common, clock, loopTurns, privateKeyPem: key.pem, ...(passphrase ? { passphrase } : {}) })
      } finally {
        passphrase?.fill(0)
      }
    }
    const { openPkcs11Issuer } = await import('@birthmark/pkcs11')
    const { library, token, pin, sessions } = key
    const limits = sessions === undefined ? {} : { sessionsMax: sessions }
    const refusedPinFile = join(state, 'refused-pin')
    return await openPkcs11Issuer({ ...common, library, token, key: key.key, pin, refusedPinFile, limits })
  } catch (error) {
    throw tokenFailure(error)
  }
}

/** What opening or using an issuer's key threw, as a command says it. */
export function tokenFailure(error: unknown): unknown {
  if (error instanceof SecretError) return new CommandError('issuer_key', error.message, error.next, 'usage', error)
  if (error instanceof EstServerError && failureCode(error) === 'issuer_unusable')
    return new CommandError(
      'issuer_unusable',
      error.message.replace(/^issuer_unusable: /, ''),
      'see docs/keys.md: certificate, key and chain have to belong together and be valid now',
      'failed',
      error,
    )
  // A TokenError, told by its shape: its class is in a package that may not be there.
  const { code, next, message } = error as { code?: unknown; next?: unknown; message?: unknown }
  if (typeof code === 'string' && typeof next === 'string')
    return new CommandError(`token_${code}`.replace(/^token_token_/, 'token_'), String(message), next, 'failed', error)
  if (code === 'ERR_MODULE_NOT_FOUND')
    return new CommandError(
      'pkcs11_missing',
      'the configuration names a token, and @birthmark/pkcs11 is not installed',
      'npm install @birthmark/pkcs11 (needs a C++ compiler)',
      'failed',
      error,
    )
  return error
}
