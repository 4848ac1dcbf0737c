// `birthmark serve` as one process: what monitoring sees, what one request id finds, and an end that keeps every promise it made.

import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { birthmark, type Program } from '../support/command.ts'
import { post } from '../support/raw-http.ts'
import { certificateIn, prepareServing, type Serving } from '../support/serving.ts'

let serving: Serving
let program: Program

beforeAll(async () => {
  serving = await prepareServing()
  program = await serving.start()
}, 60_000)
afterAll(() => serving.remove())

const value = (text: string, series: string) =>
  Number(
    text
      .split('\n')
      .find(line => line.startsWith(series))
      ?.split(' ')
      .at(-1),
  )

function rows<T>(sql: string): T[] {
  const db = new DatabaseSync(join(serving.state, 'fleet.db'), { readOnly: true })
  try {
    return db.prepare(sql).all() as T[]
  } finally {
    db.close()
  }
}

test('metrics tell enrollments, steps, handshakes, batches, the process; readiness says what holds', async () => {
  await serving.enroll('counted')
  const { body } = await serving.monitor('/metrics')
  expect(value(body, 'birthmark_est_requests_total{operation="simpleenroll",profile="default",outcome="ok"}')).toBe(1)
  for (const step of ['look_up', 'record_intent', 'sign', 'record_certificate'])
    expect(value(body, `birthmark_step_seconds_count{step="${step}"}`), step).toBeGreaterThan(0)
  for (const series of [
    'birthmark_tls_handshakes_total{outcome="done"}',
    'birthmark_issuer_signatures_total{outcome="signed"}',
    'birthmark_store_batch_jobs_count',
    'birthmark_ready',
    'birthmark_workers',
    'birthmark_process_cpu_seconds_total',
    'birthmark_nodejs_eventloop_lag_max_seconds',
  ])
    expect(value(body, series), series).toBeGreaterThan(0)
  expect(value(body, 'birthmark_outbox')).toBe(0)
  const ready = await serving.monitor('/readyz')
  expect([ready.status, ready.body]).toEqual([
    200,
    expect.stringMatching(
      /^ready\nstore: takes records\nworkers: 1 of 1 serve\nclock: not behind the records\npublisher: delivers\ndisk: \d+ MiB free\n$/,
    ),
  ])
  expect((await serving.monitor('/healthz')).status).toBe(200)
  expect((await serving.monitor('/')).status).toBe(404)
})

test('[F66] one request id leads from the answer to the log and the record, and control characters lie there escaped', async () => {
  const connection = await serving.connect()
  const target = '/.well-known/est/a%0A%7B%22level%22:60/simpleenroll'
  const answer = await connection.ask(
    post(target, 'AAAA', { Authorization: `Basic ${Buffer.from('x\n{"forged":1}:y').toString('base64')}` }),
  )
  const known = await connection.ask(
    post('/.well-known/est/simpleenroll', 'AAAA', { Authorization: `Basic ${Buffer.from('gw-9:wrong').toString('base64')}` }),
  )
  connection.close()
  expect([answer?.status, known?.status]).toEqual([404, 401])
  const id = known?.headers['x-request-id'] ?? ''
  const [record] = rows<{ code: string }>(`SELECT code FROM audit WHERE request_id = '${id}'`)
  expect(record?.code).toMatch(/^secret_/)
  const { stderr } = await program.stop('SIGTERM')
  const lines = stderr.split('\n').filter(line => line.startsWith('{'))
  for (const line of lines) expect(JSON.parse(line)).not.toHaveProperty('forged')
  expect(
    lines.map(line => JSON.parse(line) as { requestId?: string; code?: string }).find(line => line.requestId === id)?.code,
  ).toBe(record.code)
  // Neither the secret that was shown nor anything like it.
  expect(stderr).not.toContain(Buffer.from('gw-9:wrong').toString('base64'))
  program = await serving.start()
})

