// The SQLite driver: the contract, and what is its own: the file, its mode and version, what a broken disk or a lost answer does.

import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import {
  groupsPerFleetMax,
  type ManifestEntry,
  openSqliteStore,
  type SqliteStoreOptions,
  type Store,
  spawnWriterThread,
  type WriterThread,
} from '@birthmark/est-server'
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import { approvalsContract } from './approvals-contract.ts'
import { campaignsContract } from './campaigns-contract.ts'
import { auditEntry, manifestEntry, storeContract } from './contract.ts'
import { crlContract } from './crl-contract.ts'

import { issuersContract } from './issuers-contract.ts'
import { noticeContract } from './notice-contract.ts'
import { numbersContract } from './numbers-contract.ts'
import { profileSetsContract } from './profile-sets-contract.ts'
import { revokedListsContract } from './revoked-lists-contract.ts'
import { scepContract } from './scep-contract.ts'
import { selectionContract } from './selection-contract.ts'
import { tokenContract } from './token-contract.ts'

const driver = () => {
  const folder = mkdtempSync(join(tmpdir(), 'birthmark-store-'))
  return {
    open: () => openSqliteStore({ path: join(folder, 'store.db') }),
    remove: async () => rmSync(folder, { recursive: true }),
  }
}
storeContract('sqlite', driver)
crlContract('sqlite', driver)
issuersContract('sqlite', driver)
noticeContract('sqlite', driver)
selectionContract('sqlite', driver)
campaignsContract('sqlite', driver)
tokenContract('sqlite', driver)
scepContract('sqlite', driver)
approvalsContract('sqlite', driver)
numbersContract('sqlite', driver)
profileSetsContract('sqlite', driver)
revokedListsContract('sqlite', driver)

