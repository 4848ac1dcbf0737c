// Where a secret that opens an issuer key comes from: a file of the operator's, or a credential that systemd hands the service. Never the
// configuration, the environment or the command line, which others on the machine can read.

import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'

/** `credential`: the name given to systemd's LoadCredential= or LoadCredentialEncrypted=. */
export type SecretSource = { file: string } | { credential: string }

/** What is wrong with a secret's place. Its message names the place and never the content. */
export class SecretError extends Error {
  /** What an operator does next. */
  readonly next: string

  constructor(message: string, next: string) {
    super(message)
    this.name = 'SecretError'
    this.next = next
  }
}

/** PINs and passphrases are a line; anything larger is another file. */
const secretBytesMax = 1024

function pathOf(source: SecretSource, environment: { CREDENTIALS_DIRECTORY?: string | undefined }): string {
  if ('file' in source) return source.file
  const folder = environment.CREDENTIALS_DIRECTORY
  if (!folder)
    throw new SecretError(
      `credential ${source.credential}: this process was given none`,
      `run under systemd with LoadCredential=${source.credential}:FILE, or name a file`,
    )
  if (!/^[A-Za-z0-9._-]{1,255}$/.test(source.credential) || source.credential.startsWith('.'))
    throw new SecretError(`credential ${source.credential} is no name`, 'use letters, digits, dot, hyphen, underscore')
  return join(folder, source.credential)
}

/**
 * The secret's bytes, without the line end that editors leave. Throws SecretError: unreadable, empty, too long, or a file that others may read.
 * The caller wipes what it got.
 */
export function readSecret(
  source: SecretSource,
  environment: { CREDENTIALS_DIRECTORY?: string | undefined } = process.env,
): Buffer {
  const path = pathOf(source, environment)
  let content: Buffer
  try {
    const { mode, size } = statSync(path)
    // systemd keeps its credentials in a folder of the service alone, and its access lists show as group bits.
    if ('file' in source && (mode & 0o077) !== 0)
      throw new SecretError(`${path} may be read by others`, `chmod 600 ${path}, and consider the secret known`)
    if (size > secretBytesMax) throw new SecretError(`${path} has ${size} bytes`, `a secret has at most ${secretBytesMax}`)
    content = readFileSync(path)
  } catch (error) {
    if (error instanceof SecretError) throw error
    throw new SecretError(`cannot read ${path} (${(error as NodeJS.ErrnoException).code ?? 'error'})`, 'put the secret there')
  }
  let end = content.length
  if (end > 0 && content[end - 1] === 0x0a) end--
  if (end > 0 && content[end - 1] === 0x0d) end--
  if (end === 0) throw new SecretError(`${path} is empty`, 'put the secret there')
  return content.subarray(0, end)
}
