// Several worker processes behind one port: what one of them acknowledged, the others know; what is revoked, none of them serves; and the
// death of one is nobody's loss.

import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { decodePem, encodeBase64, parseCertificate } from '@birthmark/device-sdk/core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { birthmark, type Program } from '../support/command.ts'
import { request } from '../support/devices.ts'
import { post, type RawConnection } from '../support/raw-http.ts'
import { certificateIn, pemsIn, prepareServing, type Serving } from '../support/serving.ts'

let serving: Serving
let program: Program

beforeAll(async () => {
  serving = await prepareServing()
  program = await serving.start('--workers', '2')
}, 60_000)
afterAll(() => serving.remove())

const health = 'GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n'

async function until(condition: () => Promise<boolean>): Promise<void> {
  // A hang bound, not a measurement.
  for (let i = 0; i < 600 && !(await condition()); i++) await new Promise(resolve => setTimeout(resolve, 50))
  expect(await condition()).toBe(true)
}

function recorded(): { serials: string[]; idx: number[]; open: number } {
  const db = new DatabaseSync(join(serving.state, 'fleet.db'), { readOnly: true })
  const rows = db.prepare("SELECT hex(serial) AS serial, idx FROM issuances WHERE state = 'issued'").all() as {
    serial: string
    idx: number
  }[]
  const { open } = db.prepare("SELECT count(*) AS open FROM issuances WHERE state = 'intent'").get() as { open: number }
  db.close()
  return { serials: rows.map(row => row.serial.toLowerCase()), idx: rows.map(row => row.idx), open }
}

const serialOf = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')

test('devices that come to different processes get certificates of one fleet, no serial and no idx twice', async () => {
  const { workers } = await serving.administration.status()
  expect(workers).toMatchObject({ serving: 2, of: 2 })
  expect(new Set(workers.pids).size).toBe(2)
  expect(workers.pids).not.toContain(program.child.pid)
  const got = await Promise.all(Array.from({ length: 40 }, (_, i) => serving.enroll(`w-${i}`, ['batch=w'])))
  const serials = got.map(({ certificate }) => serialOf(certificate.serial))
  expect(new Set(serials).size).toBe(40)
  const { serials: known, idx } = recorded()
  expect(known).toEqual(expect.arrayContaining(serials))
  expect(new Set(idx).size).toBe(idx.length)
  // Blocks of two processes.
  expect(new Set(idx.map(i => Math.floor((i - 1) / 256))).size).toBe(2)
  // One page for all of them, and one word on whether they serve.
  const { body } = await serving.monitor('/metrics')
  expect(body).toContain('birthmark_est_requests_total{operation="simpleenroll",profile="default",outcome="ok"} 40')
  expect(body).toContain('birthmark_workers 2')
  expect(await serving.monitor('/readyz')).toEqual({ status: 200, body: expect.stringContaining('workers: 2 of 2 serve') })
})

test('a device renews at whichever process it comes to, and what it got later counts as later', async () => {
  let { cert, key } = await serving.enroll('renewing', ['batch=w'])
  for (let i = 0; i < 8; i++) {
    const connection = await serving.connect({ cert, key })
    const before = parseCertificate(decodePem(cert, 'CERTIFICATE', 4)[0])
    const next = await request('renewing', before.subject)
    const answer = await connection.ask(post('/.well-known/est/simplereenroll', encodeBase64(next.csr, 64)))
    connection.close()
    expect([i, answer?.status, answer?.status === 200 ? '' : answer?.body]).toEqual([i, 200, ''])
    cert = pemsIn(answer!)
    key = next.key
  }
})

test('[F12] a revocation is denied by every process before it is reported, and cuts the live connections of each', async () => {
  const held: RawConnection[] = []
  const members = await Promise.all(Array.from({ length: 12 }, (_, i) => serving.enroll(`gone-${i}`, ['batch=gone'])))
  for (const member of members) held.push(await serving.connect(member))
  for (const connection of held) expect((await connection.ask(health))?.status).toBe(200)
  const plan = await serving.administration.planRevocation('batch=gone')
  const done = await serving.administration.revoke({ group: 'batch=gone', digest: plan.digest, reason: 'test' })
  expect([done.devices, done.connectionsClosed]).toEqual([12, 12])
  await Promise.all(held.map(connection => connection.closed))
  for (const member of members) {
    const connection = await serving.connect(member)
    const { csr } = await request('gone', member.certificate.subject)
    const answer = await connection.ask(post('/.well-known/est/simplereenroll', encodeBase64(csr, 64)))
    expect([answer?.status, answer?.body.split(':')[0]]).toEqual([403, 'group_revoked'])
    connection.close()
  }
})

test('[F67] a worker that is killed under load is replaced, and nothing that it acknowledged is lost', async () => {
  const before = (await serving.administration.status()).workers.pids
  const answered: string[] = []
  let enough = false
  const secrets: { device: string; secret: string }[] = []
  for (let i = 0; i < 160; i++) secrets.push(await serving.administration.mintSecret({ device: `k-${i}`, groups: [], minutes: 60 }))
  const work = async () => {
    for (let secret = secrets.pop(); secret; secret = secrets.pop()) {
      try {
        const connection = await serving.connect()
        const answer = await serving.ask(connection, secret)
        connection.close()
        if (answer?.status === 200) answered.push(serialOf(certificateIn(answer).serial))
      } catch {
        // Its process died; the device would come again.
      }
      if (answered.length > 30 && !enough) {
        enough = true
        process.kill(before[0], 'SIGKILL')
      }
    }
  }
  await Promise.all(Array.from({ length: 8 }, work))
  expect(answered.length).toBeGreaterThan(60)
  expect(recorded().serials).toEqual(expect.arrayContaining(answered))
  await until(async () => (await serving.administration.status()).workers.serving === 2)
  const after = (await serving.administration.status()).workers.pids
  expect(after).toContain(before[1])
  expect(after).not.toContain(before[0])
  await serving.enroll('after-the-death')
})

test('[F67] a worker that is stopped and confirms nothing does not hold a revocation up: it is ended', async () => {
  const member = await serving.enroll('frozen', ['batch=frozen'])
  const { pids } = (await serving.administration.status()).workers
  process.kill(pids[0], 'SIGSTOP')
  const plan = await serving.administration.planRevocation('batch=frozen')
  await serving.administration.revoke({ group: 'batch=frozen', digest: plan.digest, reason: 'test' })
  expect((await serving.administration.status()).workers.pids).not.toContain(pids[0])
  await until(async () => (await serving.administration.status()).workers.serving === 2)
  // Whichever process is asked now.
  for (let i = 0; i < 6; i++) {
    const connection = await serving.connect(member)
    const { csr } = await request('frozen', member.certificate.subject)
    const answer = await connection.ask(post('/.well-known/est/simplereenroll', encodeBase64(csr, 64)))
    expect(answer?.status).toBe(403)
    connection.close()
  }
})

test('a second server finds the port taken, and the first one ends in order', async () => {
  const other = await prepareServing(yaml => yaml.replace(/port: \d+/, `port: ${serving.port}`))
  const refused = await birthmark('serve', '--config', other.config, '--workers', '2')
  expect([refused.code, refused.stderr]).toEqual([1, expect.stringMatching(/error: port_busy: /)])
  await other.remove()
  const { pids } = (await serving.administration.status()).workers
  const { code } = await program.stop('SIGTERM')
  expect(code).toBe(0)
  for (const pid of pids) expect(() => process.kill(pid, 0)).toThrow()
})
