// Revocation lists: a shard, and a million entries against `openssl ca -gencrl` with the same entries in the same run; then 100,000 certificates
// revoked at once. Everything is measured in a process of its own (crl-maker.ts), from its start: what it took at its worst is its memory.

import { execFileSync, fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { fileURLToPath } from 'node:url'
import { testAuthority } from '@birthmark/device-sdk/testing'
import { openSqliteStore, softwareIssuer } from '@birthmark/est-server'
import { type BuildOptions, buildSync } from 'esbuild'
import { shardBits } from '../packages/est-server/src/status-urls.ts'

const revokedBefore = 1_000_000
const revokedAtOnce = 100_000
const shardSize = 1 << shardBits
const repeats = 9
/** openssl takes half a minute each time, and repeats itself within a few percent. */
const opensslRepeats = 3
const shardsAsked = 10
/** Revocations while lists are being made. */
const roundsDuring = 300

const fleet = 'bench'
const revokedAt = 1_799_990_000
const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1]

/** A store as a server of that size has it: rows of their usual length, serials ordered by time. Written without the server, for speed alone. */
async function fill(path: string, issuer: Uint8Array, index: string): Promise<void> {
  await (await openSqliteStore({ path })).close()
  const db = new DatabaseSync(path)
  db.exec('PRAGMA synchronous = OFF')
  db.exec('PRAGMA cache_size = -262144')
  db.exec('BEGIN')
  const columns = new Map<string, string[]>()
  const insert = (table: string, row: Record<string, unknown>) => {
    const names = Object.keys(row)
    columns.set(table, names)
    return db.prepare(`INSERT INTO ${table} (${names.join()}) VALUES (${names.map(() => '?').join()})`)
  }
  const run = (table: string, row: Record<string, unknown>) => insert(table, row).run(...(Object.values(row) as string[]))
  run('devices', { key: 1, fleet, id: 'bench', key_origin: 'device', gids: '[1,2]', known_at: 0 })
  run('groups', { fleet, gid: 1, name: 'batch=before', devices: 0, bound: revokedBefore + 1, reason: 1, closed_seq: 1 })
  run('groups', { fleet, gid: 2, name: 'batch=now', devices: 0 })
  run('notices', { fleet, seq: 1, notice: Buffer.alloc(64), sha256: Buffer.alloc(32), at: revokedAt, delivered_at: revokedAt })
  const row = (serial: Buffer, idx: number) => ({
    ...{ issuer, serial, fleet, idx, device: 1, gids: idx <= revokedBefore ? '[1]' : '[2]', spki_sha256: randomBytes(32) },
    ...{
      content_sha256: randomBytes(32),
      epoch: 0,
      not_before: 0,
      not_after: 2_000_000_000,
      state: 'issued',
      request_id: 'request-of-the-bench',
    },
    ...{ started_at: 0, finished_at: 0, der },
  })
  // As long as a certificate with its addresses.
  const der = randomBytes(640)
  const statement = insert('issuances', row(Buffer.alloc(16), 0))
  const file = openSync(index, 'w')
  let lines: string[] = []
  for (let idx = 1; idx <= revokedBefore + revokedAtOnce; idx++) {
    const serial = randomBytes(16)
    serial.writeUIntBE(0x410000000000 + idx * 7, 0, 6)
    statement.run(...(Object.values(row(serial, idx)) as never[]))
    if (idx > revokedBefore) continue
    lines.push(`R\t330518033320Z\t270115054640Z,keyCompromise\t${serial.toString('hex').toUpperCase()}\tunknown\t/CN=d${idx}\n`)
    if (lines.length === 10_000) {
      writeSync(file, lines.join(''))
      lines = []
    }
  }
  db.exec('COMMIT')
  db.exec('PRAGMA wal_checkpoint(TRUNCATE)')
  db.close()
}

/** The maker as it would be installed: compiled, so that what strips types is not in its memory. */
function build(folder: string): string {
  const source = (name: string) => fileURLToPath(new URL(name, import.meta.url))
  const common = {
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node24',
    conditions: ['source'] as string[],
    external: ['pg', 'pg-native'] as string[],
  } satisfies BuildOptions
  const banner = { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url)" }
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}')
  buildSync({ ...common, banner, entryPoints: [source('./crl-maker.ts')], outfile: join(folder, 'maker.js') })
  const writer = source('../packages/est-server/src/store/sqlite-writer.ts')
  buildSync({ ...common, banner, entryPoints: [writer], outfile: join(folder, 'store/sqlite-writer.js') })
  return join(folder, 'maker.js')
}

