// An RSA private key in a thread of its own that the operating system runs after everything else: an operation takes half a millisecond, in which
// whoever answers requests would do nothing else. Promises: what arrives together is done together, and costs two messages; what fails, fails alone.

import { Worker } from 'node:worker_threads'
import type { Bytes } from '@birthmark/device-sdk/core'
import { EstServerError } from '../errors.ts'
import type { KeyAnswer, KeyJob, KeyOptions } from './key-worker.ts'

export interface KeyThread {
  /** As RaKey's. Rejects with `issuer_failed`, `store_busy`. */
  decrypt(encryptedKey: Bytes, oaep: 'sha256' | 'sha384' | 'sha512' | null, bytes: number): Promise<Bytes>
  /** Signature in X.509 form. `algorithm`: a name of device-sdk/core for RSA. Rejects likewise. */
  sign(algorithm: string, message: Bytes): Promise<Bytes>
  close(): Promise<void>
}

/** Jobs that may wait: at 2 a request and 0.6 ms each, about 0.6 s. Beyond it the client is told to come back. */
const waitingMax = 1024
/** Jobs of one batch, some eight milliseconds. */
const batchJobsMax = 16

// Beside this file in the sources; in the package this file is part of dist/index.js or of a chunk next to it.
const threadFile = new URL(import.meta.url.endsWith('.ts') ? './key-worker.ts' : './ca/key-worker.js', import.meta.url)

/** `privateKeyPem`: PKCS#8 of an RSA key, not encrypted. `name`: whose key it is, for the errors. */
export function keyThread({ name, ...workerData }: KeyOptions & { name: string }): KeyThread {
  const worker = new Worker(threadFile, { workerData })
  // An idle key keeps no process alive.
  worker.unref()
  const { ask, end } = jobQueue(worker, name)
  return {
    decrypt: (encryptedKey, oaep, bytes) => ask({ kind: 'decrypt', bytes: encryptedKey, algorithm: oaep ?? '', length: bytes }),
    sign: (algorithm, message) => ask({ kind: 'sign', bytes: message, algorithm, length: 0 }),
    async close() {
      end(new EstServerError('issuer_failed', `the ${name} key was closed`))
      await worker.terminate()
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
function jobQueue(worker: Worker, name: string) {
  let waiting: Waiting[] = []
  let away: Waiting[] = []
  let scheduled = false
  let ended: EstServerError | null = null
  const end = (error: EstServerError) => {
    ended ??= error
    for (const { failed } of [...away, ...waiting]) failed(error)
    away = []
    waiting = []
  }
  const send = () => {
    scheduled = false
    if (ended || away.length > 0 || waiting.length === 0) return
    away = waiting.slice(0, batchJobsMax)
    waiting = waiting.slice(batchJobsMax)
    worker.ref()
    worker.postMessage(away.map(({ job }) => job))
  }
  /** At the end of this turn of the event loop, which may have more. */
  const schedule = () => {
    if (scheduled) return
    scheduled = true
    setImmediate(send)
  }
  worker.on('message', (answers: KeyAnswer[]) => {
    const batch = away
    away = []
    if (waiting.length > 0) send()
    else worker.unref()
    answers.forEach((value, i) => {
      if (value) batch[i].done(value)
      else batch[i].failed(new EstServerError('issuer_failed', `the ${name} key did not sign`))
    })
  })
  worker.on('error', () => {})
  worker.on('exit', () => end(new EstServerError('issuer_failed', `the ${name} key's thread ended`)))
  return {
    end,
    ask: (job: KeyJob): Promise<Bytes> =>
      new Promise((done, failed) => {
        if (ended) return failed(ended)
        if (waiting.length >= waitingMax)
          return failed(new EstServerError('store_busy', `${waiting.length} operations of the ${name} key are waiting`))
        // A view takes all of the buffer behind it along, which is what the socket read: 64 KB for a key of 256 octets.
        waiting.push({ job: { ...job, bytes: new Uint8Array(job.bytes) }, done, failed })
        if (away.length === 0) schedule()
      }),
  }
}
