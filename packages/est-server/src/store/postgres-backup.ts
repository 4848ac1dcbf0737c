// Copies of a PostgreSQL store, by the server's own pg_dump and pg_restore: the schema, in their custom format, of one moment.

import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { EstServerError } from '../errors.ts'
import { connectPostgres, type PostgresAddress } from './postgres-connection.ts'

/** Debian keeps each version's programs here, and its wrappers in the path may pick another. */
const debianVersions = '/usr/lib/postgresql'

function programOf(name: string): string {
  if (!existsSync(debianVersions)) return name
  const versions = readdirSync(debianVersions).sort((a, b) => Number(b) - Number(a))
  return versions.map(version => join(debianVersions, version, 'bin', name)).find(existsSync) ?? name
}

async function run(name: string, address: PostgresAddress, args: string[]): Promise<void> {
  const secrets = mkdtempSync(join(tmpdir(), 'birthmark-pg-'))
  try {
    const env: NodeJS.ProcessEnv = { ...process.env, PGCONNECT_TIMEOUT: '10' }
    // In the environment, which only this user can read, and not on the command line, which everybody can.
    if (address.password) env.PGPASSWORD = address.password()
    if (address.tlsAnchors !== null) {
      env.PGSSLMODE = 'verify-full'
      env.PGSSLROOTCERT = join(secrets, 'anchors.pem')
      writeFileSync(env.PGSSLROOTCERT, address.tlsAnchors, { mode: 0o600 })
    }
    const where = ['--no-password', `--host=${address.host}`, `--port=${address.port}`, `--username=${address.user}`]
    await new Promise<void>((done, failed) => {
      const child = spawn(programOf(name), [...where, ...args], { env, stdio: ['ignore', 'ignore', 'pipe'] })
      let words = ''
      child.stderr.setEncoding('utf8').on('data', text => {
        words = (words + text).slice(0, 4096)
      })
      child.once('error', error => failed(new EstServerError('store_failed', `${name}: ${error.message}`, error)))
      child.once('close', code => {
        if (code === 0) done()
        else failed(new EstServerError('store_failed', `${name} ended with ${code}: ${words.trim()}`))
      })
    })
  } finally {
    rmSync(secrets, { recursive: true, force: true })
  }
}

/** Writes a dump to `to`. The server goes on meanwhile. */
export function dumpPostgresStore(address: PostgresAddress, to: string): Promise<void> {
  const what = [`--schema=${address.schema}`, '--no-owner', '--no-privileges', '--format=custom', `--file=${to}`]
  return run('pg_dump', address, [...what, `--dbname=${address.database}`])
}

/** Puts a dump in the place of the store. What stood there is kept under `aside`, another schema of the database. */
export async function restorePostgresStore(address: PostgresAddress, from: string, aside: string): Promise<void> {
  const client = await connectPostgres(address, 'restore')
  try {
    const { rowCount } = await client.query('SELECT 1 FROM pg_namespace WHERE nspname = $1', [address.schema])
    if (rowCount === 1)
      await client.query(`ALTER SCHEMA ${client.escapeIdentifier(address.schema)} RENAME TO ${client.escapeIdentifier(aside)}`)
  } finally {
    await client.end()
  }
  await run('pg_restore', address, ['--no-owner', '--exit-on-error', '--single-transaction', `--dbname=${address.database}`, from])
}
