// OCSP at the handler: bytes of a question in, the whole signed answer out, looked up in a store on disk; against one raw P-256 signature in the
// same process, in turns. Every uncached question is about another certificate and carries a nonce.

import { createHash, generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { testAuthority } from '@birthmark/device-sdk/testing'
import {
  createOcspResponder,
  encodeOcspRequest,
  type OcspAnswer,
  openSqliteStore,
  parseOcspResponse,
  publicKeyBits,
  softwareIssuer,
} from '@birthmark/est-server'

const certificates = 20_000
const repeats = 41
const perRepeat = 200
/** Every certificate once: what it is stays known, what is said of it does not. */
const warmUp = certificates

const cachedPerRepeat = 2000
const fleet = 'bench'
const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1]
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest()

/** Certificates of a fleet of which every tenth is in a closed group. */
function fill(path: string, issuer: Uint8Array): Buffer[] {
  const db = new DatabaseSync(path)
  db.exec('BEGIN')
  db.exec(`INSERT INTO devices (key, fleet, id, key_origin, gids, known_at) VALUES (1, '${fleet}', 'bench', 'device', '[1,2]', 0)`)
  db.exec(
    `INSERT INTO groups (fleet, gid, name, bound, reason, closed_seq) VALUES ('${fleet}', 1, 'batch=1', ${certificates + 1}, 1, 1)`,
  )
  db.exec(`INSERT INTO groups (fleet, gid, name) VALUES ('${fleet}', 2, 'batch=2')`)
  db.exec(`INSERT INTO notices (fleet, seq, notice, sha256, at) VALUES ('${fleet}', 1, x'00', x'00', 1799990000)`)
  const insert =
    db.prepare(`INSERT INTO issuances (issuer, serial, fleet, idx, device, gids, spki_sha256, content_sha256, epoch, not_before,
    not_after, state, request_id, started_at, der) VALUES (?, ?, '${fleet}', ?, 1, ?, ?, ?, 0, 0, 2000000000, 'issued', 'request', 0, ?)`)
  const serials = Array.from({ length: certificates }, (_, i) => {
    const serial = randomBytes(16)
    serial.writeUIntBE(0x410000000000 + i * 7, 0, 6)
    insert.run(issuer, serial, i + 1, i % 10 === 0 ? '[1,2]' : '[2]', randomBytes(32), randomBytes(32), randomBytes(640))
    return serial
  })
  db.exec('COMMIT')
  db.close()
  return serials
}

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  const folder = mkdtempSync(join(tmpdir(), 'birthmark-bench-ocsp-'))
  const path = join(folder, 'store.db')
  await (await openSqliteStore({ path })).close()
  const ca = testAuthority('Bench operational CA')
  const issuer = softwareIssuer({ certificate: ca.certificate, privateKeyPem: ca.privateKeyPem })
  const serials = fill(path, issuer.keyId)
  const store = await openSqliteStore({ path })
  try {
    const log = { info() {}, warn() {}, error: (_: object, message: string) => console.error(message) }
    const clock = { now: () => Date.now() / 1000 + 100_000_000 }
    const responder = createOcspResponder({ store, issuers: [issuer], lifetimeSeconds: 3600, clock, log })
    const names = [sha256(issuer.certificate.subject), sha256(publicKeyBits(issuer.certificate.spki))] as const
    const fresh = serials.map(serial => Buffer.from(encodeOcspRequest(...names, serial, randomBytes(32))))
    const common = serials.slice(0, 1000).map(serial => Buffer.from(encodeOcspRequest(...names, serial, null)))

    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    // As long as what the responder signs.
    const first = parseOcspResponse((await responder.answer(fresh[1])).body)
    if (typeof first === 'string' || first.responses[0].status.kind !== 'good') throw new Error('not good')
    const third = parseOcspResponse((await responder.answer(common[0])).body)
    if (typeof third === 'string' || third.responses[0].status.kind !== 'revoked') throw new Error('not revoked')
    const { tbs } = first
    let next = 0
    const signedOne = ({ error, cacheable }: OcspAnswer) => {
      if (error !== null || cacheable !== null) throw new Error(error ?? 'kept')
    }
    const keptOne = ({ cacheable }: OcspAnswer) => {
      if (cacheable === null) throw new Error('not kept')
    }
    /** Each question comes in bytes just written, as from a socket; whoever sends the answer waits only where there is a promise. */
    const asking = (questions: Buffer[], check: (answer: OcspAnswer) => void) => {
      const [{ length }] = questions
      const all = Buffer.concat(questions)
      const received = Buffer.alloc(length)
      return () => {
        const at = (next++ % questions.length) * length
        all.copy(received, 0, at, at + length)
        const given = responder.answer(received)
        if (given instanceof Promise) return given.then(check)
        check(given)
      }
    }
    const ask = asking(fresh, signedOne)
    const askCommon = asking(common, keptOne)
    const raw = () => sign('sha256', tbs, privateKey)
    const microseconds = async (times: number, one: () => unknown) => {
      const before = process.cpuUsage()
      for (let i = 0; i < times; i++) {
        const given = one()
        if (given instanceof Promise) await given
        // Each question comes in a turn of its own or with a few others: what a turn costs the store belongs to the answer.
        if (i % 8 === 7) await new Promise(setImmediate)
      }
      const { user, system } = process.cpuUsage(before)
      return (user + system) / times
    }
    await microseconds(warmUp, raw)
    const unknown = await microseconds(warmUp, ask)
    await microseconds(warmUp, askCommon)
    const rawTimes: number[] = []
    const times: number[] = []
    const cached: number[] = []
    const signaturesBefore = responder.signatures
    for (let r = 0; r < repeats; r++) {
      rawTimes.push(await microseconds(perRepeat, raw))
      times.push(await microseconds(perRepeat, ask))
      cached.push(await microseconds(cachedPerRepeat, askCommon))
    }
    if (responder.signatures - signaturesBefore !== repeats * perRepeat)
      throw new Error('a kept answer was signed, or a fresh one was not')
    const figures = {
      ofRawSign: median(times.map((time, r) => time / rawTimes[r])),
      cachedPerSecond: 1e6 / median(cached),
    }
    const line = (name: string, value: string) => `${name.padEnd(62)}${value.padStart(10)}`
    const table = [
      line(`µs of CPU, median of ${repeats}`, ''),
      line('raw P-256 signature', median(rawTimes).toFixed(1)),
      line('answer with a nonce: read, looked up, signed, written', median(times).toFixed(1)),
      line('of a raw signature (limit 1.25)', figures.ofRawSign.toFixed(3)),
      line('the same for a certificate that was never asked about', unknown.toFixed(1)),
      line('kept answer', median(cached).toFixed(1)),
      line('kept answers a second and core (limit 10,000)', figures.cachedPerSecond.toFixed(0)),
    ].join('\n')
    return { table, figures }
  } finally {
    await store.close()
    rmSync(folder, { recursive: true, force: true })
  }
}

if (import.meta.main) console.log((await run()).table)
