// The line of writes to PostgreSQL: everything that waits goes into one transaction, one COMMIT for all, and what arrives meanwhile makes up
// the next. Issuances and audit records of a batch are written as sets; rarer writes run one by one inside the same transaction. A write
// that throws takes the batch back, and each is run again by itself, so that it fails alone.

import type { Client } from 'pg'
import { EstServerError } from '../errors.ts'
import { auditHash, boundEntry } from './audit-chain.ts'
import { gathering } from './gathering.ts'
import { byteaArray, int8Array, textArray } from './postgres-array.ts'
import type { PostgresHolds } from './postgres-campaigns.ts'
import { isServerTrouble, sqlState } from './postgres-connection.ts'
import { dropHeldIntents, recordCertificates, recordIntents } from './postgres-issuance.ts'
import type { AuditEntry, IntentConflict, IssuanceIntent, IssuedRecord } from './store.ts'

/** Jobs of one transaction: as for SQLite. */
const batchJobsMax = 512

/** A transaction that holds the line, as a write sees it. */
export interface Transaction {
  rows<Row>(name: string, sql: string, values?: unknown[]): Promise<Row[]>
  /** How many rows the statement changed. */
  run(name: string, sql: string, values?: unknown[]): Promise<number>
  /** Appends to the audit chain; the store's clock moves to its time. */
  audit(entry: AuditEntry): void
  /** Appends to the audit chain, and leaves the clock: anybody can be refused. */
  record(entry: AuditEntry): void
  /** Moves the clock without a record. */
  moveTime(at: number): void
  /** Puts the clock where an operator says. */
  setTime(at: number): void
}

export type IntentResult = { kind: 'recorded' } | { kind: 'conflict'; on: IntentConflict }

export type PostgresJob =
  | { kind: 'intent'; argument: IssuanceIntent }
  | { kind: 'certificate'; argument: IssuedRecord }
  | { kind: 'work'; work: (tx: Transaction) => Promise<unknown> | unknown }

interface Waiting {
  job: PostgresJob
  done: (value: never) => void
  failed: (error: EstServerError) => void
}

/** The end of the audit chain as it was last acknowledged to this process. */
export interface AuditHead {
  n: number
  hash: Uint8Array
}

interface HeadRow {
  holds_version: number
  audit_n: number
  audit_hash: Uint8Array
  clock_at: number
}

export interface PostgresWriterOptions {
  queueMax: number
  holds: PostgresHolds
  /** As for SQLite: writes of a transaction, seconds to its commit, writes that wait behind it. */
  onBatch: ((jobs: number, seconds: number, waiting: number) => void) | undefined
  /** The connection cannot be used any further. `fork`: the database is not the one that acknowledged the last write. */
  onBroken: (error: EstServerError, fork: boolean) => void
}

export interface PostgresWriter {
  write(job: PostgresJob): Promise<unknown>
  /** From now on writes go here. */
  attach(client: Client): void
  /** Writes under way are settled as what they are; later ones fail at once, until the next attach(). */
  detach(error: EstServerError): void
  readonly acknowledged: AuditHead | null
  /** Settles what was accepted and accepts no more. */
  close(): Promise<void>
}

type Answer = { value: unknown } | { failed: EstServerError }

class BrokenConnection extends Error {
  readonly fork: boolean
  constructor(detail: string, fork = false) {
    super(detail)
    this.fork = fork
  }
}

/** Waits for every one, then throws what the first failed with. */
async function settled(all: Promise<unknown>[]): Promise<void> {
  for (const one of await Promise.allSettled(all)) if (one.status === 'rejected') throw one.reason
}

const text = (error: unknown) => (error instanceof Error ? error.message : String(error))