test('[F74] labels, targets and ids that strangers make up add no series', async () => {
  const visit = async (n: number) => {
    const connection = await serving.connect()
    for (let i = 0; i < 100; i++) {
      const label = `made-up-${n}-${i}`
      const basic = Buffer.from(`${label}:secret`).toString('base64')
      await connection.ask(post(`/.well-known/est/${label}/simpleenroll`, 'AAAA', { Authorization: `Basic ${basic}` }))
      await connection.ask(`GET /.well-known/est/${label}/cacerts HTTP/1.1\r\nHost: x\r\n\r\n`)
      await connection.ask(`GET /${label} HTTP/1.1\r\nHost: x\r\n\r\n`)
    }
    connection.close()
  }
  const count = async () =>
    (await serving.monitor('/metrics')).body.split('\n').filter(line => line.startsWith('birthmark_est')).length
  await visit(0)
  const before = await count()
  for (let n = 1; n < 8; n++) await visit(n)
  expect(await count()).toBe(before)
})

test('[F39] [F26] an operator sees a clock that stands before the records, says which of the two is right, and lifts a suspicion', async () => {
  const cli = (...args: string[]) => birthmark(...args, '--dir', serving.state)
  expect((await cli('clock', 'status')).code).toBe(0)
  await serving.enroll('dated')
  await program.stop('SIGTERM')
  // As a clock that ran a year ahead would have left it, and a device that was found twice.
  const db = new DatabaseSync(join(serving.state, 'fleet.db'))
  db.exec('UPDATE clock SET at = at + 31536000')
  db.exec("UPDATE devices SET suspected_at = known_at WHERE id = 'dated'")
  db.close()
  program = await serving.start()
  await expect(serving.enroll('undated')).rejects.toThrow(/503 clock_regressed/)
  const status = await cli('clock', 'status')
  expect([status.code, status.stderr]).toEqual([
    1,
    expect.stringMatching(/error: clock_regressed: .+\nnext: .*birthmark clock accept/),
  ])
  expect((await cli('clock', 'accept', '--reason', 'it was ahead')).code).toBe(3)
  expect((await cli('clock', 'accept', '--reason', 'it was ahead', '--yes')).code).toBe(0)
  await serving.enroll('undated')
  expect(await cli('trust', 'nobody', '--reason', 'x')).toMatchObject({
    code: 3,
    stderr: expect.stringContaining('device_unknown'),
  })
  expect((await cli('trust', 'dated', '--reason', 'looked at it')).code).toBe(0)
  expect(rows("SELECT kind, detail FROM audit WHERE kind IN ('clock_accepted', 'suspicion_lifted') ORDER BY n")).toEqual([
    { kind: 'clock_accepted', detail: 'it was ahead' },
    { kind: 'suspicion_lifted', detail: 'looked at it' },
  ])
})

test.each(['one process', 'two workers'])(
  '[F67] stopped by SIGTERM under load, %s finishes what it took and has every certificate it answered',
  async how => {
    if (how === 'two workers') {
      await program.stop('SIGTERM')
      program = await serving.start('--workers', '2')
    }
    const secrets: { device: string; secret: string }[] = []
    for (let i = 0; i < 150; i++)
      secrets.push(await serving.administration.mintSecret({ device: `${how.replace(' ', '-')}-${i}`, groups: [], minutes: 60 }))
    const answered: string[] = []
    let cutOff = 0
    const ended: ReturnType<Program['stop']>[] = []
    await Promise.all(
      Array.from({ length: 16 }, async () => {
        for (let secret = secrets.pop(); secret; secret = secrets.pop()) {
          const connection = await serving.connect().catch(() => null)
          if (!connection) continue
          const answer = await serving.ask(connection, secret).catch(() => null)
          connection.close()
          if (answer?.status === 200) answered.push(Buffer.from(certificateIn(answer).serial).toString('hex').toUpperCase())
          else if (answer === null) cutOff++
          if (answered.length >= 40 && ended.length === 0) ended.push(program.stop('SIGTERM'))
        }
      }),
    )
    expect((await ended[0]).code).toBe(0)
    const issued = rows<{ serial: string; state: string }>('SELECT hex(serial) AS serial, state FROM issuances')
    expect(issued.filter(row => row.state === 'issued').map(row => row.serial)).toEqual(expect.arrayContaining(answered))
    expect(issued.filter(row => row.state === 'intent')).toEqual([])
    expect(answered.length).toBeGreaterThanOrEqual(40)
    // At most those that had no request in yet.
    expect(cutOff).toBeLessThanOrEqual(16)
    program = await serving.start()
  },
)
