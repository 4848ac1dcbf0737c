// What is counted, for Prometheus. Every label value comes from a closed set made at start: operations, outcome codes, profiles of the
// configuration, steps. What a stranger chooses (a label, a name, an address) is looked up there or counted as `other`, so that the number of
// series is fixed however many devices there are.

import { AggregatorRegistry, Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { Issuer } from './ca/issuer-key.ts'
import { failureCode } from './errors.ts'
import type { HttpObserver, ScepObserver } from './http/observer.ts'
import type { Store } from './store/store.ts'

export interface MetricsOptions {
  /** Labels of the profiles there are. */
  profiles: (string | null)[]
  /** Also what the process and its event loop do. */
  process?: boolean
}

export interface Metrics {
  http: HttpObserver
  scep: ScepObserver
  /** The same store, its steps timed. */
  store<S extends Store>(store: S): S
  /** The same issuer, its signatures timed and its failures counted. */
  issuer(issuer: Issuer): Issuer
  /** One transaction of the store's writer. */
  batch(jobs: number, seconds: number, waiting: number): void
  /** An answer about the status of certificates, by its HTTP status. */
  statusAnswer(kind: 'crl' | 'ocsp', status: number): void
  notice(event: 'published' | 'failed' | 'acknowledged'): void
  /** Asked for when somebody looks. */
  gauge(name: GaugeName, read: () => number | Promise<number>): void
  text(): Promise<string>
  json(): Promise<object[]>
  contentType: string
}

const gauges = {
  connections: 'Sockets held, in whatever state',
  outbox: 'Revocation notices that no broker has confirmed, 64 at most',
  workers: 'Processes that answer devices',
  ready: '1 while an enrollment would be served',
  sessions: 'Devices connected to the embedded broker',
} as const
export type GaugeName = keyof typeof gauges

/** From a look-up to a token that stalls. */
const seconds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

/** Store calls that are a step of an enrollment. */
const steps = {
  enrollmentFacts: 'look_up',
  recordIntent: 'record_intent',
  recordCertificate: 'record_certificate',
  appendAudit: 'append_audit',
} as const

/** Label values that no profile has are one series together. */
const other = 'other'
const none = 'default'

export function createMetrics({ profiles, process = false }: MetricsOptions): Metrics {
  const registry = new Registry()
  const registers = [registry]
  if (process) collectDefaultMetrics({ register: registry, prefix: 'birthmark_' })
  const known = new Set(profiles.map(label => label ?? none))
  const profileOf = (label: string | null) => {
    const name = label ?? none
    return known.has(name) ? name : other
  }

  const requests = new Counter({
    name: 'birthmark_est_requests_total',
    help: 'EST requests by operation, profile and outcome (ok, pending, or the code of the refusal)',
    labelNames: ['operation', 'profile', 'outcome'],
    registers,
  })
  const answerSeconds = new Histogram({
    name: 'birthmark_est_answer_seconds',
    help: 'From the complete head of an EST request to its answer',
    labelNames: ['operation'],
    buckets: seconds,
    registers,
  })
  const stepSeconds = new Histogram({
    name: 'birthmark_step_seconds',
    help: 'Steps of an enrollment: look_up, record_intent, sign, record_certificate, append_audit',
    labelNames: ['step'],
    buckets: seconds,
    registers,
  })
  const handshakes = new Counter({
    name: 'birthmark_tls_handshakes_total',
    help: 'TLS handshakes on the EST port by outcome',
    labelNames: ['outcome'],
    registers,
  })
  const handshakeSeconds = new Histogram({
    name: 'birthmark_tls_handshake_seconds',
    help: 'From accept to the end of the handshake; mostly the client’s network',
    buckets: seconds,
    registers,
  })
  const refused = new Counter({
    name: 'birthmark_connections_refused_total',
    help: 'New connections not taken, by reason',
    labelNames: ['reason'],
    registers,
  })
  const cut = new Counter({
    name: 'birthmark_connections_cut_total',
    help: 'Connections ended at a deadline, by the phase they were in, or pushed out of a full table',
    labelNames: ['reason'],
    registers,
  })
  const signatures = new Counter({
    name: 'birthmark_issuer_signatures_total',
    help: 'Signatures asked of the issuer key by outcome',
    labelNames: ['outcome'],
    registers,
  })
  const storeFailures = new Counter({
    name: 'birthmark_store_failures_total',
    help: 'Store calls of an enrollment that failed, by code',
    labelNames: ['code'],
    registers,
  })
  const batchJobs = new Histogram({
    name: 'birthmark_store_batch_jobs',
    help: 'Writes that one transaction of the store carried',
    buckets: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512],
    registers,
  })
  const batchSeconds = new Histogram({
    name: 'birthmark_store_batch_seconds',
    help: 'From handing a batch to the writer to its commit',
    buckets: seconds,
    registers,
  })
  const notices = new Counter({
    name: 'birthmark_notices_total',
    help: 'Revocation notices that the broker took, that it did not take, and that are recorded as delivered',
    labelNames: ['event'],
    registers,
  })

  const scepRequests = new Counter({
    name: 'birthmark_scep_requests_total',
    help: 'SCEP requests by operation, profile and outcome (ok, success, pending, or why not)',
    labelNames: ['operation', 'profile', 'outcome'],
    registers,
  })
  const scepSeconds = new Histogram({
    name: 'birthmark_scep_answer_seconds',
    help: 'From the complete head of a SCEP request to its answer',
    labelNames: ['operation'],
    buckets: seconds,
    registers,
  })
  const statusAnswers = new Counter({
    name: 'birthmark_status_answers_total',
    help: 'Answers about the status of certificates, lists and OCSP, by outcome',
    labelNames: ['kind', 'outcome'],
    registers,
  })
  const queue = new Gauge({
    name: 'birthmark_store_queue',
    help: 'Writes that waited behind the last batch of the store',
    registers,
  })

  const now = () => performance.now() / 1000

  function timed<A extends unknown[], R>(step: string, f: (...args: A) => Promise<R>): (...args: A) => Promise<R> {
    const observed = stepSeconds.labels(step)
    return async (...args) => {
      const start = now()
      try {
        return await f(...args)
      } catch (error) {
        storeFailures.inc({ code: failureCode(error) ?? other })
        throw error
      } finally {
        observed.observe(now() - start)
      }
    }
  }

  return {
    http: {
      connectionRefused: reason => refused.inc({ reason }),
      connectionCut: reason => cut.inc({ reason }),
      handshake(outcome, spent) {
        handshakes.inc({ outcome })
        if (outcome === 'done') handshakeSeconds.observe(spent)
      },
      answered(operation, label, outcome, spent) {
        requests.inc({ operation, profile: profileOf(label), outcome })
        answerSeconds.observe({ operation }, spent)
      },
    },
    scep: {
      connectionRefused: reason => refused.inc({ reason }),
      connectionCut: reason => cut.inc({ reason }),
      scepAnswered(operation, label, outcome, spent) {
        scepRequests.inc({ operation, profile: profileOf(label), outcome })
        scepSeconds.observe({ operation }, spent)
      },
    },
    store(store) {
      const wrapped = { ...store }
      for (const [name, step] of Object.entries(steps) as [keyof typeof steps, string][])
        (wrapped as Record<string, unknown>)[name] = timed(
          step,
          (store[name] as (...args: never[]) => Promise<unknown>).bind(store),
        )
      return wrapped
    },
    issuer(issuer) {
      const observed = stepSeconds.labels('sign')
      const count = (outcome: string, start: number) => {
        signatures.inc({ outcome })
        observed.observe(now() - start)
      }
      return Object.assign(Object.create(issuer) as Issuer, {
        sign(tbs: Uint8Array, patient?: boolean) {
          const start = now()
          try {
            const signature = issuer.sign(tbs, patient)
            if (!(signature instanceof Promise)) {
              count('signed', start)
              return signature
            }
            return signature.then(
              done => {
                count('signed', start)
                return done
              },
              error => {
                count('failed', start)
                throw error
              },
            )
          } catch (error) {
            count('failed', start)
            throw error
          }
        },
      })
    },
    batch(jobs, spent, waiting) {
      queue.set(waiting)
      batchJobs.observe(jobs)
      batchSeconds.observe(spent)
    },
    statusAnswer: (kind, status) => statusAnswers.inc({ kind, outcome: statusOutcome(status) }),
    notice: event => notices.inc({ event }),
    gauge(name, read) {
      new Gauge({
        name: `birthmark_${name}`,
        help: gauges[name],
        registers,
        async collect() {
          this.set(await read())
        },
      })
    },
    text: () => registry.metrics(),
    json: () => registry.getMetricsAsJSON(),
    contentType: registry.contentType,
  }
}

function statusOutcome(status: number): string {
  if (status === 200) return 'ok'
  if (status === 304) return 'unchanged'
  return status >= 500 ? 'unavailable' : 'refused'
}

/** One page of what several processes counted, each given by its json(): sums, but for what says otherwise. */
export async function aggregateMetrics(all: object[][]): Promise<string> {
  return AggregatorRegistry.aggregate(all as never).metrics()
}
