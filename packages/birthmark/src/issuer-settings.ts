// The `issuer` part of a configuration: a CA certificate with its chain, and where its key is: a PKCS #8 file, encrypted or not, or a PKCS #11
// token. Judged as far as it can be without asking a token.

import { createPrivateKey, X509Certificate } from 'node:crypto'
import { resolve } from 'node:path'
import type { Bytes } from '@birthmark/device-sdk/core'
import { readSecret, SecretError, type SecretSource } from '@birthmark/est-server'
import { z } from 'zod'
import { CommandError } from './command-error.ts'

const File = z.string().min(1).max(4096)
const Secret = z.union([z.strictObject({ file: File }), z.strictObject({ credential: z.string().min(1).max(255) })], {
  error: 'is {file: PATH} or {credential: NAME}',
})
// CKA_LABEL and token labels are text of any kind; serial numbers have at most 16 characters (PKCS #11 2.40, 3.2).
const Label = z.string().min(1).max(255)
const Token = z
  .strictObject({ label: Label.optional(), serial: z.string().min(1).max(16).optional() })
  .refine(token => token.label !== undefined || token.serial !== undefined, 'needs a label or a serial')
const TokenKey = z
  .strictObject({
    label: Label.optional(),
    id: z
      .string()
      .regex(/^([0-9a-fA-F]{2}){1,64}$/, 'is hexadecimal')
      .optional(),
  })
  .refine(key => key.label !== undefined || key.id !== undefined, 'needs a label or an id')

/** Where a private key is: a token's library, the token, the key on it, and where its PIN is. */
export const tokenSigner = {
  library: File,
  token: Token,
  key: TokenKey,
  pin: Secret,
  // A network HSM has dozens; a smart card has one that counts.
  sessions: z.int().min(1).max(32).optional(),
}

export const signer = {
  certificate: File,
  key: File.optional(),
  passphrase: Secret.optional(),
  pkcs11: z.strictObject(tokenSigner).optional(),
}

export const IssuerConfiguration = z.strictObject({
  ...signer,
  // A roll-over leaves one; eight would be a habit.
  previous: z.array(File).max(8).default([]),
  next: z.strictObject(signer).optional(),
  links: z.array(File).max(8).default([]),
})

export type RawIssuer = z.infer<typeof IssuerConfiguration>
export type RawSigner = Omit<RawIssuer, 'previous' | 'next' | 'links'>

/** `certificates`: the issuing CA, then those above it. */
export interface SignerSettings {
  certificates: Bytes[]
  key: SignerKey
}

export type SignerKey =
  | { kind: 'software'; pem: string; passphrase: SecretSource | null }
  | {
      kind: 'pkcs11'
      library: string
      token: { label: string; serial?: string } | { serial: string; label?: string }
      key: { label: string; id?: string } | { id: string; label?: string }
      pin: SecretSource
      /** Jobs that the token is given at once; as the package has it unless told. */
      sessions?: number | undefined
    }

/**
 * `next`: takes over in a roll-over. `previous`: issuing CAs that sign no more and whose devices are still admitted, each with what is above
 * it. `links`: certificates that lead from one root to another, for /cacerts.
 */
export interface IssuerSettings extends SignerSettings {
  previous: Bytes[][]
  links: Bytes[]
  next: SignerSettings | null
}

export interface FileReader {
  base: string
  /** `FILE:LINE: path.of.key` */
  at(path: PropertyKey[]): string
  read(path: PropertyKey[], file: string): string
  certificates(path: PropertyKey[], file: string): Bytes[]
  /** Permission bits. */
  modeOf(path: string): number
}

const wrong = (sentence: string, next: string) => new CommandError('configuration', sentence, next, 'usage')

export function settleIssuer(raw: RawIssuer, files: FileReader): IssuerSettings {
  const previous = raw.previous.map((file, i) => files.certificates(['issuer', 'previous', i], file))
  const links = raw.links.flatMap((file, i) => files.certificates(['issuer', 'links', i], file))
  const next = raw.next ? settleSigner(raw.next, ['issuer', 'next'], files) : null
  return { ...settleSigner(raw, ['issuer'], files), previous, next, links }
}

export function settleSigner(raw: RawSigner, path: PropertyKey[], files: FileReader): SignerSettings {
  const certificates = files.certificates([...path, 'certificate'], raw.certificate)
  const { pkcs11, key: file } = raw
  if ((file === undefined) === (pkcs11 === undefined))
    throw wrong(`${files.at(path)} needs key or pkcs11, one of them`, 'name a key file, or a token and the key on it')
  if (pkcs11) {
    if (raw.passphrase) throw wrong(`${files.at([...path, 'passphrase'])} opens a key file, and there is none`, 'pkcs11 has a pin')
    return { certificates, key: { kind: 'pkcs11', ...pkcs11, pin: placed(pkcs11.pin, files.base) } as SignerKey }
  }
  const name = file as string
  const where = [...path, 'key']
  const pem = files.read(where, name)
  if ((files.modeOf(resolve(files.base, name)) & 0o077) !== 0)
    throw wrong(`${files.at(where)}: ${name} may be read by others`, `chmod 600 ${resolve(files.base, name)}`)
  const passphrase = raw.passphrase ? placed(raw.passphrase, files.base) : null
  const privateKey = openKey(pem, passphrase, name, path, files)
  if (!new X509Certificate(certificates[0]).checkPrivateKey(privateKey))
    throw wrong(`${files.at(where)}: ${name} is not the key of ${raw.certificate}`, 'name files that belong together')
  return { certificates, key: { kind: 'software', pem, passphrase } }
}

const placed = (source: SecretSource, base: string): SecretSource =>
  'file' in source ? { file: resolve(base, source.file) } : source

function openKey(pem: string, source: SecretSource | null, name: string, path: PropertyKey[], files: FileReader) {
  const encrypted = /^-----BEGIN ENCRYPTED PRIVATE KEY-----/m.test(pem)
  const at = files.at([...path, source ? 'passphrase' : 'key'])
  if (encrypted && source === null) throw wrong(`${at}: ${name} is encrypted`, 'say where its passphrase is: passphrase: {file: …}')
  if (!encrypted && source !== null) throw wrong(`${at}: ${name} is not encrypted`, 'take the passphrase out, or encrypt the key')
  let passphrase: Buffer | null = null
  try {
    passphrase = source && readSecret(source)
    return createPrivateKey(passphrase ? { key: pem, passphrase } : pem)
  } catch (error) {
    if (error instanceof SecretError) throw wrong(`${at}: ${error.message}`, error.next)
    throw passphrase
      ? wrong(`${at}: it does not open ${name}`, 'name the passphrase that the key was encrypted with')
      : wrong(`${at}: ${name} holds no private key`, 'give a PKCS#8 PEM key')
  } finally {
    passphrase?.fill(0)
  }
}
