// From one version of the program to the next, and never back: an older store is brought up to date with all that it holds, a newer one is refused.
// Older is what the first step makes; the next version's step is pretended.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { openPostgresStore, openSqliteStore, type Store } from '@birthmark/est-server'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { migratePostgres, postgresSteps } from '../../packages/est-server/src/store/postgres-schema.ts'
import { migrate, sqliteSteps } from '../../packages/est-server/src/store/sqlite-schema.ts'
import { startPostgres, type TestPostgres } from '../support/postgres.ts'
import { auditEntry, manifestEntry } from './contract.ts'

const next = "ALTER TABLE devices ADD COLUMN colour text NOT NULL DEFAULT 'grey'"
const broken = 'ALTER TABLE devices ADD COLUMN size integer; ALTER TABLE nothing ADD COLUMN x integer'

let server: TestPostgres
let folder: string
beforeAll(async () => {
  server = await startPostgres()
  folder = mkdtempSync(join(tmpdir(), 'bm-migration-'))
})
afterAll(async () => {
  await server.remove()
  rmSync(folder, { recursive: true })
})

interface Driver {
  steps: readonly string[]
  open(): Promise<Store>
  migrate(steps: readonly string[]): Promise<void>
  query(sql: string): Promise<unknown[]>
}

const file = () => join(folder, 'store.db')
const sqlite: Driver = {
  steps: sqliteSteps,
  open: () => openSqliteStore({ path: file() }),
  async migrate(steps) {
    const db = new DatabaseSync(file())
    try {
      migrate(db, steps)
    } finally {
      db.close()
    }
  },
  async query(sql) {
    const db = new DatabaseSync(file())
    const rows = db.prepare(sql).all()
    db.close()
    return rows.map(row => ({ ...row }))
  },
}
const postgres: Driver = {
  steps: postgresSteps,
  open: () => openPostgresStore(server.address('older')),
  async migrate(steps) {
    const client = new pg.Client({ host: server.folder, port: 5432, database: 'postgres', user: 'birthmark' })
    await client.connect()
    try {
      await migratePostgres(client, 'older', steps)
    } finally {
      await client.end()
    }
  },
  query: sql => server.sql(`SET search_path = older; ${sql}`),
}

describe.each<[string, Driver]>([
  ['sqlite', sqlite],
  ['postgres', postgres],
])('%s', (_, driver) => {
  it('takes an older store along, refuses a step that fails as a whole, and a newer store', async () => {
    await driver.migrate(driver.steps.slice(0, 1))
    const store = await driver.open()
    await store.importManifest('meters', [manifestEntry('a'), manifestEntry('b')], auditEntry('manifest_imported'))
    await store.close()

    await expect(driver.migrate([...driver.steps, broken])).rejects.toThrow(/nothing/)
    const same = await driver.open()
    expect(await same.check()).toEqual([])
    await same.close()

    await driver.migrate([...driver.steps, next])
    expect(await driver.query('SELECT id, colour FROM devices ORDER BY id')).toEqual([
      { id: 'a', colour: 'grey' },
      { id: 'b', colour: 'grey' },
    ])
    await expect(driver.open()).rejects.toMatchObject({ code: 'store_unusable' })
    await expect(driver.open()).rejects.toThrow(new RegExp(`version ${driver.steps.length + 1}, this program knows`))
    expect(await driver.query('SELECT count(*) AS n FROM devices WHERE size IS NULL').catch(() => 'no such column')).toBe(
      'no such column',
    )
  })
})
