// Keys of a line that stay in a token: `NAME.token.json` stands where `NAME.key.pem` would, and says which token and which key. It holds no
// secret. The token is opened by the first signature and not before, so that what only reads the journal needs none.

import { createPublicKey } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import type { Bytes } from '@birthmark/device-sdk/core'
import { algorithmOf, FactoryError, readSigningKey, type SigningKey, writeDurably } from '@birthmark/factory-line'
import type { Pkcs11Key, Pkcs11KeyOptions } from '@birthmark/pkcs11'
import { parse } from 'yaml'
import { z } from 'zod'
import { usageError } from './command-error.ts'
import { tokenSigner } from './issuer-settings.ts'
import { tokenFailure } from './open-issuer.ts'

const TokenFile = z.strictObject(tokenSigner)
type TokenSettings = z.infer<typeof Placed>

const Placed = z.strictObject({ ...tokenSigner, spki: z.base64() })

/** Both have a label, a serial or an id, which zod has judged and its types do not say. */
type PublicHalf = Pick<Pkcs11KeyOptions, 'token' | 'key'>

export interface LineKey extends SigningKey {
  /** Lets go of the token; without one there is nothing to do. */
  close(): void
}

/** A `--token` file (YAML), its paths made absolute, and the key's public half as the token tells it. */
export async function readTokenFile(file: string): Promise<TokenSettings> {
  const next = 'write library, token, key and pin as in docs/factory.md'
  let content: unknown
  try {
    content = parse(readFileSync(file, 'utf8'))
  } catch (error) {
    throw usageError(`cannot read ${file}: ${(error as Error).message.split('\n')[0]}`, next)
  }
  const read = TokenFile.safeParse(content)
  if (!read.success) {
    const [{ path, message }] = read.error.issues
    throw usageError(`${file}: ${path.join('.') || 'it'} ${message}`, next)
  }
  const { pin, ...rest } = read.data
  const base = dirname(file)
  const library = resolve(base, rest.library)
  try {
    const { readPkcs11PublicKey } = await import('@birthmark/pkcs11')
    const spki = await readPkcs11PublicKey({ ...(rest as PublicHalf), library })
    const placed = 'file' in pin ? { file: resolve(base, pin.file) } : pin
    return { ...rest, library, pin: placed, spki: Buffer.from(spki).toString('base64') }
  } catch (error) {
    throw tokenFailure(error)
  }
}

export function writeTokenFile(folder: string, name: string, settings: TokenSettings): void {
  writeDurably(join(folder, `${name}.token.json`), `${JSON.stringify(settings, null, 2)}\n`, 0o644)
}

/** `folder`: where a refused PIN is remembered. */
export function tokenKey(settings: TokenSettings, folder: string): LineKey {
  const spki: Bytes = Buffer.from(settings.spki, 'base64')
  const [algorithm] = algorithmOf(createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' }))
  let opening: Promise<Pkcs11Key> | null = null
  const quiet = (): void => {}
  const open = async (): Promise<Pkcs11Key> => {
    const { openPkcs11Key } = await import('@birthmark/pkcs11')
    const { library, pin, sessions = 1, ...names } = settings
    const { token, key } = names as PublicHalf
    return openPkcs11Key({
      ...{ library, token, key, pin, spki },
      algorithm,
      refusedPinFile: join(folder, 'refused-pin'),
      // A station signs one after another, and a card on it has one session.
      limits: { sessionsMax: sessions },
      // What goes wrong is thrown, too.
      log: { info: quiet, warn: quiet, error: quiet },
    })
  }
  return {
    spki,
    algorithm,
    async sign(message) {
      try {
        opening ??= open()
        return await (await opening).sign(message)
      } catch (error) {
        throw tokenFailure(error)
      }
    },
    close() {
      opening?.then(
        key => key.close(),
        () => {},
      )
    },
  }
}

/** The key of `name` in a folder of the line or the desk, wherever it is. */
export function lineKey(folder: string, name: string): LineKey {
  const file = join(folder, `${name}.token.json`)
  if (!existsSync(file)) return { ...readSigningKey(join(folder, `${name}.key.pem`)), close: () => {} }
  let settings: TokenSettings
  try {
    settings = Placed.parse(JSON.parse(readFileSync(file, 'utf8')))
  } catch (error) {
    throw new FactoryError('authority_missing', `cannot use ${file}`, error)
  }
  return tokenKey(settings, folder)
}
