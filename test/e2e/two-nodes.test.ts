// Two servers of one fleet on one PostgreSQL, as an operator runs them, and what happens when their profiles differ.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { birthmark, birthmarkProgram, type Program } from '../support/command.ts'
import { startPostgres, type TestPostgres } from '../support/postgres.ts'
import { freePort, prepareServing, type Serving } from '../support/serving.ts'

let database: TestPostgres
let older: Serving
const programs: Program[] = []

beforeAll(async () => {
  database = await startPostgres()
  older = await prepareServing(
    yaml => `${yaml}\nstore:\n  postgres: { host: ${database.folder}, database: postgres, user: birthmark, schema: nodes }\n`,
  )
}, 60_000)
afterAll(async () => {
  await Promise.all(programs.map(program => program.stop('SIGKILL')))
  await older.remove()
  await database.remove()
})

/** A node of the same fleet and issuer in the same folder, on other ports; its metrics port. */
async function startNewer(): Promise<number> {
  const config = join(older.folder, 'newer.yaml')
  const metrics = await freePort()
  const yaml = readFileSync(older.config, 'utf8')
    .replace('state: state ', 'state: newer-state ')
    .replace(`port: ${older.port}`, `port: ${await freePort()}`)
    .replace(`port: ${older.mqttPort}`, `port: ${await freePort()}`)
    .replace(/listen: 127.0.0.1:\d+/g, `listen: 127.0.0.1:${metrics}`)
    .replace('lifetime: 90d', 'lifetime: 30d')
  writeFileSync(config, yaml)
  const program = birthmarkProgram('serve', '--config', config, '--json')
  programs.push(program)
  await program.said(line => line.serving === true)
  return metrics
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  // A hang bound, not a measurement.
  for (let i = 0; i < 200 && !(await condition()); i++) await new Promise(resolve => setTimeout(resolve, 50))
  expect(await condition()).toBe(true)
}

test('[F38] of two nodes with different profiles the older refuses and says so, until an operator decides for it', async () => {
  await older.start()
  await older.enroll('before')
  expect((await older.monitor('/readyz')).status).toBe(200)
  const secret = await older.administration.mintSecret({ device: 'behind', groups: [], minutes: 60 })

  const newerMonitor = await startNewer()
  await until(async () => (await older.monitor('/readyz')).status === 503)
  const { body } = await older.monitor('/readyz')
  expect(body).toMatch(/profiles_superseded: generation 2 of the profiles is of \S+, 20\d\d-\S+Z, version \d+\.\d+\.\d+/)
  const connection = await older.connect()
  const answer = await older.ask(connection, secret)
  expect([answer?.status, answer?.body.split(':')[0], answer?.headers['retry-after']]).toEqual([503, 'profiles_superseded', '30'])
  connection.close()
  expect((await fetch(`http://127.0.0.1:${newerMonitor}/readyz`)).status).toBe(200)

  // Restarting with the old file changes nothing; saying that it is meant does, and on both nodes.
  const again = await birthmark('profile', 'adopt', '--config', older.config, '--json')
  expect([again.code, again.json[0]]).toEqual([0, expect.objectContaining({ fleet: 'acme', generation: 3 })])
  await until(async () => (await older.monitor('/readyz')).status === 200)
  await until(async () => (await fetch(`http://127.0.0.1:${newerMonitor}/readyz`)).status === 503)
  await older.enroll('after')
}, 60_000)
