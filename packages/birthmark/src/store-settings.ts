// The `store` part of a configuration: the SQLite file in the state folder where nothing is said, or a PostgreSQL database.

import { resolve } from 'node:path'
import { readSecret, SecretError, type SecretSource } from '@birthmark/est-server'
import { z } from 'zod'
import { CommandError } from './command-error.ts'
import type { FileReader } from './issuer-settings.ts'

const File = z.string().min(1).max(4096)
// PostgreSQL's identifiers have at most 63 bytes.
const Name = z.string().regex(/^[A-Za-z0-9_.-]{1,63}$/, 'is 1 to 63 of letters, digits, dot, hyphen and underscore')

export const StoreConfiguration = z
  .strictObject({
    postgres: z.strictObject({
      host: z.string().min(1).max(255),
      port: z.int().min(1).max(65_535).default(5432),
      database: Name,
      user: Name,
      password: z
        .union([z.strictObject({ file: File }), z.strictObject({ credential: z.string().min(1).max(255) })], {
          error: 'is {file: PATH} or {credential: NAME}',
        })
        .optional(),
      anchors: File.optional(),
      schema: z
        .string()
        .regex(/^[a-z_][a-z0-9_]{0,62}$/, 'is lower-case letters, digits and underscore')
        .default('birthmark'),
    }),
  })
  .optional()

export type RawStore = z.infer<typeof StoreConfiguration>

export type StoreSettings =
  | { kind: 'sqlite' }
  | {
      kind: 'postgres'
      /** A name, an address, or the folder of a unix socket. */
      host: string
      port: number
      database: string
      user: string
      password: SecretSource | null
      /** PEM; null for a connection that does not leave the machine. */
      anchors: string | null
      schema: string
    }

const wrong = (sentence: string, next: string) => new CommandError('configuration', sentence, next, 'usage')

export function settleStore(raw: RawStore, files: FileReader): StoreSettings {
  if (raw === undefined) return { kind: 'sqlite' }
  const { host, password: source, anchors: file, ...rest } = raw.postgres
  const path = ['store', 'postgres']
  let password: SecretSource | null = null
  if (source) {
    password = 'file' in source ? { file: resolve(files.base, source.file) } : source
    try {
      readSecret(password).fill(0)
    } catch (error) {
      if (error instanceof SecretError) throw wrong(`${files.at([...path, 'password'])}: ${error.message}`, error.next)
      throw error
    }
  }
  // The password, every request and every record would cross the network as they are.
  const isLocal = host.startsWith('/') || ['localhost', '127.0.0.1', '::1'].includes(host)
  if (file === undefined && !isLocal)
    throw wrong(
      `${files.at([...path, 'host'])} is another machine, and there are no anchors`,
      "name the server's CA: anchors: FILE",
    )
  if (file !== undefined) files.certificates([...path, 'anchors'], file)
  return { kind: 'postgres', host, ...rest, password, anchors: file === undefined ? null : files.read([...path, 'anchors'], file) }
}
