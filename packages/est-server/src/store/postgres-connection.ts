// One connection to PostgreSQL with the settings that every promise of the store hangs on, and what its errors mean for a write.

import type { Client, ClientConfig } from 'pg'
import { EstServerError } from '../errors.ts'

export interface PostgresAddress {
  /** A name, an address, or the folder of a unix socket. */
  host: string
  port: number
  database: string
  user: string
  /** Asked at each connection; null where the server asks for none (a unix socket with peer authentication). */
  password: (() => string) | null
  /** PEM anchors that the server's certificate must lead to, with its name; null for an unencrypted connection. */
  tlsAnchors: string | null
  /** PostgreSQL schema that holds the tables. */
  schema: string
}

// Object ids of PostgreSQL's types.
const BYTEA = 17
const INT8 = 20
const INT4_ARRAY = 1007

/** Every bigint here is a time, a count or a key below 2^53. */
function parserOf(types: typeof import('pg').types): ClientConfig['types'] {
  return {
    getTypeParser(oid: number, format?: unknown) {
      if (oid === INT8) return Number
      // Bytes as everywhere else, without the extras of a Buffer. `\\x` and hexadecimal.
      if (oid === BYTEA)
        return (text: string) => {
          const { buffer, byteOffset, length } = Buffer.from(text.slice(2), 'hex')
          return new Uint8Array(buffer, byteOffset, length)
        }
      if (oid === INT4_ARRAY) return (text: string) => JSON.parse(`[${text.slice(1, -1)}]`) as number[]
      return types.getTypeParser(oid, format as 'text')
    },
  } as ClientConfig['types']
}

/** Opens a connection. The client emits 'error' when it breaks; the caller listens. Throws `store_unusable` with the server's words. */
export async function connectPostgres(address: PostgresAddress, role: string): Promise<Client> {
  const { host, port, database, user, password, tlsAnchors } = address
  // Loaded when asked for: who keeps the default store does not pay for it.
  const { default: pg } = await import('pg')
  const client = new pg.Client({
    host,
    port,
    database,
    user,
    ...(password === null ? {} : { password }),
    ...(tlsAnchors === null ? {} : { ssl: { ca: tlsAnchors } }),
    application_name: `birthmark ${role}`,
    connectionTimeoutMillis: 10_000,
    keepAlive: true,
    pipeline: true,
    types: parserOf(pg.types),
  })
  // Without a listener a connection that breaks would end the process.
  client.on('error', () => {})
  try {
    await client.connect()
    return client
  } catch (error) {
    throw new EstServerError('store_unusable', `PostgreSQL at ${host}:${port}: ${(error as Error).message}`, error)
  }
}

/** For look-ups and writes of a running server: plans that hold for a table of any size, whatever it was when they were made. */
export async function tunePostgres(client: Client, schema: string): Promise<void> {
  // Every statement finds its rows by an index. A plan made while a table was empty would read it whole, and prepared plans live long.
  const plan =
    'SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan; SET jit = off'
  // Another server may hold the line for the length of one transaction; one that hangs in its transaction is cut off.
  const waits = "SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '10s'"
  await client.query(`SET search_path = ${client.escapeIdentifier(schema)}; ${plan}; ${waits}`)
}

/** Refuses a server whose COMMIT would promise nothing. */
export async function requireDurable(client: Client): Promise<void> {
  const setting = async (name: string): Promise<string> => (await client.query(`SHOW ${name}`)).rows[0][name]
  for (const name of ['fsync', 'full_page_writes'])
    if ((await setting(name)) !== 'on')
      throw new EstServerError(
        'store_unusable',
        `${name} is off at this PostgreSQL server: a power cut would lose what was acknowledged`,
      )
  if ((await setting('server_encoding')) !== 'UTF8')
    throw new EstServerError('store_unusable', 'the database is not in UTF-8: createdb --encoding=UTF8 --template=template0')
  // `remote_write` and `remote_apply` promise more and stay.
  if (['off', 'local'].includes(await setting('synchronous_commit'))) await client.query('SET synchronous_commit = on')
}

/** SQLSTATE of an error that the server reported; null when the connection broke instead. */
export function sqlState(error: unknown): string | null {
  const { code, severity } = error as { code?: unknown; severity?: unknown }
  return typeof severity === 'string' && typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) ? code : null
}

/** Whether a server error also ended the session or says that the server cannot be trusted to go on: 57P admin shutdown or crash, 58 system error, XX internal. */
export function isServerTrouble(state: string): boolean {
  return /^(57P|58|XX|53100|08)/.test(state)
}