function openMaker(file: string) {
  const child = fork(file, [], {
    execArgv: ['--disable-warning=ExperimentalWarning'],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  const ask = <T>(order: string, what: object = {}): Promise<T> =>
    new Promise((resolve, reject) => {
      const died = () => reject(new Error(`the maker ended during ${order}`))
      child.once('exit', died)
      child.once('message', answer => {
        child.off('exit', died)
        resolve(answer as T)
      })
      child.send({ order, ...what })
    })
  return ask
}

/** CPU milliseconds of one `openssl ca -gencrl`, and the list. */
function opensslOnce(folder: string): { ms: number; crl: string } {
  const crl = join(folder, 'openssl.pem')
  const script = `TIMEFORMAT='%U %S'; time openssl ca -gencrl -config ca.cnf -crldays 1 -out ${crl}`
  const said = execFileSync('bash', ['-c', `{ ${script}; } 2>&1`], { cwd: folder, encoding: 'utf8' })
  const [user, system] = said.trim().split('\n').at(-1)!.split(' ').map(Number)
  return { ms: (user + system) * 1000, crl }
}

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  const folder = mkdtempSync(join(tmpdir(), 'birthmark-bench-crl-'))
  try {
    const ca = testAuthority('Bench operational CA')
    const issuer = softwareIssuer({ certificate: ca.certificate, privateKeyPem: ca.privateKeyPem })
    const [certificate, key] = [join(folder, 'ca.pem'), join(folder, 'ca.key')]
    writeFileSync(certificate, ca.pem)
    writeFileSync(key, ca.privateKeyPem, { mode: 0o600 })
    writeFileSync(
      join(folder, 'ca.cnf'),
      `[ca]\ndefault_ca=c\n[c]\ndatabase=index.txt\ncrlnumber=crlnumber\ncertificate=${certificate}\nprivate_key=${key}\ndefault_md=sha256\ncrl_extensions=e\n[e]\nauthorityKeyIdentifier=keyid\n`,
    )
    writeFileSync(join(folder, 'crlnumber'), '01\n')
    const path = join(folder, 'store.db')
    await fill(path, issuer.keyId, join(folder, 'index.txt'))
    mkdirSync(join(folder, 'store'))
    const ask = openMaker(build(folder))
    await ask('start', { path, folder: join(folder, 'lists'), certificate: ca.pem, key: ca.privateKeyPem })

    const full: { ms: number; path: string; bytes: number; rssMb: number }[] = []
    const openssl: { ms: number; crl: string }[] = []
    for (let r = 0; r < repeats; r++) {
      full.push(await ask('full'))
      if (r % Math.ceil(repeats / opensslRepeats) === 0) openssl.push(opensslOnce(folder))
    }
    // The same entries, or the comparison means nothing: openssl reads ours, and both have as many.
    const theirs = readFileSync(openssl[0].crl, 'utf8').replace(/-----[^-]+-----|\s/g, '').length * 0.75
    if (Math.abs(theirs / full[0].bytes - 1) > 0.001) throw new Error(`lists of ${theirs} and ${full[0].bytes} octets`)
    execFileSync('openssl', ['crl', '-inform', 'DER', '-in', full.at(-1)!.path, '-noout', '-CAfile', certificate], {
      stdio: 'ignore',
    })

    // Shards that were never asked for, all revoked; the first ones warm up.
    const shards: number[] = []
    for (let shard = 1; shard <= 40 + repeats * 5; shard++) shards.push((await ask<{ ms: number }>('shard', { shard })).ms)
    const shardMs = median(shards.slice(40))

    const first = Math.ceil(revokedBefore / shardSize) + 1
    const asked = Array.from({ length: shardsAsked }, (_, i) => first + i)
    const during = await ask<{ times: number[]; fullLists: number }>('during', {
      ...{ rounds: roundsDuring, from: (first + shardsAsked + 2) * shardSize, step: 97 },
    })
    const p99 = during.times[Math.ceil(roundsDuring * 0.99) - 1]
    const revoked = await ask<{ signatures: number; stallMs: number }>('revoke', { group: 'batch=now', shards: asked })
    await ask('end')

    const ours = median(full.map(({ ms }) => ms))
    const figures = {
      shardMs,
      millionRssMb: Math.max(...full.map(({ rssMb }) => rssMb)),
      ofOpenssl: median(openssl.map(({ ms }) => ms)) / ours,
      duringBuildP99Ms: p99,
      revokeSigns: revoked.signatures - shardsAsked,
      maxStallMs: revoked.stallMs,
    }
    const line = (name: string, value: string) => `${name.padEnd(66)}${value.padStart(10)}`
    const table = [
      line('ms of CPU, medians', ''),
      line(`a shard of ${shardSize}, all revoked (limit 20)`, shardMs.toFixed(1)),
      line(`${revokedBefore} entries, ${(full[0].bytes / 1e6).toFixed(0)} MB: ours, of ${repeats}`, ours.toFixed(0)),
      line(`the same by openssl ca -gencrl, of ${openssl.length}`, median(openssl.map(({ ms }) => ms)).toFixed(0)),
      line('times faster than openssl (limit 5)', figures.ofOpenssl.toFixed(1)),
      line('the most memory of the process, MB (limit 100)', figures.millionRssMb.toFixed(0)),
      line(
        `a list with a revocation that came while ${during.fullLists} full ones were made, ms: p50`,
        median(during.times).toFixed(1),
      ),
      line(`the same, p99 of ${roundsDuring}`, p99.toFixed(1)),
      line(`${revokedAtOnce} revoked at once: signatures beyond the ${shardsAsked} shards asked for`, String(figures.revokeSigns)),
      line('longest stall of the event loop meanwhile, ms (limit 200)', figures.maxStallMs.toFixed(1)),
    ].join('\n')
    return { table, figures }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

if (import.meta.main) console.log((await run()).table)
