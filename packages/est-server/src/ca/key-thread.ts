// An RSA private key in a thread of its own that the operating system runs after everything else: an operation takes half a millisecond, in which
// whoever answers requests would do nothing else. Promises: what arrives together is done together, and costs two messages; what fails, fails alone;
// a thread that ends is followed by another, and no job is given to both.

import { Worker } from 'node:worker_threads'
import type { Bytes } from '@birthmark/device-sdk/core'
import { EstServerError } from '../errors.ts'
import type { LoopTurns } from '../loop-turns.ts'
import { monotonicClock } from '../monotonic-clock.ts'
import type { Log, TimerClock } from '../ports.ts'
import type { KeyAnswer, KeyBatch, KeyJob, KeyOptions } from './key-worker.ts'

/** What a key in a thread is lent; without it by its own timers and in silence. */
export interface KeyThreadPorts {
  /** Times the opening of another thread. */
  clock?: TimerClock | undefined
  /** Told of a thread that ends and of the next one that serves. */
  log?: Log | undefined
  /** For whom the thread makes way between two operations; for nobody unless told. */
  loopTurns?: Pick<LoopTurns, 'isCalm'> | undefined
}

export interface KeyThread {
  /** As RaKey's. Rejects with `issuer_failed`, `store_busy`. */
  decrypt(encryptedKey: Bytes, oaep: 'sha256' | 'sha384' | 'sha512' | null, bytes: number): Promise<Bytes>
  /** Signature in X.509 form. `algorithm`: a name of device-sdk/core for RSA. Rejects likewise. */
  sign(algorithm: string, message: Bytes): Promise<Bytes>
  /** Why nothing is done now, in a sentence; null when all is well. */
  unready(): string | null
  close(): Promise<void>
}

/** Jobs that may wait: at 2 a request and 0.6 ms each, about 0.6 s. Beyond it the client is told to come back. */
const waitingMax = 1024
/** Jobs of one batch, some eight milliseconds. */
const batchJobsMax = 16

// Beside this file in the sources; in the package this file is part of dist/index.js or of a chunk next to it.
const threadFile = new URL(import.meta.url.endsWith('.ts') ? './key-worker.ts' : './ca/key-worker.js', import.meta.url)

/** Before another thread is opened: at first not to be noticed by a client that comes back; at last often enough, and no load. */
const pauseSecondsMin = 0.2
const pauseSecondsMax = 30
/** A thread that lived so long did not end from how it was opened. */
const soundSeconds = 60

/** `privateKeyPem`: PKCS#8 of an RSA key, not encrypted. `name`: whose key it is, for errors and log. */
export function keyThread({
  name,
  clock = monotonicClock,
  log,
  loopTurns,
  ...workerData
}: KeyOptions & KeyThreadPorts & { name: string }): KeyThread {
  const jobs = jobQueue(name, () => loopTurns?.isCalm() ?? true)
  let worker: Worker | null = null
  let gone: string | null = null
  let closed = false
  let pauseSeconds = pauseSecondsMin
  let cancel = () => {}

  function lost(livedSeconds: number, cause: Error): void {
    if (closed) return
    gone = `the ${name} key's thread ended: ${cause.message}`
    // A job that was away may have been done: whoever asked decides whether to ask again. Nothing here does.
    jobs.refuse(new EstServerError('issuer_failed', gone, cause))
    if (livedSeconds >= soundSeconds) pauseSeconds = pauseSecondsMin
    log?.error({ key: name, err: cause, againSeconds: pauseSeconds }, "a key's thread ended; another one is opened")
    cancel = clock.setTimer(pauseSeconds, open)
    pauseSeconds = Math.min(pauseSeconds * 2, pauseSecondsMax)
  }

  function open(): void {
    const openedAt = clock.now()
    // Of OpenSSL or the runtime, which quote no key: whoever handed this one in has read it before.
    let cause: Error | null = null
    try {
      worker = new Worker(threadFile, { workerData })
    } catch (error) {
      lost(0, error as Error)
      return
    }
    // An idle key keeps no process alive.
    worker.unref()
    worker.on('message', (answers: KeyAnswer[]) => {
      // What was under way then was refused, and what a thread says last is still read.
      if (closed) return
      // The first thing a thread says is that it has its key.
      if (answers.length > 0) return jobs.answered(answers)
      if (gone === null) return
      gone = null
      jobs.give(worker as Worker)
      log?.info({ key: name }, "a key's thread serves again")
    })
    worker.once('error', error => {
      cause = error as Error
    })
    worker.once('exit', code => lost(clock.now() - openedAt, cause ?? new Error(`exit code ${code}`)))
    // What is asked of the first one waits in its port; of a later one nobody knows whether it comes to life.
    if (gone === null) jobs.give(worker)
  }
  open()

  return {
    decrypt: (encryptedKey, oaep, bytes) =>
      jobs.ask({ kind: 'decrypt', bytes: encryptedKey, algorithm: oaep ?? '', length: bytes }),
    sign: (algorithm, message) => jobs.ask({ kind: 'sign', bytes: message, algorithm, length: 0 }),
    unready: () => gone,
    async close() {
      closed = true
      cancel()
      jobs.refuse(new EstServerError('issuer_failed', `the ${name} key was closed`))
      await worker?.terminate()
    },
  }
}

interface Waiting {
  job: KeyJob
  done: (value: Bytes) => void
  failed: (error: Error) => void
}

/**
 * The queue in front of the thread: at most one batch is away, and what arrives meanwhile makes up the next one. Requests that were answered
 * together ask the store together, which then pays for one transaction; a message for each job would cost a tenth of the job.
 */
function jobQueue(name: string, isCalm: () => boolean) {
  let worker: Worker | null = null
  /** Why nothing is asked of it. */
  let refusal: EstServerError | null = null
  let waiting: Waiting[] = []
  let away: Waiting[] = []
  let scheduled = false
  const send = () => {
    scheduled = false
    if (!worker || away.length > 0 || waiting.length === 0) return
    away = waiting.slice(0, batchJobsMax)
    waiting = waiting.slice(batchJobsMax)
    worker.ref()
    worker.postMessage({ jobs: away.map(({ job }) => job), makeWay: !isCalm() } satisfies KeyBatch)
  }
  /** At the end of this turn of the event loop, which may have more. */
  const schedule = () => {
    if (scheduled) return
    scheduled = true
    setImmediate(send)
  }
  return {
    /** From here on it is asked of `thread`. */
    give(thread: Worker) {
      worker = thread
      refusal = null
    },
    /** Rejects what is away, what waits and what comes. */
    refuse(error: EstServerError) {
      worker = null
      refusal = error
      const over = [...away, ...waiting]
      away = []
      waiting = []
      for (const { failed } of over) failed(error)
    },
    answered(answers: KeyAnswer[]) {
      const batch = away
      away = []
      if (waiting.length > 0) send()
      else worker?.unref()
      answers.forEach((value, i) => {
        if (value) batch[i].done(value)
        else batch[i].failed(new EstServerError('issuer_failed', `the ${name} key did not sign`))
      })
    },
    ask: (job: KeyJob): Promise<Bytes> =>
      new Promise((done, failed) => {
        if (refusal) return failed(refusal)
        if (waiting.length >= waitingMax)
          return failed(new EstServerError('store_busy', `${waiting.length} operations of the ${name} key are waiting`))
        // A view takes all of the buffer behind it along, which is what the socket read: 64 KB for a key of 256 octets.
        waiting.push({ job: { ...job, bytes: new Uint8Array(job.bytes) }, done, failed })
        if (away.length === 0) schedule()
      }),
  }
}
