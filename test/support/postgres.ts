// Debian's PostgreSQL for a test: a cluster of its own in a temporary folder, reached by a unix socket there and by nothing else.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { chmodSync, chownSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { PostgresAddress } from '@birthmark/est-server'
import pg from 'pg'

const versions = '/usr/lib/postgresql'

/** Debian's programs, the newest version's. */
export function postgresBin(): string {
  const newest = readdirSync(versions).sort((a, b) => Number(b) - Number(a))[0]
  return join(versions, newest, 'bin')
}

/** PostgreSQL refuses root; Debian's package makes a user for it. */
function owner(): { uid: number; gid: number } | Record<string, never> {
  if (process.getuid?.() !== 0) return {}
  const id = (flag: string) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }))
  return { uid: id('-u'), gid: id('-g') }
}

export interface TestPostgres {
  folder: string
  /** Addresses in a schema of that name; it appears with the first store. */
  address(schema: string): PostgresAddress
  /** Of the postmaster. */
  pid(): number
  /** Kills every process of the server at once. */
  crash(): Promise<void>
  start(): Promise<void>
  /** One statement, as an operator would. */
  sql(statement: string): Promise<Record<string, unknown>[]>
  stop(): Promise<void>
  remove(): Promise<void>
}

export async function startPostgres(settings: Record<string, string> = {}): Promise<TestPostgres> {
  const folder = mkdtempSync(join(tmpdir(), 'bm-pg-'))
  chmodSync(folder, 0o711)
  const as = owner()
  if (as.uid !== undefined) chownSync(folder, as.uid, as.gid)
  const bin = postgresBin()
  const data = join(folder, 'data')
  const env = { ...process.env, LC_ALL: 'C.UTF-8' }
  execFileSync(join(bin, 'initdb'), ['-D', data, '-U', 'birthmark', '-A', 'trust', '-E', 'UTF8', '--no-sync'], {
    ...as,
    env,
    cwd: folder,
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  let server: ChildProcess | null = null
  const address = (schema: string): PostgresAddress => ({
    ...{ host: folder, port: 5432, database: 'postgres', user: 'birthmark', password: null, tlsAnchors: null, schema },
  })
  const connect = async () => {
    const client = new pg.Client({ host: folder, port: 5432, database: 'postgres', user: 'birthmark' })
    await client.connect()
    return client
  }
  const ended = (child: ChildProcess) =>
    new Promise<void>(done => ((child.exitCode ?? child.signalCode) === null ? child.once('exit', () => done()) : done()))

  async function start(): Promise<void> {
    const all: Record<string, string> = {
      ...{
        unix_socket_directories: folder,
        listen_addresses: '',
        shared_buffers: '64MB',
        max_connections: '40',
        log_min_messages: 'fatal',
      },
      ...settings,
    }
    const flags = Object.entries(all).flatMap(([name, value]) => ['-c', `${name}=${value}`])
    // A group of its own, so that a crash takes every process of it.
    const child = spawn(join(bin, 'postgres'), ['-D', data, ...flags], { ...as, env, cwd: folder, stdio: 'ignore', detached: true })
    server = child
    for (let i = 0; ; i++) {
      try {
        await (await connect()).end()
        return
      } catch (error) {
        // Half a minute bounds a recovery, not a measurement.
        if (i > 600 || child.exitCode !== null) throw error
        await new Promise(done => setTimeout(done, 50))
      }
    }
  }
  await start()

  async function end(signal: NodeJS.Signals, group: boolean): Promise<void> {
    const child = server
    if (child === null || child.pid === undefined) return
    server = null
    process.kill(group ? -child.pid : child.pid, signal)
    await ended(child)
  }
  return {
    folder,
    address,
    pid: () => server?.pid ?? 0,
    crash: () => end('SIGKILL', true),
    start,
    async sql(statement) {
      const client = await connect()
      try {
        const result = await client.query(statement)
        return (Array.isArray(result) ? result.at(-1) : result).rows
      } finally {
        await client.end()
      }
    },
    // Fast shutdown: sessions are ended, everything is written.
    stop: () => end('SIGINT', false),
    async remove() {
      await end('SIGINT', false)
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
