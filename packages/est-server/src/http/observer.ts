// What the way in tells whoever counts. Every name comes from a closed set, but for the label, which the counter has to look up among those
// it knows: a stranger chooses it.

import type { ScepReply } from '../scep.ts'
import type { EstOperation } from '../wire/est.ts'
import type { ProblemCode } from './problem.ts'

/** Why a new connection was not taken: its address holds too many, opens them too fast, the table is full of busy ones, or we are stopping. */
export type ConnectionRefusal = 'address_full' | 'address_rate' | 'table_full' | 'closing'

/** `pushed_out`: it had waited longest when the table was full. The others are deadlines by phase. */
export type ConnectionEnd = 'handshake' | 'head' | 'body' | 'answer' | 'pushed_out'

export interface HttpObserver {
  connectionRefused(reason: ConnectionRefusal): void
  connectionCut(reason: ConnectionEnd): void
  /** `seconds` from accept to its end. */
  handshake(outcome: 'done' | 'failed', seconds: number): void
  /** `outcome`: 'ok' for an answer with content, 'pending', or why not. */
  answered(operation: EstOperation | 'none', label: string | null, outcome: 'ok' | 'pending' | ProblemCode, seconds: number): void
}

/** What SCEP's way in tells; plain HTTP, so nobody shakes hands. */
export interface ScepObserver extends Pick<HttpObserver, 'connectionRefused' | 'connectionCut'> {
  scepAnswered(operation: ScepOperation, label: string | null, outcome: ScepOutcome, seconds: number): void
}

/** `other`: no SCEP operation, or nothing that got as far. */
export type ScepOperation = 'GetCACaps' | 'GetCACert' | 'GetNextCACert' | 'PKIOperation' | 'other'

/** `ok` for an answer that no client has to prove itself for; `success` and `pending` as CertRep says them; else why not. */
export type ScepOutcome = 'ok' | Extract<ScepReply, { kind: 'reply' }>['outcome'] | ProblemCode

export const nobody: HttpObserver = { connectionRefused() {}, connectionCut() {}, handshake() {}, answered() {} }

export const noScepObserver: ScepObserver = { connectionRefused() {}, connectionCut() {}, scepAnswered() {} }
