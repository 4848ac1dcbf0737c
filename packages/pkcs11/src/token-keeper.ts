// Keeps a token process: starts it, gives it as many jobs at once as it has sessions, ends it when it stalls, starts the next one when the token is there
// again. Promises that a caller hears within a bounded time and that what waits is bounded. It leaves to the caller what is signed and
// whether a signature is good, but for one: a key that is not the certificate's is found out before anything real is signed with it.

import { type ChildProcess, fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { Bytes } from '@birthmark/device-sdk/core'
import type { Log } from '@birthmark/est-server'
import type { FromToken, RefusedPin, TokenJob, TokenRequest } from './protocol.ts'
import { TokenError } from './token-error.ts'

export interface TokenLimits {
  /** A token that has not signed by then is stalled. Network HSMs answer within tens of milliseconds, smart cards within a second. */
  signMs: number
  /** Loading the library, logging in and finding the key. */
  openMs: number
  /** Jobs that the token is given at once, each in a session of its own. */
  sessionsMax: number
  /** Signatures that wait. More than a few seconds' worth would only be late. */
  pendingMax: number
  /** Pause before the next try after the first failure; doubled up to `retryMsMax`. */
  retryMs: number
  retryMsMax: number
}

export const defaultTokenLimits: TokenLimits = {
  signMs: 3000,
  openMs: 10_000,
  // What libuv's pool of threads has by itself. With 10 ms to a token in the network they give 400 signatures a second in place of 100; beyond that HSMs
  // of the smaller kind stand in line themselves.
  sessionsMax: 4,
  pendingMax: 256,
  retryMs: 1000,
  retryMsMax: 30_000,
}

export interface TokenKeeperOptions {
  request: Omit<TokenRequest, 'refusedPin' | 'sessions'>
  /** Whether `signature` over `data` is of the key that is meant. */
  verify(data: Bytes, signature: Bytes): boolean
  /** File that remembers a refused PIN (salted and hashed) over restarts, so that a service that is restarted by itself locks no token. */
  refusedPinFile: string | null
  limits: TokenLimits
  log: Log
  /** Starts the token process. */
  spawn?: (sessions: number) => ChildProcess
}

export interface TokenKeeper {
  /** X.509 form, unverified. `algorithm`: the request's unless told. Rejects with TokenError. */
  sign(data: Bytes, algorithm?: string): Promise<Bytes>
  /** With an RSA key. Null for what does not decrypt. Rejects with TokenError. */
  decrypt(data: Bytes, oaep: string | null): Promise<Bytes | null>
  unready(): string | null
  close(): Promise<void>
}

interface Job {
  job: TokenJob
  timer?: NodeJS.Timeout
  /** A lost session costs one more try, not two: the second failure is the answer. */
  retried: boolean
  resolve(result: Bytes | null): void
  reject(error: TokenError): void
}

/** `failure`: why it does not serve, until it does again: another try at opening it is no reason to expect anything of it. */
type State =
  | { kind: 'opening'; failure: TokenError | null }
  | { kind: 'open' }
  | { kind: 'down'; failure: TokenError }
  | { kind: 'closed' }

const processFile = new URL(import.meta.url.endsWith('.ts') ? './token-process.ts' : './token-process.js', import.meta.url)

/** Without core files: a crashed library's would hold the PIN. */
export function spawnTokenProcess(sessions = 1): ChildProcess {
  const conditions = processFile.pathname.endsWith('.ts') ? ['--conditions=source', '--disable-warning=ExperimentalWarning'] : []
  const execArgv = ['-c', 'ulimit -c 0; exec "$0" "$@"', process.execPath, ...conditions]
  // A vendor's library may write what it likes to its output; what we know of it comes as messages.
  return fork(processFile, [], {
    execPath: '/bin/sh',
    execArgv,
    serialization: 'advanced',
    // A thread for each session.
    env: { ...process.env, UV_THREADPOOL_SIZE: String(Math.max(4, sessions)) },
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  })
}

/** Nothing that could be taken for a certificate: text, and random so that its signature proves this moment. */
const probe = () => Buffer.concat([Buffer.from('birthmark key check, not a certificate '), randomBytes(32)])

function readRefusedPin(file: string | null): RefusedPin | null {
  if (file === null || !existsSync(file)) return null
  const [salt, hash] = readFileSync(file, 'latin1').trim().split(':')
  return /^[0-9a-f]{32}$/.test(salt) && /^[0-9a-f]{64}$/.test(hash ?? '') ? { salt, hash } : null
}

/** Resolves when the token is open and its key is the right one. Rejects with TokenError; nothing is left running then. */
export async function keepToken(options: TokenKeeperOptions): Promise<TokenKeeper> {
  const { limits, log, refusedPinFile } = options
  const waiting: Job[] = []
  /** By the id of their message. */
  const inHand = new Map<number, Job>()
  let sessions = 1
  let state: State = { kind: 'opening', failure: null }
  let child: ChildProcess | null = null
  let timer: NodeJS.Timeout | undefined
  let retry: NodeJS.Timeout | undefined
  let retryMs = limits.retryMs
  let refusedPin = readRefusedPin(refusedPinFile)
  let counter = 0
  /** Settles when the opening in hand has ended, either way. */
  let opened: { resolve(): void; reject(error: TokenError): void } | null = null

  function rememberPin(refused: RefusedPin | null): void {
    refusedPin = refused
    if (refusedPinFile === null) return
    if (refused === null) rmSync(refusedPinFile, { force: true })
    else writeFileSync(refusedPinFile, `${refused.salt}:${refused.hash}\n`, { mode: 0o600, flush: true })
  }

  function endChild(): void {
    clearTimeout(timer)
    for (const job of inHand.values()) clearTimeout(job.timer)
    // SIGKILL, since a library that stalls hears nothing else.
    child?.removeAllListeners()
    child?.on('error', () => {})
    child?.kill('SIGKILL')
    child = null
  }

  function takeInHand(): Job[] {
    const jobs = [...inHand.values()]
    inHand.clear()
    return jobs
  }

  function fail(error: TokenError): void {
    endChild()
    const jobs = [...takeInHand(), ...waiting.splice(0)]
    state = { kind: 'down', failure: error }
    log.error({ code: error.code, detail: error.message, next: error.next }, 'the token of the key does not serve')
    for (const job of jobs) job.reject(error)
    opened?.reject(error)
    opened = null
    retry = setTimeout(open, retryMs)
    retry.unref()
    retryMs = Math.min(retryMs * 2, limits.retryMsMax)
  }

  /** The session is gone: what was in hand is tried once more on the next one. */
  function reopen(error: TokenError): void {
    if ([...inHand.values()].some(({ retried }) => retried)) {
      fail(error)
      return
    }
    endChild()
    waiting.unshift(...takeInHand().map(job => ({ ...job, retried: true })))
    log.warn({ code: error.code, detail: error.message }, 'the session with the token was lost; opening another')
    open()
  }

  function pump(): void {
    while (state.kind === 'open' && inHand.size < sessions) {
      const job = waiting.shift()
      if (job === undefined) return
      job.timer = request(job.job)
      inHand.set(counter, job)
    }
  }

  /** One session that stalls is a token that does: all of them end together. */
  function request(job: TokenJob): NodeJS.Timeout {
    child?.send({ ...job, id: ++counter })
    return setTimeout(() => {
      const detail = `no answer within ${limits.signMs} ms`
      fail(new TokenError({ code: 'timeout', detail, next: 'is the token, or the way to it, overloaded or stuck?' }))
    }, limits.signMs)
  }

  function open(): void {
    if (state.kind === 'closed') return
    state = { kind: 'opening', failure: state.kind === 'down' ? state.failure : null }
    const started = (options.spawn ?? spawnTokenProcess)(limits.sessionsMax)
    child = started
    const check = probe()
    timer = setTimeout(() => {
      const detail = `not open within ${limits.openMs} ms`
      fail(new TokenError({ code: 'timeout', detail, next: 'is the token, or the way to it, overloaded or stuck?' }))
    }, limits.openMs)
    started.once('error', error => {
      fail(new TokenError({ code: 'process_ended', detail: error.message, next: 'may this user start processes?' }))
    })
    started.once('exit', (code, signal) => {
      const detail = `the token process ended (${signal ?? `exit ${code}`})`
      const error = new TokenError({ code: 'process_ended', detail, next: "is the token's library of this machine's kind?" })
      if (state.kind === 'open') reopen(error)
      else fail(error)
    })
    started.on('message', (message: FromToken) => {
      switch (message.kind) {
        case 'open':
          clearTimeout(timer)
          sessions = message.sessions
          log.info({ token: message.token, sessions }, 'token open')
          timer = request({ kind: 'sign', data: check })
          return
        case 'unopened':
          if (message.refusedPin !== null) rememberPin(message.refusedPin)
          return fail(new TokenError(message.failure))
        case 'undone':
          clearTimeout(timer)
          return state.kind === 'open' ? reopen(new TokenError(message.failure)) : fail(new TokenError(message.failure))
        case 'public':
          return
        case 'done': {
          if (state.kind === 'opening') {
            clearTimeout(timer)
            if (message.result === null || !options.verify(check, message.result)) {
              const detail = 'the key on the token is not the key of the certificate'
              return fail(new TokenError({ code: 'key_mismatch', detail, next: 'name the right token and key' }))
            }
            if (refusedPin !== null) rememberPin(null)
            state = { kind: 'open' }
            retryMs = limits.retryMs
            opened?.resolve()
            opened = null
          } else {
            const job = inHand.get(message.id)
            inHand.delete(message.id)
            clearTimeout(job?.timer)
            job?.resolve(message.result)
          }
          pump()
        }
      }
    })
    started.send({ kind: 'open', request: { ...options.request, refusedPin, sessions: limits.sessionsMax } })
  }

  const ask = (job: TokenJob): Promise<Bytes | null> =>
    new Promise((resolve, reject) => {
      if (state.kind === 'down') return reject(state.failure)
      if (state.kind === 'closed') return reject(closedError())
      if (waiting.length >= limits.pendingMax) {
        const detail = `${waiting.length} jobs wait already`
        return reject(new TokenError({ code: 'queue_full', detail, next: 'come back later' }))
      }
      waiting.push({ job: { ...job, data: new Uint8Array(job.data) }, retried: false, resolve, reject })
      pump()
    })
  const keeper: TokenKeeper = {
    sign: async (data, algorithm) => (await ask({ kind: 'sign', data, ...(algorithm && { algorithm }) })) as Bytes,
    decrypt: (data, oaep) => ask({ kind: 'decrypt', data, oaep }),
    unready: () => (state.kind === 'closed' ? 'closed' : state.kind === 'open' ? null : (state.failure?.message ?? null)),
    async close() {
      if (state.kind === 'closed') return
      state = { kind: 'closed' }
      clearTimeout(retry)
      endChild()
      for (const job of [...takeInHand(), ...waiting.splice(0)]) job.reject(closedError())
    },
  }
  await new Promise<void>((resolve, reject) => {
    opened = {
      resolve,
      reject(error) {
        // A configuration that cannot work is said at once, and not tried again behind the operator's back.
        void keeper.close()
        reject(error)
      },
    }
    open()
  })
  return keeper
}

function closedError(): TokenError {
  return new TokenError({ code: 'closed', detail: 'the server is stopping', next: 'come back later' })
}