describe('sqlite driver', () => {
  let folder: string
  const open = (options: Partial<SqliteStoreOptions> = {}) => openSqliteStore({ path: join(folder, 'store.db'), ...options })
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'birthmark-store-'))
  })
  afterEach(() => rmSync(folder, { recursive: true }))

  it('keeps the file, the log and the index to its owner', async () => {
    const store = await open()
    await store.appendAudit(auditEntry('failure'))
    for (const name of ['store.db', 'store.db-wal', 'store.db-shm']) expect(statSync(join(folder, name)).mode & 0o777).toBe(0o600)
    await store.close()
  })

  it('refuses a file of another program, of a newer version, or no database at all', async () => {
    const db = new DatabaseSync(join(folder, 'store.db'))
    db.exec('CREATE TABLE theirs (x)')
    await expect(open()).rejects.toMatchObject({ code: 'store_unusable' })
    db.exec('DROP TABLE theirs; PRAGMA application_id = 0x424d524b; PRAGMA user_version = 999')
    db.close()
    await expect(open()).rejects.toThrow(/version 999/)
    writeFileSync(join(folder, 'store.db'), 'x'.repeat(4096))
    await expect(open()).rejects.toMatchObject({ code: 'store_unusable' })
    await expect(openSqliteStore({ path: join(folder, 'missing', 'store.db') })).rejects.toMatchObject({ code: 'store_unusable' })
  })

  it('[F68] refuses a file that it can write and then not read, and leaves no thread behind', async () => {
    let ended = false
    const vanishing = (options: Parameters<typeof spawnWriterThread>[0]): WriterThread => {
      const real = spawnWriterThread(options)
      real.onExit(() => {
        ended = true
      })
      // Before the store hears that its writer is ready.
      real.onMessage(() => rmSync(options.path, { force: true }))
      return real
    }
    await expect(open({ spawnWriter: vanishing })).rejects.toMatchObject({ code: 'store_unusable' })
    await expect.poll(() => ended, { timeout: 10_000 }).toBe(true)
  })

  it.each(['exec', 'prepare'] as const)('[F68] leaves nothing open when %s of its second connection fails', async method => {
    const connections = new Set<DatabaseSync>()
    const real = DatabaseSync.prototype[method] as (sql: string) => never
    const seen = vi.spyOn(DatabaseSync.prototype, method).mockImplementation(function (this: DatabaseSync, sql: string) {
      connections.add(this)
      if (connections.size > 1) throw new Error('too many open files')
      return real.call(this, sql)
    })
    onTestFinished(() => seen.mockRestore())
    let ended = false
    const spawnWriter = (options: Parameters<typeof spawnWriterThread>[0]): WriterThread => {
      const writer = spawnWriterThread(options)
      writer.onExit(() => {
        ended = true
      })
      return writer
    }
    await expect(open({ spawnWriter })).rejects.toMatchObject({ code: 'store_unusable' })
    await expect.poll(() => ended, { timeout: 10_000 }).toBe(true)
    expect([...connections].map(db => db.isOpen)).toEqual([false, false])
  })

  it('two processes may issue into one fleet: the loser of an idx looks again', async () => {
    const a = await open()
    const b = await open()
    await a.importManifest('meters', [manifestEntry('x'), manifestEntry('y')], auditEntry('manifest_imported'))
    const [first, second] = [await a.reserveIdx('meters'), await b.reserveIdx('meters')]
    expect(second).toBe(first)
    const intent = async (store: typeof a, id: string, idx: number) => {
      const device = (await store.enrollmentFacts('meters', id, new Uint8Array(32), new Uint8Array(32))).device!
      const blob = Buffer.alloc(20, id)
      return store.recordIntent({
        ...{ issuer: blob, serial: blob, fleet: 'meters', device: device.key, deviceVersion: 0, idx, gids: [1], spkiSha256: blob },
        ...{ contentSha256: blob, epoch: 0, notBefore: 0, notAfter: 1, secret: null, requestId: '', tbs: blob, at: 1_800_000_000 },
      })
    }
    expect(await intent(a, 'x', first)).toEqual({ kind: 'recorded' })
    expect(await intent(b, 'y', second)).toEqual({ kind: 'conflict', on: 'idx' })
    expect(await intent(b, 'y', await b.reserveIdx('meters'))).toEqual({ kind: 'recorded' })
    await a.close()
    await b.close()
  })

  it('gives no index twice that was reserved and not yet recorded, whatever makes it look again where the counter stands', async () => {
    const store = await open()
    await store.importManifest('meters', [manifestEntry('x')], auditEntry('manifest_imported'))
    const drawn = [await store.reserveIdx('meters')]
    const { seq, previousSha256, issued } = await store.draftSet('meters', 0)
    const blob = new Uint8Array(32)
    await store.recordSet({
      ...{ fleet: 'meters', set: { kind: 'list', start: 0, length: 0, issuer: null, blocks: [] }, reason: 1, devices: [], issued },
      ...{ at: 1_800_000_000, notices: [{ seq, previousSha256, notice: blob, noticeSha256: blob }] },
      audit: auditEntry('certificates_revoked'),
    })
    drawn.push(await store.reserveIdx('meters'))
    await store.raiseNumbers({ fleets: [{ fleet: 'meters', idx: 1, gid: 1 }], crls: [], audit: auditEntry('store_restored') })
    drawn.push(await store.reserveIdx('meters'))
    expect(new Set(drawn).size).toBe(3)
    await store.close()
  })

  it('several processes draw indices in blocks of their own, above everything that was given out or revoked', async () => {
    const alone = await open()
    await alone.importManifest('meters', [manifestEntry('x')], auditEntry('manifest_imported'))
    const [a, b] = [await open({ shared: true }), await open({ shared: true })]
    const drawn = await Promise.all(Array.from({ length: 600 }, (_, i) => (i % 2 ? a : b).reserveIdx('meters')))
    expect(new Set(drawn).size).toBe(600)
    // What a revocation now says lies above every one of them, and so does what the next process draws.
    const draft = await alone.draftRevocation('meters', 'batch=1', 64, 1_800_000_000)
    expect(draft?.idxNext).toBeGreaterThan(Math.max(...drawn))
    expect(await alone.reserveIdx('meters')).toBeGreaterThan(Math.max(...drawn))
    for (const store of [alone, a, b]) await store.close()
  })

  it('[F68] a full disk stops the store: the write definitely failed, everything after is refused, and a restart has what was acknowledged', async () => {
    const stopped: string[] = []
    const store = await open({ bytesMax: 400_000, onStopped: e => stopped.push(e.code) })
    let acknowledged = 0
    const big = () => Array.from({ length: 100 }, (_, i) => manifestEntry(`device-${acknowledged}-${i}`))
    const failure = await (async () => {
      for (;;) {
        try {
          await store.importManifest('meters', big(), auditEntry('manifest_imported'))
          acknowledged++
        } catch (e) {
          return e
        }
      }
    })()
    expect(failure).toMatchObject({ code: 'store_failed' })
    await expect(store.appendAudit(auditEntry('failure'))).rejects.toMatchObject({ code: 'store_closed' })
    expect(stopped).toEqual(['store_closed'])
    await store.close()
    const again = await open()
    expect((await again.groups('meters'))[0].devices).toBe(acknowledged * 100)
    expect(await again.check()).toEqual([])
    await again.close()
  })

  /** A writer thread that does its work and then dies before the answer is heard, from the `after`-th batch on. */
  function mute(after: number, loseRequest: boolean) {
    return (options: Parameters<typeof spawnWriterThread>[0]): WriterThread => {
      const real = spawnWriterThread(options)
      let batches = 0
      return {
        ...real,
        post(message) {
          if (message !== 'close' && ++batches > after && loseRequest) void real.terminate()
          else real.post(message)
        },
        onMessage: listener =>
          real.onMessage(message => {
            if (message.kind === 'answers' && batches > after) void real.terminate()
            else listener(message)
          }),
      }
    }
  }

  it.each([
    ['persisted', false, 2],
    ['not persisted', true, 1],
  ])(
    'says `unknown` when the answer to a write is lost (%s), refuses onward, and a restart tells',
    async (_, loseRequest, records) => {
      const store = await open({ spawnWriter: mute(1, loseRequest) })
      await store.appendAudit(auditEntry('failure'))
      const away = store.appendAudit(auditEntry('failure'))
      await expect(away).rejects.toMatchObject({ code: 'store_unknown' })
      await expect(store.appendAudit(auditEntry('failure'))).rejects.toMatchObject({ code: 'store_closed' })
      await store.close()
      const again = await open()
      expect(await again.audit(0, 10)).toHaveLength(records)
      expect(await again.check()).toEqual([])
      await again.close()
    },
  )

  it('says what the writer thread ended of', async () => {
    const broken = (options: Parameters<typeof spawnWriterThread>[0]): WriterThread => {
      const real = spawnWriterThread(options)
      // What no writer can work on.
      return { ...real, post: message => real.post(message === 'close' ? message : ({ map: () => 7 } as never)) }
    }
    const store = await open({ spawnWriter: broken })
    const wanted = /writer thread ended: .*map is not a function/
    await expect(store.appendAudit(auditEntry('failure'))).rejects.toThrow(wanted)
    await expect(store.appendAudit(auditEntry('failure'))).rejects.toMatchObject({
      code: 'store_closed',
      message: expect.stringMatching(wanted),
      cause: expect.any(Error),
    })
    await store.close()
  })

  it('bounds the writes that wait', async () => {
    const store = await open({ queueMax: 10 })
    const results = await Promise.allSettled(Array.from({ length: 30 }, () => store.appendAudit(auditEntry('failure'))))
    const refused = results.filter(r => r.status === 'rejected')
    expect(refused).toHaveLength(20)
    expect(refused[0].reason).toMatchObject({ code: 'store_busy' })
    expect(await store.audit(0, 100)).toHaveLength(10)
    await store.close()
  })

  it('fails one bad write of a batch alone', async () => {
    const store = await open()
    const good = Array.from({ length: 5 }, () => store.appendAudit(auditEntry('failure')))
    const bad = store.appendAudit({ ...auditEntry('failure'), code: { not: 'text' } as unknown as string })
    await expect(bad).rejects.toMatchObject({ code: 'store_failed' })
    await Promise.all(good)
    expect(await store.audit(0, 100)).toHaveLength(5)
    expect(await store.check()).toEqual([])
    await store.close()
  })

  it('fails a batch as a whole, and once, while another process does not let go of the lock', async () => {
    const store = await open()
    const other = new DatabaseSync(join(folder, 'store.db'))
    other.exec('BEGIN IMMEDIATE')
    // One by one, each would wait as long as the batch did.
    const away = await Promise.allSettled(Array.from({ length: 10 }, () => store.appendAudit(auditEntry('failure'))))
    expect(away.map(result => result.status === 'rejected' && result.reason.code)).toEqual(Array(10).fill('store_failed'))
    other.close()
    await store.appendAudit(auditEntry('failure'))
    expect(await store.audit(0, 100)).toHaveLength(1)
    await store.close()
  }, 20_000)

  it('[F70] refuses a file with a damaged page at start, and notices a log that was cut off by the end of its audit chain', async () => {
    const store = await open()
    for (let i = 0; i < 4; i++)
      await store.importManifest(
        'meters',
        Array.from({ length: 200 }, (_, n) => manifestEntry(`d-${i}-${n}`)),
        auditEntry('manifest_imported'),
      )
    await store.close()
    const path = join(folder, 'store.db')
    const sound = readFileSync(path)
    const page = sound.readUInt16BE(16)
    let refused = 0
    const pages = sound.length / page
    for (let at = 1; at < pages; at += Math.ceil(pages / 12)) {
      writeFileSync(path, Buffer.concat([sound.subarray(0, at * page), Buffer.alloc(page, 0xa5), sound.subarray((at + 1) * page)]))
      await open({ checkPages: true }).then(
        opened => opened.close(),
        error => {
          expect(error).toMatchObject({ code: 'store_unusable' })
          refused++
        },
      )
    }
    expect(refused).toBe(Math.ceil((pages - 1) / Math.ceil(pages / 12)))
    writeFileSync(path, sound)
    const again = await open({ checkPages: true })
    await again.appendAudit(auditEntry('failure'))
    const end = (await again.numbers([])).audit.n
    // As a crash leaves it: the log holds the last record.
    const log = readFileSync(`${path}-wal`)
    const file = readFileSync(path)
    await again.close()
    writeFileSync(path, file)
    writeFileSync(`${path}-wal`, log.subarray(0, log.length - 100))
    const cut = await open({ checkPages: true })
    expect((await cut.numbers([])).audit.n).toBe(end - 1)
    await cut.close()
  })

  describe('a first import of full chunks', () => {
    const chunk = (from: number, count = 5000) =>
      Array.from({ length: count }, (_, i) =>
        manifestEntry(`d-${String(from + i).padStart(6, '0')}`, [`batch=${(from + i) % 3}`, 'model=x']),
      )
    const index = () => {
      const db = new DatabaseSync(join(folder, 'store.db'), { readOnly: true })
      const found = db.prepare(`SELECT 1 FROM sqlite_schema WHERE name = 'devices_birth_key'`).get() !== undefined
      db.close()
      return found
    }
    const take = (store: Store, entries: ManifestEntry[]) =>
      store.importManifest('meters', entries, auditEntry('manifest_imported'))

    it.each<[string, (store: Store) => Promise<unknown>]>([
      ['the last, shorter chunk', store => take(store, chunk(5000, 10))],
      ['any other write', store => store.appendAudit(auditEntry('failure'))],
      ['a chunk that repeats a device', async store => expect((await take(store, chunk(4990))).unchanged).toBe(10)],
      [
        'a chunk with a birth key that is another device',
        async store =>
          expect((await take(store, [{ ...chunk(9000, 1)[0], spkiSha256: chunk(7, 1)[0].spkiSha256 }])).refused).toHaveLength(1),
      ],
    ])('leaves the index of birth keys for last, and builds it with %s', async (_, next) => {
      const store = await open()
      expect(await take(store, chunk(0))).toMatchObject({ added: 5000, refused: [] })
      expect(index()).toBe(false)
      await next(store)
      expect(index()).toBe(true)
      expect(await store.check()).toEqual([])
      await store.close()
    })

    it('makes no group of a chunk that has more of them than there is room for, but of the rows that are taken', async () => {
      const store = await open()
      const audit = auditEntry('store_restored')
      await store.raiseNumbers({ fleets: [{ fleet: 'meters', idx: 1, gid: groupsPerFleetMax - 2 }], crls: [], audit })
      const rows = chunk(0).map((row, i) => ({ ...row, groups: i === 1 ? ['batch=0', 'one too many'] : ['model=x'] }))
      const { added, refused } = await take(store, rows)
      expect([added, refused.map(r => r.serial)]).toEqual([4999, [rows[1].serial]])
      expect((await store.groups('meters')).map(g => g.name)).toEqual([expect.stringMatching(/^restored=/), 'model=x'])
      expect(await store.check()).toEqual([])
      await store.close()
    })

    it('builds it again when the write that built it is undone with its batch', async () => {
      const store = await open()
      await take(store, chunk(0))
      const wrong = { ...auditEntry('failure'), code: { not: 'text' } as unknown as string }
      const [good, bad] = await Promise.allSettled([store.appendAudit(auditEntry('failure')), store.appendAudit(wrong)])
      expect([good.status, bad.status]).toEqual(['fulfilled', 'rejected'])
      expect(index()).toBe(true)
      await store.close()
    })

    it('builds it at the next opening when the process died in between', async () => {
      const store = await open({ spawnWriter: mute(1, true) })
      await take(store, chunk(0))
      await expect(take(store, chunk(5000))).rejects.toMatchObject({ code: 'store_unknown' })
      await store.close()
      expect(index()).toBe(false)
      const again = await open()
      expect(index()).toBe(true)
      expect(await take(again, chunk(0, 4))).toMatchObject({ unchanged: 4 })
      expect(await again.check()).toEqual([])
      await again.close()
    })
  })

  it('check names what was tampered with', async () => {
    const store = await open()
    await store.importManifest('meters', [manifestEntry('a')], auditEntry('manifest_imported'))
    for (let i = 0; i < 3; i++) await store.appendAudit(auditEntry('failure'))
    const db = new DatabaseSync(join(folder, 'store.db'))
    db.exec(`UPDATE audit SET detail = 'forged' WHERE n = 2; UPDATE groups SET devices = 9`)
    db.close()
    expect(await store.check()).toEqual([
      'a group whose count is wrong: batch=1',
      'audit: record 2 does not follow from the one before',
    ])
    await store.close()
  })
})
