// The PostgreSQL driver against Debian's server: the contract, and what is its own: its schema, a server that goes away, a copy that is older.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { dumpPostgresStore, openPostgresStore, type PostgresStoreOptions, restorePostgresStore } from '@birthmark/est-server'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { byteaArray, int4Array, int8Array, textArray } from '../../packages/est-server/src/store/postgres-array.ts'
import { startPostgres, type TestPostgres } from '../support/postgres.ts'
import { approvalsContract } from './approvals-contract.ts'
import { campaignsContract } from './campaigns-contract.ts'
import { auditEntry, issue, manifestEntry, storeContract } from './contract.ts'
import { crlContract } from './crl-contract.ts'
import { issuersContract } from './issuers-contract.ts'
import { noticeContract } from './notice-contract.ts'
import { numbersContract } from './numbers-contract.ts'
import { profileSetsContract } from './profile-sets-contract.ts'
import { revokedListsContract } from './revoked-lists-contract.ts'
import { scepContract } from './scep-contract.ts'
import { selectionContract } from './selection-contract.ts'
import { tokenContract } from './token-contract.ts'

let server: TestPostgres
beforeAll(async () => {
  server = await startPostgres()
})
afterAll(() => server.remove())

let schemas = 0
const driver = () => {
  const schema = `contract_${schemas++}`
  return {
    open: () => openPostgresStore(server.address(schema)),
    remove: async () => void (await server.sql(`DROP SCHEMA ${schema} CASCADE`)),
  }
}
storeContract('postgres', driver)
crlContract('postgres', driver)
tokenContract('postgres', driver)
scepContract('postgres', driver)
issuersContract('postgres', driver)
approvalsContract('postgres', driver)
numbersContract('postgres', driver)
profileSetsContract('postgres', driver)
revokedListsContract('postgres', driver)
noticeContract('postgres', driver)
selectionContract('postgres', driver)
campaignsContract('postgres', driver)