/** Runs a batch in one transaction. Throws BrokenConnection, by `committing.sent` before or after COMMIT was on its way. */
async function runBatch(
  client: Client,
  jobs: PostgresJob[],
  seen: { head: AuditHead | null },
  committing: { sent: boolean },
  holds: PostgresHolds,
): Promise<Answer[]> {
  const entries: AuditEntry[] = []
  let latestTime = -1
  let forcedTime: number | null = null
  const tx: Transaction = {
    rows: async (name, sql, values = []) => (await client.query({ name, text: sql, values })).rows,
    run: async (name, sql, values = []) => (await client.query({ name, text: sql, values })).rowCount ?? 0,
    audit(entry) {
      entries.push(entry)
      latestTime = Math.max(latestTime, entry.at)
    },
    record: entry => void entries.push(entry),
    moveTime(at) {
      latestTime = Math.max(latestTime, at)
    },
    setTime(at) {
      forcedTime = at
    },
  }
  committing.sent = false
  const values: unknown[] = new Array(jobs.length)
  try {
    // Not awaited one by one: the statements travel together and the server takes them in order.
    const begun = client.query('BEGIN')
    const locked = client.query<HeadRow>({
      name: 'head',
      text: 'SELECT audit_n, audit_hash, clock_at, holds_version FROM head FOR UPDATE',
    })
    const indexed = jobs.map((job, i) => ({ job, i }))
    const put = (i: number, value: unknown) => {
      values[i] = value
    }
    const certificates = indexed.flatMap(({ job, i }) => (job.kind === 'certificate' ? [{ ...job, i }] : []))
    const intents = indexed.flatMap(({ job, i }) => (job.kind === 'intent' ? [{ ...job, i }] : []))
    // Before the intents: a certificate that is ready is worth more than a new attempt that would void it.
    const sets = [recordCertificates(tx, certificates, put), recordIntents(tx, intents, put)]
    // All of them, also behind a failure: nothing of this batch may be sent after its ROLLBACK.
    await settled([begun, locked, ...sets])
    const lock = await locked
    if (intents.length > 0) await dropHeldIntents(tx, intents, values, await holds.at(lock.rows[0].holds_version, tx.rows), put)
    for (const { job, i } of indexed) if (job.kind === 'work') put(i, await job.work(tx))

    const head = lock.rows[0]
    // What was acknowledged must still be there. A server that failed over to a copy without it, or that was restored, is another database.
    if (
      seen.head &&
      (head.audit_n < seen.head.n || (head.audit_n === seen.head.n && Buffer.compare(head.audit_hash, seen.head.hash) !== 0))
    )
      throw new BrokenConnection(
        `the database ends at audit record ${head.audit_n} and this server was acknowledged record ${seen.head.n}: it is an older copy or a fork`,
        true,
      )
    const end = appendAudit(client, entries, head, forcedTime ?? Math.max(latestTime, head.clock_at))
    const warnings: string[] = []
    const onNotice = (notice: { severity?: string | undefined; message?: string | undefined }) => {
      if (notice.severity === 'WARNING') warnings.push(notice.message ?? '')
    }
    client.on('notice', onNotice)
    committing.sent = true
    const committed = client.query('COMMIT')
    try {
      await settled([end.written, committed.catch(() => {})])
    } finally {
      client.off('notice', onNotice)
    }
    const commit = await committed.catch(error => {
      // A conflict is the server's word that nothing happened; behind anything else the commit may stand.
      throw /^(23|40)/.test(sqlState(error) ?? '') ? error : new BrokenConnection(text(error))
    })
    // COMMIT of a failed transaction answers ROLLBACK.
    if (commit.command !== 'COMMIT') throw new BrokenConnection(`COMMIT was answered by ${commit.command}`)
    // "canceling wait for synchronous replication": committed here, and on no standby.
    const unreplicated = warnings.find(w => /synchronous replication/.test(w))
    if (unreplicated) throw new BrokenConnection(unreplicated)
    seen.head = end.head
    return values.map(value => ({ value }))
  } catch (error) {
    if (error instanceof BrokenConnection) throw error
    const state = sqlState(error)
    if (state === null || isServerTrouble(state)) throw new BrokenConnection(text(error))
    await client.query('ROLLBACK').catch(broken => {
      throw new BrokenConnection(text(broken))
    })
    // The server says that it did not happen; a COMMIT behind a failed statement rolled back.
    committing.sent = false
    if (jobs.length === 1) return [{ failed: new EstServerError('store_failed', text(error), error) }]
    const answers: Answer[] = []
    for (const job of jobs) {
      try {
        answers.push(...(await runBatch(client, [job], seen, committing, holds)))
      } catch (broken) {
        // What came before is committed, but the batch is answered as a whole: the caller must read before trying again.
        committing.sent ||= answers.length > 0
        throw broken
      }
    }
    return answers
  }
}

