// The thread that holds a software RSA key (key-thread.ts): one private operation after another.

import { constants, createPrivateKey, privateDecrypt, randomBytes, type SigningOptions, sign } from 'node:crypto'
import { setPriority } from 'node:os'
import { parentPort, workerData } from 'node:worker_threads'

export interface KeyOptions {
  privateKeyPem: string
  /** How much nicer the thread is than the one that asks; 0 for alike. */
  nice: number
}

export interface KeyJob {
  kind: 'decrypt' | 'sign'
  bytes: Uint8Array
  /** sign: a signature algorithm; decrypt: OAEP's hash, '' for PKCS#1 v1.5. */
  algorithm: string
  /** decrypt: octets of the content key. */
  length: number
}

export interface KeyBatch {
  jobs: KeyJob[]
  /** Whether somebody is served meanwhile who would wait for the processor. */
  makeWay: boolean
}

/** Null where the key did not sign. As many as there were jobs, in their order. */
export type KeyAnswer = Uint8Array | null

const { privateKeyPem, nice } = workerData as KeyOptions
const key = createPrivateKey(privateKeyPem)
// Linux has priorities by thread, and 0 is the one that asks. Elsewhere it would be the whole process's.
if (nice > 0 && process.platform === 'linux') setPriority(0, nice)

const pss: SigningOptions = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }

function decrypted({ bytes, algorithm, length }: KeyJob): Uint8Array {
  // Made whether needed or not. OpenSSL answers bad PKCS#1 padding with a random message of its own (implicit rejection, since 3.2); an error
  // (OAEP, or a number beyond the modulus) and a key of another length end the same way.
  const otherwise = randomBytes(length)
  try {
    const how =
      algorithm === ''
        ? { key, padding: constants.RSA_PKCS1_PADDING }
        : { key, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: algorithm }
    const found = privateDecrypt(how, bytes)
    return found.length === length ? found : otherwise
  } catch {
    return otherwise
  }
}

function signed({ bytes, algorithm }: KeyJob): Uint8Array | null {
  const digest = /^rsa-(?:pkcs1|pss)-(sha\d+)$/.exec(algorithm)?.[1]
  if (digest === undefined) return null
  try {
    return sign(digest, bytes, algorithm.startsWith('rsa-pss') ? { key, ...pss } : key)
  } catch {
    return null
  }
}

/** Linux lets a thread go on for milliseconds, however nice it is; whoever waits for this processor has it now. Some 0.07 ms with the timer's slack. */
const pause = () => Atomics.wait(nothing, 0, 0, 0.02)
const nothing = new Int32Array(new SharedArrayBuffer(4))

// A key beside its options is first taken for a KeyObject and a CryptoKey by throwing and catching; nobody reads where.
Error.stackTraceLimit = 0

parentPort?.on('message', ({ jobs, makeWay }: KeyBatch) => {
  const answers: KeyAnswer[] = jobs.map((job, i) => {
    if (i > 0 && makeWay) pause()
    const value = job.kind === 'decrypt' ? decrypted(job) : signed(job)
    // A copy without the pool that small buffers share.
    return value && new Uint8Array(value)
  })
  parentPort?.postMessage(answers)
})
// No answers yet: the key is there.
parentPort?.postMessage([] satisfies KeyAnswer[])