describe('postgres driver', () => {
  let schema: string
  const open = (options: Partial<PostgresStoreOptions> = {}) => openPostgresStore({ ...server.address(schema), ...options })
  const until = async (done: () => Promise<boolean> | boolean) => {
    // Ten seconds bound a hang.
    for (let i = 0; i < 200 && !(await done()); i++) await new Promise(next => setTimeout(next, 50))
  }
  beforeEach(() => {
    schema = `own_${schemas++}`
  })
  afterEach(async () => void (await server.sql(`DROP SCHEMA IF EXISTS ${schema} CASCADE`)))

  it('refuses a schema of another program, of a newer version, and a server that keeps nothing over a power cut', async () => {
    await server.sql(`CREATE SCHEMA ${schema}; CREATE TABLE ${schema}.theirs (x integer)`)
    await expect(open()).rejects.toMatchObject({ code: 'store_unusable' })
    await server.sql(`DROP SCHEMA ${schema} CASCADE`)
    await (await open()).close()
    await server.sql(`UPDATE ${schema}.birthmark_version SET version = 999`)
    await expect(open()).rejects.toThrow(/version 999/)
    await expect(open({ port: 1 })).rejects.toMatchObject({ code: 'store_unusable' })
    const careless = await startPostgres({ fsync: 'off' })
    await expect(openPostgresStore(careless.address('x'))).rejects.toThrow(/fsync is off/)
    await careless.remove()
  })

  it('[F67] [F68] lives through a server that is killed: writes fail as what they are, and what was acknowledged is there afterwards', async () => {
    const away: (string | null)[] = []
    const store = await open({ onAway: error => away.push(error && error.code) })
    let acknowledged = 0
    const writing = Promise.all(
      Array.from({ length: 20 }, async () => {
        for (;;)
          try {
            await store.appendAudit(auditEntry('failure'))
            acknowledged++
          } catch (error) {
            expect(error).toMatchObject({ code: expect.stringMatching(/^store_(failed|unknown)$/) })
            return
          }
      }),
    )
    await until(() => acknowledged > 100)
    await server.crash()
    await writing
    await expect(store.lastTime()).rejects.toMatchObject({ code: 'store_failed' })
    await expect(store.appendAudit(auditEntry('failure'))).rejects.toMatchObject({ code: 'store_failed' })
    await server.start()
    await until(() => away.length === 2)
    expect(away).toEqual(['store_failed', null])
    await store.appendAudit(auditEntry('failure'))
    const { audit } = await store.numbers([])
    expect(audit.n).toBeGreaterThan(acknowledged)
    // What had no answer may have happened: at most one record a writer.
    expect(audit.n).toBeLessThanOrEqual(acknowledged + 21)
    expect(await store.check()).toEqual([])
    await store.close()
  })

  it('[F69] stops for good when the database has lost what it acknowledged, by a failover or a copy put back', async () => {
    const stopped: string[] = []
    const store = await open({ onStopped: error => stopped.push(error.message) })
    for (let i = 0; i < 3; i++) await store.appendAudit(auditEntry('failure'))
    await server.sql(
      `DELETE FROM ${schema}.audit WHERE n = 3; UPDATE ${schema}.head SET audit_n = 2, audit_hash = (SELECT hash FROM ${schema}.audit WHERE n = 2)`,
    )
    await expect(store.appendAudit(auditEntry('failure'))).rejects.toMatchObject({ code: 'store_failed' })
    await expect(store.appendAudit(auditEntry('failure'))).rejects.toMatchObject({ code: 'store_closed' })
    expect(stopped).toEqual([expect.stringMatching(/ends at audit record 2 and this server was acknowledged record 3/)])
    await store.close()
    // The same, noticed at the new connection.
    const other = await open({ onStopped: error => stopped.push(error.message) })
    await other.appendAudit(auditEntry('failure'))
    await server.sql(`UPDATE ${schema}.audit SET hash = decode(repeat('11', 32), 'hex') WHERE n = 3`)
    await server.sql(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'birthmark %'`)
    await until(() => stopped.length === 2)
    expect(stopped[1]).toMatch(/has lost audit record 3/)
    await other.close()
  })

  it('two servers may issue into one fleet: neither draws an index of the other', async () => {
    const [a, b] = [await open(), await open()]
    const drawn = await Promise.all(Array.from({ length: 600 }, (_, i) => (i % 2 ? a : b).reserveIdx('meters')))
    expect(new Set(drawn).size).toBe(600)
    await Promise.all(Array.from({ length: 50 }, (_, i) => (i % 2 ? a : b).appendAudit(auditEntry('failure'))))
    expect(await a.audit(0, 100)).toHaveLength(50)
    expect(await b.check()).toEqual([])
    await a.close()
    await b.close()
  })

  it('fails one bad write of a batch alone, and bounds the writes that wait', async () => {
    const store = await open({ queueMax: 10 })
    const good = Array.from({ length: 5 }, () => store.appendAudit(auditEntry('failure')))
    const bad = store.appendAudit({ ...auditEntry('failure'), fleet: 'a\0b' })
    await expect(bad).rejects.toMatchObject({ code: 'store_failed' })
    await Promise.all(good)
    expect(await store.audit(0, 100)).toHaveLength(5)
    const results = await Promise.allSettled(Array.from({ length: 30 }, () => store.appendAudit(auditEntry('failure'))))
    expect(results.filter(r => r.status === 'rejected').map(r => r.reason.code)).toEqual(new Array(20).fill('store_busy'))
    await store.close()
  })

  it('is sent arrays in binary as what they are', async () => {
    const client = new pg.Client({ host: server.folder, port: 5432, database: 'postgres', user: 'birthmark' })
    await client.connect()
    const numbers = [0, -1, 2 ** 31 - 1, null, -(2 ** 31)]
    const large = [2 ** 32, null, -1, -(2 ** 32) - 1, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER]
    const texts = ['', null, 'a"{},\\', 'Zähler 漢字 🙂']
    const bytes = [new Uint8Array(0), null, new Uint8Array([0, 255, 1])]
    try {
      const { rows } = await client.query(
        'SELECT $1::integer[] AS i4, $2::bigint[]::text[] AS i8, $3::text[] AS t, $4::bytea[] AS b, $5::text[] AS none',
        [int4Array(numbers), int8Array(large), textArray(texts), byteaArray(bytes), textArray([])],
      )
      const [{ i4, i8, t, b, none }] = rows
      expect([i4, i8, t, none]).toEqual([numbers, large.map(n => n && String(n)), texts, []])
      expect(b.map((one: Buffer | null) => one && new Uint8Array(one))).toEqual(bytes)
      for (const value of [Number.NaN, 0.5, 2 ** 53, undefined as unknown as number]) {
        expect(() => int4Array([value])).toThrow(RangeError)
        expect(() => int8Array([value])).toThrow(RangeError)
      }
      expect(() => int4Array([2 ** 31])).toThrow(RangeError)
    } finally {
      await client.end()
    }
  })

  it('looks an enrollment up in a large fleet as in an empty one, also by plans that were made for the empty one', async () => {
    const store = await open()
    // What the server would otherwise learn of the tables in a minute or in an hour.
    await server.sql(
      `DO $$ DECLARE t record; BEGIN FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = '${schema}' LOOP
         EXECUTE format('ALTER TABLE ${schema}.%I SET (autovacuum_enabled = off)', t.tablename); END LOOP; END $$`,
    )
    await store.importManifest(
      'meters',
      ['a', 'b'].map(id => manifestEntry(id)),
      auditEntry('manifest_imported'),
    )
    await issue(store, 'a')
    expect(await store.lastIdx('meters')).toBe(1)
    await server.sql(
      `SET search_path = ${schema};
       INSERT INTO groups (fleet, gid, name) SELECT 'meters', 100 + n, 'g' || n FROM generate_series(1, 3000) n;
       INSERT INTO devices (fleet, id, key_origin, gids, known_at) SELECT 'meters', 'd' || n, 'device', '{1}', 0 FROM generate_series(1, 3000) n;
       INSERT INTO issuances (issuer, serial, fleet, idx, device, gids, spki_sha256, content_sha256, epoch, not_before, not_after, state, request_id,
         started_at, der) SELECT i.issuer, sha256(d.id::bytea), 'meters', 1000000 + d.key, d.key, '{1}', sha256(d.id::bytea), sha256(d.id::bytea), 0, 0, 0,
         'intent', '', 0, '' FROM devices d, issuances i WHERE d.id ~ '^d' AND i.idx = 1`,
    )
    const read = async () => {
      const [{ tuples }] = await server.sql(
        `SELECT ((SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = '${schema}')
           + (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE schemaname = '${schema}'))::integer AS tuples`,
      )
      return tuples as number
    }
    const before = await read()
    await issue(store, 'b', { idx: 2_000_000 })
    expect(await store.lastIdx('meters')).toBe(2_000_000)
    // Its sessions hand in what they counted when they end.
    await store.close()
    await until(
      async () => (await server.sql("SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'birthmark %'")).length === 0,
    )
    expect((await read()) - before).toBeLessThan(200)
  })

  it('check names what was tampered with', async () => {
    const store = await open()
    await store.importManifest('meters', [manifestEntry('a')], auditEntry('manifest_imported'))
    for (let i = 0; i < 3; i++) await store.appendAudit(auditEntry('failure'))
    await server.sql(`UPDATE ${schema}.audit SET detail = 'forged' WHERE n = 2; UPDATE ${schema}.groups SET devices = 9`)
    expect(await store.check()).toEqual([
      'a group whose count is wrong: batch=1',
      'audit: record 2 does not follow from the one before',
    ])
    await store.close()
  })

  it('[F45] is dumped beside a server and put back, what stood there kept aside', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'bm-dump-'))
    const store = await open()
    await store.importManifest('meters', [manifestEntry('a')], auditEntry('manifest_imported'))
    await dumpPostgresStore(server.address(schema), join(folder, 'dump'))
    await store.appendAudit(auditEntry('failure'))
    await store.close()
    await restorePostgresStore(server.address(schema), join(folder, 'dump'), `${schema}_before`)
    const again = await open()
    expect(await again.audit(0, 10)).toHaveLength(1)
    expect(await again.device('meters', 'a')).toMatchObject({ state: 'known' })
    expect(await again.check()).toEqual([])
    await again.close()
    expect(await server.sql(`SELECT count(*) AS n FROM ${schema}_before.audit`)).toEqual([{ n: '2' }])
    await server.sql(`DROP SCHEMA ${schema}_before CASCADE`)
    rmSync(folder, { recursive: true })
  })
})
