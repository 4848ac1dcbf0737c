// The embedded store: one SQLite file in WAL mode with synchronous=FULL. Writes go to a writer thread in batches, one transaction and one
// fsync for all requests that waited together (sqlite-writer.ts); reads are prepared look-ups on a read-only connection of this thread
// (sqlite-reads.ts). It promises what store.ts says. node:sqlite is imported here and beside only, since not every runtime has it.

import { chmodSync, closeSync, fsyncSync, openSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { Worker } from 'node:worker_threads'
import { EstServerError } from '../errors.ts'
import { gathering } from './gathering.ts'
import { createIdxBlocks } from './idx-blocks.ts'
import { packManifest } from './packed-manifest.ts'
import { approvalReads } from './sqlite-approvals.ts'
import { campaignReads } from './sqlite-campaigns.ts'
import { sqliteCheck } from './sqlite-check.ts'
import { crlReads } from './sqlite-crl.ts'
import { issuancePageReads } from './sqlite-issuance-pages.ts'
import { issuerReads } from './sqlite-issuers.ts'
import { busyTimeoutMs } from './sqlite-lock.ts'
import { packJob, unpackMessage } from './sqlite-message.ts'
import { noticeReads } from './sqlite-notice.ts'
import { numberReads } from './sqlite-numbers.ts'
import { profileSetReads } from './sqlite-profile-sets.ts'
import { readSnapshot, sqliteReads } from './sqlite-reads.ts'
import { revokedListReads } from './sqlite-revoked-lists.ts'
import { scanSqlite } from './sqlite-scan.ts'
import { scepReads } from './sqlite-scep.ts'
import { selectionReads } from './sqlite-selection.ts'
import type { JobAnswer, WriteArgument, WriteJob, WriteName, WriteResult, WriterMessage, WriterOptions } from './sqlite-writer.ts'
import type { Store } from './store.ts'

/** Jobs of one transaction. At 512 the fsync is long paid for and nobody waits more than some 20 ms behind a batch. */
const batchJobsMax = 512

/** What the store needs of the writer thread; a test puts one in between that loses answers or dies. */
export interface WriterThread {
  post(message: WriteJob[] | 'close'): void
  onMessage(listener: (message: WriterMessage) => void): void
  /** `cause`: what it threw, where that is why. */
  onExit(listener: (cause?: Error) => void): void
  terminate(): Promise<unknown>
}

export interface SqliteStoreOptions {
  path: string
  /** Upper bound of the file, so that the store and not the disk says when there is no room. 0: none. */
  bytesMax?: number
  /** Writes that may wait, beyond which `store_busy`. 8,192 is about half a second of a slow disk. */
  queueMax?: number
  /** Other processes issue from the file at the same time: indices come in blocks (idx-blocks.ts) instead of one after the other. */
  shared?: boolean
  /** Told of each transaction of the writer: its writes, seconds from handing it over to its commit, and how many writes wait behind it. */
  onBatch?: (jobs: number, seconds: number, waiting: number) => void
  /** Reads every page before it opens, and refuses a damaged file: for a server's start, some two seconds a gigabyte. */
  checkPages?: boolean
  /** Told once when the store stops for good after a disk error, so that the process can end. */
  onStopped?: (error: EstServerError) => void
  spawnWriter?: (options: WriterOptions) => WriterThread
}

// Beside this file in the sources; in the package this file is part of dist/index.js or of a chunk next to it.
const threadFile = new URL(import.meta.url.endsWith('.ts') ? './sqlite-writer.ts' : './store/sqlite-writer.js', import.meta.url)

export function spawnWriterThread(options: WriterOptions): WriterThread {
  const worker = new Worker(threadFile, { workerData: options })
  const listeners: ((message: WriterMessage) => void)[] = []
  let cause: Error | undefined
  // Uncaught in the thread, which ends of it: 'exit' follows.
  worker.on('error', error => {
    cause = error as Error
  })
  worker.on('message', packed => {
    const message = unpackMessage(packed)
    for (const listener of listeners) listener(message)
  })
  return {
    post: message => worker.postMessage(message === 'close' ? message : message.map(packJob)),
    onMessage: listener => listeners.push(listener),
    onExit: listener => worker.on('exit', () => listener(cause)),
    terminate: () => worker.terminate(),
  }
}

const endOf = (cause?: Error) => `the writer thread ended${cause ? `: ${cause.message}` : ''}`

interface Waiting {
  job: WriteJob
  done: (value: never) => void
  failed: (error: EstServerError) => void
}

/** The queue in front of the writer: at most one batch is away, and everything that arrives meanwhile makes up the next one. */
function writeQueue(
  thread: WriterThread,
  queueMax: number,
  onStopped: (error: EstServerError) => void,
  onBatch: SqliteStoreOptions['onBatch'],
) {
  let sentAt = 0
  let waiting: Waiting[] = []
  let away: Waiting[] = []
  let stopped: EstServerError | null = null
  let idle: (() => void) | null = null

  const send = () => {
    if (stopped || away.length > 0) return
    if (waiting.length === 0) {
      idle?.()
      return
    }
    away = waiting.slice(0, batchJobsMax)
    waiting = waiting.slice(batchJobsMax)
    if (onBatch) sentAt = performance.now()
    thread.post(away.map(w => w.job))
  }

  const gather = gathering(() => waiting.length, send)

  const stop = (unknown: boolean, detail: string, error: EstServerError) => {
    if (stopped) return
    stopped = error
    for (const w of away) w.failed(new EstServerError(unknown ? 'store_unknown' : 'store_failed', detail))
    for (const w of waiting) w.failed(new EstServerError('store_failed', detail))
    away = []
    waiting = []
    idle?.()
    onStopped(error)
  }

  thread.onMessage(message => {
    if (message.kind === 'stopped')
      stop(
        message.unknown,
        message.detail,
        new EstServerError('store_closed', `the store stopped after a disk error (${message.detail})`),
      )
    if (message.kind !== 'answers') return
    const batch = away
    away = []
    onBatch?.(batch.length, (performance.now() - sentAt) / 1000, waiting.length)
    gather.next()
    message.answers.forEach((answer: JobAnswer, i) => {
      if ('failed' in answer) batch[i].failed(new EstServerError('store_failed', answer.failed))
      else batch[i].done(answer.value as never)
    })
  })
  thread.onExit(cause => {
    const detail = endOf(cause)
    // A batch that was away may have been committed before the thread died.
    stop(true, detail, new EstServerError('store_closed', detail, cause))
  })

  return {
    write<N extends WriteName>(name: N, argument: WriteArgument<N>): Promise<WriteResult<N>> {
      return new Promise((done, failed) => {
        if (stopped) return failed(stopped)
        if (waiting.length >= queueMax) return failed(new EstServerError('store_busy', `${waiting.length} writes are waiting`))
        waiting.push({ job: { name, argument }, done: done as (value: never) => void, failed })
        if (away.length === 0) gather.begin()
      })
    },
    /** Settles what was accepted and accepts no more. */
    async close(): Promise<void> {
      if (!stopped && (waiting.length > 0 || away.length > 0))
        await new Promise<void>(done => {
          idle = done
        })
      stopped ??= new EstServerError('store_closed', 'the store was closed')
    },
  }
}

function createFile(path: string): void {
  try {
    // Created here with its final mode: SQLite would follow the umask, and -wal and -shm follow the main file.
    closeSync(openSync(path, 'a', 0o600))
    chmodSync(path, 0o600)
    const folder = openSync(dirname(path), 'r')
    fsyncSync(folder)
    closeSync(folder)
  } catch (error) {
    throw new EstServerError('store_unusable', `${path}: ${(error as Error).message}`, error)
  }
}

type Reader = ReturnType<typeof openReader>

/** What is read here, over two connections: one for what is asked all the time, one for what runs through whole tables. Throws with neither open. */
function openReader(path: string) {
  const connections: DatabaseSync[] = []
  const connect = (cacheKib: number): DatabaseSync => {
    const db = new DatabaseSync(path, { readOnly: true, timeout: busyTimeoutMs })
    connections.push(db)
    db.exec(`PRAGMA cache_size = -${cacheKib}`)
    return db
  }
  const close = () => {
    for (const db of connections) db.close()
  }
  try {
    const reading = connect(65_536)
    const scanning = connect(1024)
    const reads = sqliteReads(reading)
    return {
      reads,
      crls: crlReads(reading, scanning),
      scep: scepReads(reading),
      notices: noticeReads(reading),
      approvals: approvalReads(reading),
      issuers: issuerReads(reading),
      campaigns: campaignReads(reading),
      selection: selectionReads(reading),
      profiles: profileSetReads(reading),
      numbers: numberReads(reading, reads.nextIdx),
      pages: issuancePageReads(scanning),
      sets: revokedListReads(scanning, { nextIdx: reads.nextIdx, rules: reads.rules }),
      snapshot: readSnapshot(reading),
      check: () => sqliteCheck(reading),
      close,
    }
  } catch (error) {
    close()
    throw error
  }
}

/**
 * Opens or creates the store at `path` (mode 0600). Throws `store_unusable` for a file that is not ours, is newer or is damaged.
 * Several processes may have it open; each write holds the lock for one transaction.
 */
export async function openSqliteStore(options: SqliteStoreOptions): Promise<Store> {
  const path = resolve(options.path)
  createFile(path)
  const thread = (options.spawnWriter ?? spawnWriterThread)({
    path,
    bytesMax: options.bytesMax ?? 0,
    checkPages: options.checkPages ?? false,
  })
  const ended = new Promise<void>(done => {
    thread.onExit(() => done())
  })
  await new Promise<void>((ready, unusable) => {
    thread.onMessage(message => {
      if (message.kind === 'ready') ready()
      if (message.kind === 'unusable') unusable(new EstServerError('store_unusable', `${path}: ${message.detail}`))
    })
    thread.onExit(cause => unusable(new EstServerError('store_unusable', `${path}: ${endOf(cause)}`, cause)))
  })
  let reader: Reader
  try {
    reader = openReader(path)
  } catch (error) {
    // The thread would keep the process alive.
    thread.post('close')
    throw new EstServerError('store_unusable', `${path}: ${(error as Error).message}`, error)
  }
  const { reads, crls, scep, notices, approvals, issuers, campaigns, selection, profiles, numbers, pages, sets, snapshot } = reader
  // Before any caller hears that its write is done: what it then reads must show it.
  thread.onMessage(snapshot.end)
  const queue = writeQueue(thread, options.queueMax ?? 8192, options.onStopped ?? (() => {}), options.onBatch)
  const { write } = queue
  let closing: Promise<void> | null = null

  /** Reads are synchronous; a failure is a rejection all the same, and ours. */
  const read = <T>(work: () => T): Promise<T> =>
    readAlone(() => {
      snapshot.begin()
      return work()
    })

  /** Outside the turn's snapshot: sees every commit there is. */
  const readAlone = async <T>(work: () => T): Promise<T> => {
    try {
      return work()
    } catch (error) {
      throw new EstServerError(closing ? 'store_closed' : 'store_failed', `read: ${(error as Error).message}`, error)
    }
  }

  // The counters run ahead of the file by what was reserved and not yet recorded, so they never go back. The unique index is what forbids a
  // second use.
  const counters = new Map<string, number>()
  /** Fleets of whose indices the file may know higher ones than the counter: given out by another process, leased, revoked beforehand by a set or an adopted notice. */
  const outrun = new Set<string>()
  const blocks = options.shared ? createIdxBlocks((fleet, count) => write('leaseIdx', { fleet, count })) : null
  const lookAgain = (fleet: string): void => {
    outrun.add(fleet)
    blocks?.drop(fleet)
  }

  return {
    enrollmentFacts: (fleet, deviceId, spkiSha256, contentSha256) =>
      write('enrollmentFacts', { fleet, deviceId, spkiSha256, contentSha256 }),
    certificate: (issuer, serial) => read(() => reads.certificate(issuer, serial)),
    secret: hash => read(() => reads.secret(hash)),
    reserveIdx(fleet) {
      if (blocks) return blocks.reserve(fleet)
      return read(() => {
        let idx = counters.get(fleet)
        if (idx === undefined || outrun.has(fleet)) idx = Math.max(idx ?? 0, reads.nextIdx(fleet))
        outrun.delete(fleet)
        counters.set(fleet, idx + 1)
        return idx
      })
    },
    admitDevice: device => write('admitDevice', device),
    async recordIntent(intent) {
      const result = await write('recordIntent', intent)
      if (result.kind === 'conflict' && result.on === 'idx') lookAgain(intent.fleet)
      return result
    },
    recordCertificate: issued => write('recordCertificate', issued),
    voidIntent: (issuer, serial, audit) => write('voidIntent', { issuer, serial, audit }),
    openIntents: limit => read(() => reads.openIntents(limit)),
    lastTime: () => read(reads.lastTime),
    raiseFloor: (fleet, id, idx, audit) => write('raiseFloor', { fleet, id, idx, audit }),
    setSuspicion: (fleet, id, suspected, audit) => write('setSuspicion', { fleet, id, suspected, audit }),
    async acceptTime(audit) {
      await write('acceptTime', audit)
    },
    device: (fleet, id) => read(() => reads.device(fleet, id)),
    devices: query => read(() => reads.devices(query)),
    groups: fleet => read(() => reads.groups(fleet)),
    isClosed: (fleet, gids) => read(() => reads.isClosed(fleet, gids)),
    importManifest: async (fleet, entries, audit) =>
      write('importManifest', { fleet, entries: 'serials' in entries ? entries : packManifest(entries), audit }),
    mintSecret: secret => write('mintSecret', secret),
    draftRevocation: (fleet, group, rulesMax, now) =>
      read(() => {
        const draft = reads.draftRevocation(fleet, group, rulesMax, now)
        return draft && { ...draft, idxNext: Math.max(draft.idxNext, counters.get(fleet) ?? 0) }
      }),
    // Of the certificates below its bound it takes those of its group, of which there will be no more: what is left of a block stays good.
    recordRevocation: revocation => write('recordRevocation', revocation),
    rules: fleet => read(() => reads.rules(fleet)),
    outboxPending: (fleet, limit) => read(() => reads.outboxPending(fleet, limit)),
    async outboxDelivered(fleet, seq, at) {
      await write('outboxDelivered', { fleet, seq, at })
    },
    notice: (fleet, seq) => read(() => reads.notice(fleet, seq)),
    newestNotice: fleet => read(() => notices.newestNotice(fleet)),
    recordNotice: notice => write('recordNotice', notice),
    async appendAudit(entry) {
      await write('appendAudit', entry)
    },
    audit: (after, limit) => read(() => reads.audit(after, limit)),
    revocations: fleet => readAlone(() => crls.revocations(fleet)),
    datedRules: fleet => readAlone(() => crls.datedRules(fleet)),
    fleets: () => read(crls.fleets),
    lastIdx: fleet => read(() => crls.lastIdx(fleet)),
    serials: query => read(() => crls.serials(query)),
    standing: (issuer, serial) => read(() => crls.standing(issuer, serial)),
    crlHead: (issuer, list) => read(() => crls.crlHead(issuer, list)),
    crl: (issuer, list) => read(() => crls.crl(issuer, list)),
    reserveCrlNumber: (issuer, at) => write('reserveCrlNumber', { issuer, at }),
    recordCrl: crl => write('recordCrl', crl),
    scepTransaction: (fleet, label, id) => read(() => scep.scepTransaction(fleet, label, id)),
    recordScepTransaction: transaction => write('recordScepTransaction', transaction),
    crlNumbers: () => read(crls.crlNumbers),
    async raiseCrlNumber(issuer, number) {
      await write('raiseCrlNumber', { issuer, number })
    },
    spendToken: token => write('spendToken', token),
    approval: (fleet, deviceId, content) => read(() => approvals.approval(fleet, deviceId, content)),
    approvalById: (fleet, id) => read(() => approvals.approvalById(fleet, id)),
    approvals: query => read(() => approvals.approvals(query)),
    awaitApproval: (request, waitingMax) => write('awaitApproval', { request, waitingMax }),
    decideApproval: decision => write('decideApproval', decision),
    campaigns: query => read(() => campaigns.campaigns(query)),
    campaignSets: (fleet, id) => read(() => campaigns.campaignSets(fleet, id)),
    recordCampaign: (campaign, plansMax) => write('recordCampaign', { campaign, plansMax }),
    moveCampaign: move => write('moveCampaign', move),
    holdsVersion: () => read(campaigns.holdsVersion),
    holds: fleet => read(() => campaigns.holds(fleet)),
    quarantine: (fleet, deviceId) => read(() => campaigns.quarantine(fleet, deviceId)),
    selected: query => read(() => reads.selected(query)),
    freeze: query => scanSqlite(path, 'freeze', query),
    certificatesSince: (fleet, devices, issuedThrough) => scanSqlite(path, 'certificatesSince', { fleet, devices, issuedThrough }),
    withoutCertificate: (devices, now) => scanSqlite(path, 'withoutCertificate', { devices, now }),
    deviceIds: (devices, after, limit) => read(() => selection.deviceIds(devices, after, limit)),
    labelDevices: (fleet, changes, audit) => write('labelDevices', { fleet, changes, audit }),
    labelValues: fleet => read(() => selection.labelValues(fleet)),
    issuerStandings: () => read(issuers.issuerStandings),
    issuerDevices: query => read(() => issuers.issuerDevices(query)),
    recordIssuers: change => write('recordIssuers', change),
    newestProfiles: fleet => read(() => profiles.newestProfiles(fleet)),
    announceProfiles: (set, again, audit) => write('announceProfiles', { set, again, audit }),
    numbers: fleets =>
      read(() => {
        const all = numbers(fleets)
        return { ...all, fleets: all.fleets.map(f => ({ ...f, idx: Math.max(f.idx, counters.get(f.fleet) ?? 0) })) }
      }),
    async raiseNumbers(raised) {
      await write('raiseNumbers', raised)
      for (const { fleet } of raised.fleets) lookAgain(fleet)
    },
    draftSet: (fleet, rulesMax) =>
      readAlone(() => {
        const draft = sets.draftSet(fleet, rulesMax)
        return { ...draft, idxNext: Math.max(draft.idxNext, counters.get(fleet) ?? 0) }
      }),
    revocableDevices: (fleet, ids, now) => readAlone(() => sets.revocableDevices(fleet, ids, now)),
    async recordSet(record) {
      const result = await write('recordSet', record)
      lookAgain(record.fleet)
      return result
    },
    standingSets: fleet => readAlone(() => sets.standingSets(fleet)),
    datedSets: (fleet, after) => readAlone(() => sets.datedSets(fleet, after)),
    readmitDevice: (fleet, id, audit) => write('readmitDevice', { fleet, id, audit }),
    placedSerials: query => read(() => sets.placedSerials(query)),
    placedIssuers: query => read(() => sets.placedIssuers(query)),
    deviceCount: fleet => read(() => sets.deviceCount(fleet)),
    indicesOf: query => read(() => sets.indicesOf(query)),
    async adoptNotice(adopted) {
      const result = await write('adoptNotice', adopted)
      lookAgain(adopted.fleet)
      return result
    },
    issuances: (after, limit) => read(() => pages.issuances(after, limit)),
    notices: (fleet, after, limit) => read(() => pages.notices(fleet, after, limit)),
    check: () => read(reader.check),
    close() {
      closing ??= (async () => {
        await queue.close()
        snapshot.end()
        reader.close()
        thread.post('close')
        await ended
      })()
      return closing
    },
  }
}
