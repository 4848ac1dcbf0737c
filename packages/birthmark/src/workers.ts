// The coordinator's side of several worker processes that share a port and a store: starts them, starts those anew that died, tells each of
// a revocation and waits until each has confirmed it or is dead. The kernel spreads connections over their sockets (SO_REUSEPORT).
// Promises: when enforce() resolves, no worker lives that has not denied. What a worker acknowledged is in the store, so its death loses nothing.

import { type ChildProcess, fork } from 'node:child_process'
import { createServer } from 'node:net'
import type { Log } from '@birthmark/est-server'
import type { Clock } from '@birthmark/fleet-revocation'
import { CommandError, type Exit } from './command-error.ts'
import type { ConfigurationFile } from './configuration-files.ts'
import { type EnrollmentFront, graceMs } from './enrollment-front.ts'
import { named } from './listening.ts'
import type { FromWorker, ToWorker, WorkerAnswers, WorkerOrder, WorkerOrders } from './worker-messages.ts'

/**
 * A worker whose event loop does not turn for this long is not well; ended, its sockets go with it. Ten times what any fault is allowed to
 * stall it.
 */
const enforceMs = 2000
const startMs = 30_000
const metricsMs = 2000
/** The first new start at once, then doubling: a worker that dies of one request is back before its siblings notice. */
const backoffSecondsMin = 0.2
const backoffSecondsMax = 30
/** A worker that lived this long is not in a loop. */
const soundSeconds = 60

export interface WorkersOptions {
  count: number
  host: string
  port: number
  config: string
  files: Map<string, ConfigurationFile>
  clock: Clock
  log: Log
}

interface Worker {
  child: ChildProcess
  number: number
  startedAt: number
  serving: boolean
  unready: string | null
  waiting: Map<number, { resolve: (answer: never) => void; reject: (error: Error) => void }>
  dead: Promise<void>
}

