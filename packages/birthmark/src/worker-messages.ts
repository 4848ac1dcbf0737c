// What a coordinator and its workers say to each other over Node's IPC, structured clones in both directions.

import type { ConfigurationFile } from './configuration-files.ts'

export interface WorkerOrders {
  /** The configuration as the coordinator read it; once, first. */
  start: { config: string; files: Map<string, ConfigurationFile>; port: number; number: number; processes: number }
  /** Deny what the store now says is revoked, cut its connections, then confirm. A long list would take longer to send than to read. */
  enforce: Record<never, never>
  metrics: Record<never, never>
  /** Finish what was asked, then end. */
  stop: Record<never, never>
}

export interface WorkerAnswers {
  start: { port: number }
  enforce: { cut: number }
  /** As prom-client's getMetricsAsJSON. */
  metrics: { metrics: object[] }
  stop: Record<never, never>
}

export type WorkerOrder = keyof WorkerOrders

export type ToWorker = { [K in WorkerOrder]: { id: number; order: K; what: WorkerOrders[K] } }[WorkerOrder]

export type FromWorker =
  | { id: number; answer: WorkerAnswers[WorkerOrder] }
  | { id: number; failed: { code: string; message: string; next: string; exit: string } }
  /** Said whenever it changes. */
  | { unready: string | null }