const auditInsert = `INSERT INTO audit (n, at, kind, request_id, fleet, device, "by", code, detail, hash)
  SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::bytea[])`

function appendAudit(
  client: Client,
  entries: AuditEntry[],
  from: HeadRow,
  time: number,
): { head: AuditHead; written: Promise<unknown> } {
  let n = from.audit_n
  let hash: Uint8Array = from.audit_hash
  if (entries.length === 0) {
    const head = { n, hash }
    if (time === from.clock_at) return { head, written: Promise.resolve() }
    return { head, written: client.query({ name: 'clock', text: 'UPDATE head SET clock_at = $1', values: [time] }) }
  }
  const numbers: number[] = []
  const hashes: Uint8Array[] = []
  const bounded = entries.map(boundEntry)
  for (const e of bounded) {
    n++
    hash = auditHash(hash, n, e)
    numbers.push(n)
    hashes.push(hash)
  }
  const texts = (['kind', 'requestId', 'fleet', 'device', 'by', 'code', 'detail'] as const).map(name =>
    textArray(bounded.map(e => e[name])),
  )
  const values = [int8Array(numbers), int8Array(bounded.map(e => e.at)), ...texts, byteaArray(hashes)]
  const inserted = client.query({ name: 'audit', text: auditInsert, values })
  const moved = client.query({
    name: 'move',
    text: 'UPDATE head SET audit_n = $1, audit_hash = $2, clock_at = $3',
    values: [n, hash, time],
  })
  return { head: { n, hash }, written: Promise.all([inserted, moved]) }
}

export function postgresWriter(options: PostgresWriterOptions): PostgresWriter {
  const { queueMax, onBatch, onBroken } = options
  const waiting: Waiting[] = []
  const seen: { head: AuditHead | null } = { head: null }
  let client: Client | null = null
  let away = false
  let refusing: EstServerError | null = null
  let closed = false
  let idle: (() => void) | null = null

  const refuseWaiting = (error: EstServerError) => {
    for (const w of waiting.splice(0)) w.failed(new EstServerError('store_failed', error.message.replace(/^\w+: /, ''), error))
    idle?.()
  }

  const send = async (): Promise<void> => {
    const connection = client
    if (away || connection === null) return
    const batch = waiting.splice(0, batchJobsMax)
    if (batch.length === 0) {
      idle?.()
      return
    }
    away = true
    const committing = { sent: false }
    const sentAt = performance.now()
    let answers: Answer[]
    try {
      answers = await runBatch(
        connection,
        batch.map(w => w.job),
        seen,
        committing,
        options.holds,
      )
    } catch (error) {
      const fork = error instanceof BrokenConnection && error.fork
      const detail = text(error)
      // Nothing is committed before COMMIT is sent; after it, only the database knows.
      for (const w of batch) w.failed(new EstServerError(committing.sent ? 'store_unknown' : 'store_failed', detail, error))
      away = false
      client = null
      refusing = new EstServerError(fork ? 'store_closed' : 'store_failed', detail, error)
      refuseWaiting(refusing)
      onBroken(refusing, fork)
      return
    }
    away = false
    onBatch?.(batch.length, (performance.now() - sentAt) / 1000, waiting.length)
    gather.next()
    answers.forEach((answer, i) => {
      if ('failed' in answer) batch[i].failed(answer.failed)
      else batch[i].done(answer.value as never)
    })
  }

  const gather = gathering(
    () => waiting.length,
    () => void send(),
  )

  return {
    write: job =>
      new Promise((done, failed) => {
        if (refusing) return failed(refusing)
        if (waiting.length >= queueMax) return failed(new EstServerError('store_busy', `${waiting.length} writes are waiting`))
        waiting.push({ job, done: done as (value: never) => void, failed })
        if (!away) gather.begin()
      }),
    attach(next) {
      client = next
      if (!closed) refusing = null
    },
    detach(error) {
      refusing ??= error
      client = null
      refuseWaiting(error)
    },
    get acknowledged() {
      return seen.head
    },
    async close() {
      closed = true
      if (client && (waiting.length > 0 || away))
        await new Promise<void>(done => {
          idle = done
        })
      refusing = new EstServerError('store_closed', 'the store was closed')
    },
  }
}