// Beside this file in the sources, an entry of its own in the package.
const program = new URL(import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js', import.meta.url)

/** Resolves when every worker serves. Rejects, with none left alive, when one cannot start. */
export async function startWorkers(options: WorkersOptions): Promise<EnrollmentFront> {
  const { count, host, config, files, clock, log } = options
  const workers = new Set<Worker>()
  let port = options.port
  let closing = false
  let lastId = 0

  function ask<K extends WorkerOrder>(
    worker: Worker,
    order: K,
    what: WorkerOrders[K],
    milliseconds: number,
  ): Promise<WorkerAnswers[K]> {
    return new Promise((resolve, reject) => {
      const id = ++lastId
      const timer = setTimeout(() => {
        worker.waiting.delete(id)
        reject(new CommandError('worker_silent', `worker ${worker.number} did not answer ${order}`, 'see its log lines', 'failed'))
      }, milliseconds)
      worker.waiting.set(id, {
        resolve(answer: WorkerAnswers[K]) {
          clearTimeout(timer)
          resolve(answer)
        },
        reject(error) {
          clearTimeout(timer)
          reject(error)
        },
      })
      worker.child.send({ id, order, what } as ToWorker, error => {
        // Its end, which follows, rejects everything that waits.
        if (error) log.warn({ worker: worker.number, order, err: error }, 'a worker could not be told')
      })
    })
  }

  function spawn(number: number): Worker {
    const child = fork(program, { serialization: 'advanced', stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    const worker: Worker = {
      child,
      number,
      startedAt: clock.now(),
      serving: false,
      unready: null,
      waiting: new Map(),
      dead: new Promise(resolve => child.once('exit', () => resolve())),
    }
    workers.add(worker)
    child.on('message', (message: FromWorker) => {
      if ('unready' in message) {
        worker.unready = message.unready
        return
      }
      const waiting = worker.waiting.get(message.id)
      worker.waiting.delete(message.id)
      if (!waiting) return
      if ('answer' in message) waiting.resolve(message.answer as never)
      else {
        const { code, message: words, next, exit } = message.failed
        waiting.reject(new CommandError(code, words, next, exit as Exit))
      }
    })
    child.on('error', error => log.error({ worker: number, err: error }, 'worker process'))
    child.once('exit', (code, signal) => {
      workers.delete(worker)
      const gone = new CommandError('worker_ended', `worker ${number} ended with ${signal ?? code}`, 'see its log lines', 'failed')
      for (const { reject } of worker.waiting.values()) reject(gone)
      worker.waiting.clear()
      if (closing || !worker.serving) return
      worker.serving = false
      log.error({ worker: number, pid: child.pid, code, signal }, 'a worker died; starting another')
      const sound = clock.now() - worker.startedAt >= soundSeconds
      void again(number, sound ? backoffSecondsMin : nextBackoff(number))
    })
    return worker
  }

  async function begin(worker: Worker): Promise<void> {
    try {
      const { port: taken } = await ask(worker, 'start', { config, files, port, number: worker.number, processes: count }, startMs)
      port = taken
      worker.serving = true
      log.info({ worker: worker.number, pid: worker.child.pid, port }, 'a worker serves')
    } catch (error) {
      worker.child.kill('SIGKILL')
      throw error
    }
  }

  const backoffs = new Map<number, number>()
  function nextBackoff(number: number): number {
    const seconds = backoffs.get(number) ?? backoffSecondsMin
    backoffs.set(number, Math.min(backoffSecondsMax, seconds * 2))
    return seconds
  }

  async function again(number: number, seconds: number): Promise<void> {
    await new Promise<void>(resolve => clock.setTimer(seconds, resolve))
    if (closing) return
    try {
      await begin(spawn(number))
    } catch (error) {
      log.error({ worker: number, err: error }, 'a worker did not start; trying again')
      void again(number, nextBackoff(number))
    }
  }

  async function enforceAt(worker: Worker): Promise<number> {
    try {
      return (await ask(worker, 'enforce', {}, enforceMs)).cut
    } catch (error) {
      // It may go on answering by the old rules; its death cuts every socket it has, and its successor reads the rules from the store.
      log.error({ worker: worker.number, err: error }, 'a worker did not confirm a revocation and is ended')
      worker.child.kill('SIGKILL')
      await worker.dead
      return 0
    }
  }

  const killAll = () => {
    for (const { child } of workers) child.kill('SIGKILL')
  }
  // An end without an orderly close must not leave processes behind that nobody can tell of a revocation.
  process.on('exit', killAll)

  // With SO_REUSEPORT a second server of this user would join in silently: what listens there already is found by asking for the port alone.
  if (port !== 0) await named('est', host, port, () => probe(host, port))
  try {
    // The first one takes the port, if a free one was asked for.
    await begin(spawn(1))
    await Promise.all(Array.from({ length: count - 1 }, (_, i) => begin(spawn(i + 2))))
  } catch (error) {
    closing = true
    killAll()
    await Promise.all([...workers].map(worker => worker.dead))
    process.off('exit', killAll)
    throw error
  }

  const serving = () => [...workers].filter(worker => worker.serving && worker.unready === null)

  return {
    issuers: null,
    get port() {
      return port
    },
    // Named in the configuration: workers share no port that is not.
    scepPort: null,
    async enforce() {
      const cut = await Promise.all([...workers].map(enforceAt))
      return cut.reduce((sum, n) => sum + n, 0)
    },
    unready() {
      if (serving().length > 0) return null
      return [...workers].find(worker => worker.unready !== null)?.unready ?? 'no worker serves'
    },
    standing: () => ({ serving: serving().length, of: count, pids: [...workers].flatMap(({ child }) => child.pid ?? []) }),
    async metrics() {
      const told = await Promise.allSettled(serving().map(worker => ask(worker, 'metrics', {}, metricsMs)))
      return told.flatMap(one => (one.status === 'fulfilled' ? [one.value.metrics] : []))
    },
    async close() {
      closing = true
      await Promise.all(
        [...workers].map(async worker => {
          await ask(worker, 'stop', {}, graceMs + 3000).catch(() => worker.child.kill('SIGKILL'))
          await worker.dead
        }),
      )
      process.off('exit', killAll)
    },
  }
}

function probe(host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen({ host, port }, () => server.close(() => resolve()))
  })
}
