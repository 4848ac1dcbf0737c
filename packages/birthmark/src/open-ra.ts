// From an RA's settings to a key that decrypts and signs. The package for tokens is loaded only where a token is named: it is native.

import { createPrivateKey } from 'node:crypto'
import { join } from 'node:path'
import { type RaKey, readSecret, softwareRa } from '@birthmark/est-server'
import type { IssuerPorts } from './configured-issuers.ts'
import type { SignerSettings } from './issuer-settings.ts'

/** Throws what the software key throws; rejects with what the token says. `state`: folder in which a refused PIN is remembered. */
export async function openRa(
  { certificates: [certificate], key }: SignerSettings,
  { state, clock, log, loopTurns }: Pick<IssuerPorts, 'clock' | 'log' | 'loopTurns'> & { state: string },
): Promise<RaKey> {
  if (key.kind === 'pkcs11') {
    const { openPkcs11Ra } = await import('@birthmark/pkcs11')
    const { library, token, pin, sessions } = key
    const limits = sessions === undefined ? {} : { sessionsMax: sessions }
    const refusedPinFile = join(state, 'refused-pin-scep')
    return openPkcs11Ra({ certificate, library, token, key: key.key, pin, refusedPinFile, limits, log })
  }
  const privateKeyPem = key.passphrase === null ? key.pem : opened(key.pem, key.passphrase)
  return softwareRa({ certificate, privateKeyPem, clock, log, loopTurns })
}

function opened(pem: string, source: Parameters<typeof readSecret>[0]): string {
  const passphrase = readSecret(source)
  try {
    return createPrivateKey({ key: pem, passphrase }).export({ type: 'pkcs8', format: 'pem' }) as string
  } finally {
    passphrase.fill(0)
  }
}
