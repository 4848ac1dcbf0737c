// One of several processes that answer devices on one port, started by workers.ts and told over IPC what to do. It has a store connection
// and the issuer's key of its own, but neither the notice key nor a way for operators. Without its coordinator it could not hear of a
// revocation any more, so it ends when that one goes.

import { randomBytes } from 'node:crypto'
import { createMetrics, type Metrics } from '@birthmark/est-server'
import { systemClock } from '@birthmark/fleet-revocation'
import { CommandError, explain } from './command-error.ts'
import { readConfiguration } from './configuration.ts'
import { playedBack } from './configuration-files.ts'
import { type EnrollmentFront, openEnrollmentFront } from './enrollment-front.ts'
import { logTo } from './log.ts'
import { openStore } from './open-store.ts'
import { mergeStored, storedRules } from './recorded-rules.ts'
import type { FromWorker, ToWorker, WorkerAnswers, WorkerOrder, WorkerOrders } from './worker-messages.ts'

interface Worker {
  front: EnrollmentFront
  metrics: Metrics
  /** Takes in what was revoked since. */
  follow(): Promise<unknown>
  close(): Promise<void>
}

const say = (message: FromWorker) => {
  if (process.connected) process.send?.(message)
}

async function start({ config, files, port, number, processes }: WorkerOrders['start']): Promise<Worker> {
  const settings = readConfiguration(config, playedBack(files))
  const log = logTo(2, settings.logLevel, { worker: number })
  const metrics = createMetrics({ profiles: settings.profiles.map(({ label }) => label), process: true })
  let stopped: string | null = null
  const store = await openStore(settings, {
    log,
    shared: true,
    metrics,
    onStopped(error) {
      stopped = error.message
      say({ unready: stopped })
      log.error({ err: error }, 'the store stopped; this worker ends')
      // Whatever waits is answered first that it did not happen.
      setTimeout(() => process.exit(1), 200)
    },
  })
  try {
    const rules = await storedRules(store, settings.fleet)
    const unready = () => stopped
    const parts = {
      store,
      rules,
      clock: systemClock,
      random: (n: number) => randomBytes(n),
      log,
      metrics,
      unready,
      port,
      processes,
    }
    const front = await openEnrollmentFront(settings, parts)
    // A token that went away and one that came back are told, so that the coordinator's readiness speaks of both.
    let told: string | null = null
    const telling = setInterval(() => {
      const reason = front.unready()
      if (reason !== told) say({ unready: reason })
      told = reason
    }, 1000)
    telling.unref()
    return {
      front,
      metrics,
      follow: () => mergeStored(rules, store, settings.fleet),
      async close() {
        clearInterval(telling)
        await front.close()
        await store.close()
      },
    }
  } catch (error) {
    await store.close()
    throw error
  }
}

let starting: Promise<Worker> | null = null
let ending: Promise<void> | null = null

function end(): Promise<void> {
  ending ??= (async () => {
    const worker = await starting?.catch(() => null)
    await worker?.close()
  })()
  return ending
}

async function obey(message: ToWorker): Promise<WorkerAnswers[WorkerOrder]> {
  if (message.order === 'start') {
    starting ??= start(message.what)
    return { port: (await starting).front.port }
  }
  if (message.order === 'stop') {
    await end()
    return {}
  }
  // An order may come while it starts; what it says then holds from the first request on.
  const worker = await starting
  if (!worker) throw new CommandError('not_started', 'the worker was not started', 'report this', 'failed')
  switch (message.order) {
    case 'enforce':
      await worker.follow()
      return { cut: await worker.front.enforce() }
    case 'metrics':
      return { metrics: await worker.metrics.json() }
  }
}

process.on('message', (message: ToWorker) => {
  const { id, order } = message
  obey(message)
    .then(answer => {
      say({ id, answer })
      if (order === 'stop') process.disconnect()
    })
    .catch(error => {
      const { code, message: words, next, exit } = explain(error)
      say({ id, failed: { code, message: words, next, exit } })
    })
})

const leave = () => {
  void end().finally(() => process.exit(0))
}
process.on('disconnect', leave)
// Ctrl-C and a service manager signal every process of the group; the coordinator says `stop` as well, which comes to the same.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, leave)
