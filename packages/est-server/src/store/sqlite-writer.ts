// The thread that owns the one writing connection. It takes a batch of writes, runs them in one transaction, and answers after COMMIT:
// one fsync for all requests that waited together. A write that throws is run again by itself, so that it fails alone.
// A disk error ends the thread's work for good: after a failed fsync nobody knows what the medium holds.

import { DatabaseSync } from 'node:sqlite'
import { parentPort, workerData } from 'node:worker_threads'
import { beginWriting, busyTimeoutMs, primaryCode } from './sqlite-lock.ts'
import { type packJob, packMessage, unpackJob } from './sqlite-message.ts'
import { migrate, writerCache } from './sqlite-schema.ts'
import { type WriteSession, type Writes, writeSession } from './sqlite-writes.ts'

export type WriteName = keyof Writes
export type WriteArgument<N extends WriteName> = Parameters<Writes[N]>[0]
export type WriteResult<N extends WriteName> = ReturnType<Writes[N]>

export interface WriteJob {
  name: WriteName
  argument: WriteArgument<WriteName>
}

export type JobAnswer = { value: WriteResult<WriteName> } | { failed: string }

export type WriterMessage =
  | { kind: 'ready' }
  | { kind: 'unusable'; detail: string }
  | { kind: 'answers'; answers: JobAnswer[] }
  /** `unknown`: the batch may have been committed. The writer takes no further batch. */
  | { kind: 'stopped'; unknown: boolean; detail: string }

export interface WriterOptions {
  path: string
  /** Upper bound of the file, 0 for none. */
  bytesMax: number
  /** Reads every page first: some two seconds a gigabyte. */
  checkPages?: boolean
}

/** Opens the writing connection with the pragmas every promise of the store hangs on. */
export function openWriting(options: WriterOptions): DatabaseSync {
  // Another process (an operator's command beside the server) may hold the lock for the length of one transaction.
  const db = new DatabaseSync(options.path, { timeout: busyTimeoutMs })
  db.exec('PRAGMA journal_mode = WAL')
  db.exec('PRAGMA synchronous = FULL')
  db.exec('PRAGMA foreign_keys = ON')
  // A WAL that a long reader once made grow is cut back to 64 MiB at the next checkpoint.
  db.exec('PRAGMA journal_size_limit = 67108864')
  db.exec(writerCache)
  // 16 MB: a page that many commits write goes to the file once, and the first part of the log's index still holds all of them.
  db.exec('PRAGMA wal_autocheckpoint = 4000')
  if (options.checkPages) {
    const found = Object.values(db.prepare('PRAGMA quick_check(1)').get() as object)[0]
    if (found !== 'ok') throw new Error(`the file is damaged: ${found}`)
  }
  migrate(db)
  if (options.bytesMax > 0) {
    const page = Object.values(db.prepare('PRAGMA page_size').get() as object)[0] as number
    db.exec(`PRAGMA max_page_count = ${Math.max(1, Math.floor(options.bytesMax / page))}`)
  }
  return db
}

// SQLite's primary result codes of a medium or a file that cannot be trusted: NOMEM, READONLY, IOERR, CORRUPT, FULL, CANTOPEN, NOTADB.
const diskErrors = [7, 8, 10, 11, 13, 14, 26]

/** Runs one batch. The connection is left without an open transaction. */
export function runBatch(db: DatabaseSync, session: WriteSession, jobs: WriteJob[]): WriterMessage {
  let begun = false
  let committing = false
  const transaction = (work: () => JobAnswer[]): JobAnswer[] => {
    // Questions alone need no lock, and another process need not wait for them.
    if (jobs.every(job => job.name === 'enrollmentFacts')) db.exec('BEGIN')
    else beginWriting(db)
    begun = true
    const answers = work()
    session.settle()
    committing = true
    db.exec('COMMIT')
    return answers
  }
  const run = (job: WriteJob): JobAnswer => {
    if (job.name !== 'importManifest' && job.name !== 'enrollmentFacts') session.endImport()
    return { value: (session.writes[job.name] as (a: unknown) => WriteResult<WriteName>)(job.argument) }
  }
  /** Undoes what is open; a message when the medium can no longer be trusted. */
  const undo = (error: unknown): WriterMessage | null => {
    session.forget()
    if (db.isTransaction) db.exec('ROLLBACK')
    // A full disk is noticed before COMMIT has written its mark; any other error in COMMIT leaves the mark in doubt.
    const code = primaryCode(error)
    const unknown = committing && code !== 13 && code !== 5
    return diskErrors.includes(code) || unknown ? { kind: 'stopped', unknown, detail: String(error) } : null
  }
  try {
    return { kind: 'answers', answers: transaction(() => jobs.map(run)) }
  } catch (error) {
    const stopped = undo(error)
    if (stopped) return stopped
    // Without the lock none of them was tried, and each by itself would wait for it as long as all did together.
    if (!begun || jobs.length === 1) return { kind: 'answers', answers: jobs.map(() => ({ failed: String(error) })) }
    // Once more, each in a transaction of its own.
    const answers: JobAnswer[] = []
    for (const job of jobs) {
      const alone = runBatch(db, session, [job])
      // What came before is committed, but the batch is answered as a whole: the caller must read before trying again.
      if (alone.kind !== 'answers') return answers.length > 0 && alone.kind === 'stopped' ? { ...alone, unknown: true } : alone
      answers.push(alone.answers[0])
    }
    return { kind: 'answers', answers }
  }
}

function serve(port: NonNullable<typeof parentPort>): void {
  let db: DatabaseSync
  try {
    db = openWriting(workerData as WriterOptions)
  } catch (error) {
    port.postMessage({ kind: 'unusable', detail: error instanceof Error ? error.message : String(error) } satisfies WriterMessage)
    port.close()
    return
  }
  const session = writeSession(db)
  port.postMessage({ kind: 'ready' } satisfies WriterMessage)
  port.on('message', (packed: ReturnType<typeof packJob>[] | 'close') => {
    if (packed === 'close') {
      db.close()
      port.close()
      return
    }
    const jobs = packed.map(unpackJob)
    let answer: WriterMessage
    try {
      answer = runBatch(db, session, jobs)
    } catch (error) {
      // Not even the rollback worked.
      answer = { kind: 'stopped', unknown: true, detail: String(error) }
    }
    port.postMessage(packMessage(answer, jobs))
    // The connection stays open, unused, until the thread is told to close: closing would checkpoint onto the same medium.
  })
}

if (parentPort) serve(parentPort)
