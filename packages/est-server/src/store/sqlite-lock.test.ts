import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { Worker } from 'node:worker_threads'
import { afterEach, expect, it } from 'vitest'
import { beginWriting, busyTimeoutMs } from './sqlite-lock.ts'

const folder = mkdtempSync(join(tmpdir(), 'birthmark-lock-'))
afterEach(() => rmSync(folder, { recursive: true, force: true }))

it('a writer gets the lock that another holds again and again, and waits for all else as long as before', async () => {
  const path = join(folder, 'a.db')
  const db = new DatabaseSync(path, { timeout: busyTimeoutMs })
  db.exec('PRAGMA journal_mode = WAL; CREATE TABLE t (k INTEGER)')
  // Takes the lock, holds it 20 ms, and takes it again at once.
  const other = new Worker(
    `const { DatabaseSync } = require('node:sqlite'); const { workerData, parentPort } = require('node:worker_threads')
     const db = new DatabaseSync(workerData, { timeout: 5000 }); const cell = new Int32Array(new SharedArrayBuffer(4)); let going = true
     parentPort.on('message', () => { going = false })
     const hold = () => { db.exec('BEGIN IMMEDIATE'); db.exec('INSERT INTO t VALUES (0)'); Atomics.wait(cell, 0, 0, 20); db.exec('COMMIT')
       if (going) setImmediate(hold); else { db.close(); parentPort.close() } }
     hold(); parentPort.postMessage('held')`,
    { eval: true, workerData: path },
  )
  await new Promise(resolve => other.once('message', resolve))
  for (let i = 1; i <= 20; i++) {
    beginWriting(db)
    db.exec(`INSERT INTO t VALUES (${i}); COMMIT`)
  }
  expect(Object.values(db.prepare('PRAGMA busy_timeout').get()!)).toEqual([busyTimeoutMs])
  other.postMessage('end')
  await new Promise(resolve => other.once('exit', resolve))
  expect(db.prepare('SELECT count(*) AS n FROM t WHERE k > 0').get()).toEqual({ n: 20 })
  db.exec('BEGIN IMMEDIATE')
  // Not busy: an error of its own is thrown at once.
  expect(() => beginWriting(db)).toThrow(/transaction/)
  db.close()
})
