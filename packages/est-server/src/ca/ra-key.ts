// The registration authority's key: it signs SCEP's answers and decrypts its requests, and is never the issuer's (RFC 8894 2.1.2). A private
// RSA operation takes half a millisecond, in which EST would wait: the software key lives in a thread of its own that the operating system
// runs after everything else. A key in an HSM is another maker of the same shape.

import { createPrivateKey, createPublicKey } from 'node:crypto'
import { Worker } from 'node:worker_threads'
import {
  type Bytes,
  type Certificate,
  DIGITAL_SIGNATURE,
  decodePem,
  equalBytes,
  parseCertificate,
} from '@birthmark/device-sdk/core'
import { EstServerError } from '../errors.ts'
import type { RaAnswer, RaJob, RaOptions } from './ra-worker.ts'

/** RFC 5280 4.2.1.3, bit 2. */
const KEY_ENCIPHERMENT = 4

export interface RaKey {
  readonly certificate: Certificate
  /**
   * The content key of a message, of exactly `bytes` octets. RSAES-PKCS1-v1_5 and OAEP with SHA-2 in the shape of RFC 8017 7. It never says that
   * a decryption failed: what comes back is then random, and the content under it will not be sound (FAULTS 33).
   */
  decrypt(encryptedKey: Bytes, oaep: 'sha256' | 'sha384' | 'sha512' | null, bytes: number): Promise<Bytes>
  /** Signature in X.509 form. `algorithm`: a name of device-sdk/core for RSA. */
  sign(algorithm: string, message: Bytes): Promise<Bytes>
  close(): Promise<void>
}

/** Jobs that may wait: at 2 a request and 0.6 ms each, about 0.6 s. Beyond it the client is told to come back. */
const waitingMax = 1024
/** Jobs of one batch, some two milliseconds. */
const batchJobsMax = 4

// Beside this file in the sources; in the package this file is part of dist/index.js or of a chunk next to it.
const threadFile = new URL(import.meta.url.endsWith('.ts') ? './ra-worker.ts' : './ca/ra-worker.js', import.meta.url)

export interface SoftwareRaOptions {
  /** PEM or DER. */
  certificate: string | Bytes
  /** PKCS#8 PEM of an RSA key. */
  privateKeyPem: string
  /** How much nicer its thread is than this one; 10 unless told, 0 for alike. */
  nice?: number
}

const unusable = (detail: string, cause?: unknown) => new EstServerError('issuer_unusable', `RA: ${detail}`, cause)

/** `given`: PEM or DER. Throws `issuer_unusable` for a certificate that is not an RA's. */
export function readRaCertificate(given: string | Bytes): Certificate {
  let certificate: Certificate
  try {
    certificate = parseCertificate(typeof given === 'string' ? decodePem(given, 'CERTIFICATE', 8)[0] : given)
  } catch (error) {
    throw unusable(`certificate: ${(error as Error).message}`, error)
  }
  const needed = DIGITAL_SIGNATURE | KEY_ENCIPHERMENT
  if (certificate.keyAlgorithm !== 'RSA' || certificate.isCa || (certificate.keyUsage & needed) !== needed)
    throw unusable('the certificate is not one of an RSA key for digitalSignature and keyEncipherment, or is a CA')
  return certificate
}

/** Throws `issuer_unusable` when certificate and key cannot serve as an RA's, or are not of one pair. Rejects with `issuer_failed`, `store_busy`. */
export function softwareRa(options: SoftwareRaOptions): RaKey {
  const certificate = readRaCertificate(options.certificate)
  let spki: Bytes
  try {
    spki = createPublicKey(createPrivateKey(options.privateKeyPem)).export({ format: 'der', type: 'spki' })
  } catch {
    // The cause is left out: it may quote the key.
    throw unusable('key: not a private key in PEM')
  }
  if (!equalBytes(spki, certificate.spki)) throw unusable('key: not the key of the certificate')

  const workerData: RaOptions = { privateKeyPem: options.privateKeyPem, nice: options.nice ?? 10 }
  const worker = new Worker(threadFile, { workerData })
  // An idle door keeps no process alive.
  worker.unref()
  const { ask, end } = jobQueue(worker)
  return {
    certificate,
    decrypt: (encryptedKey, oaep, bytes) => ask({ kind: 'decrypt', bytes: encryptedKey, algorithm: oaep ?? '', length: bytes }),
    sign: (algorithm, message) => ask({ kind: 'sign', bytes: message, algorithm, length: 0 }),
    async close() {
      end(new EstServerError('issuer_failed', 'the RA key was closed'))
      await worker.terminate()
    },
  }
}

interface Waiting {
  job: RaJob
  done: (value: Bytes) => void
  failed: (error: Error) => void
}

/**
 * The queue in front of the thread: at most one batch is away, and what arrives meanwhile makes up the next one. Requests that were answered
 * together ask the store together, which then pays for one transaction; a message for each job would cost a tenth of the job.
 */
function jobQueue(worker: Worker) {
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
  worker.on('message', (answers: RaAnswer[]) => {
    const batch = away
    away = []
    if (waiting.length > 0) send()
    else worker.unref()
    answers.forEach((value, i) => {
      if (value) batch[i].done(value)
      else batch[i].failed(new EstServerError('issuer_failed', 'the RA key did not sign'))
    })
  })
  worker.on('error', () => {})
  worker.on('exit', () => end(new EstServerError('issuer_failed', "the RA key's thread ended")))
  return {
    end,
    ask: (job: RaJob): Promise<Bytes> =>
      new Promise((done, failed) => {
        if (ended) return failed(ended)
        if (waiting.length >= waitingMax)
          return failed(new EstServerError('store_busy', `${waiting.length} operations of the RA key are waiting`))
        // A view takes all of the buffer behind it along, which is what the socket read: 64 KB for a key of 256 octets.
        waiting.push({ job: { ...job, bytes: new Uint8Array(job.bytes) }, done, failed })
        if (away.length === 0) schedule()
      }),
  }
}
