// The issuers of a configuration, joined with the store's word on which of them signs. Every process of a server opens its own: the one with
// the broker and the operators' socket needs certificates alone, those that answer devices need the keys as well.

import { type Bytes, equalBytes } from '@birthmark/device-sdk/core'
import {
  createIssuerSet,
  EstServerError,
  type Issuer,
  type IssuerSet,
  type Log,
  type LoopTurns,
  type Metrics,
  openRollOver,
  type RollOver,
  readIssuerCertificate,
  type Store,
} from '@birthmark/est-server'
import { type Clock, repeat } from '@birthmark/fleet-revocation'
import { CommandError } from './command-error.ts'
import type { Settings } from './configuration.ts'
import { openIssuer } from './open-issuer.ts'

export interface IssuerPorts {
  store: Store
  clock: Clock
  log: Log
  /** As KeyThreadPorts'. */
  loopTurns?: LoopTurns
  /** Counts what the keys sign. */
  metrics?: Metrics
}

/** How long a process may go by the standings before a move. Issuing follows at once: the store refuses an intent of any other issuer. */
const lookSeconds = 1

/** An issuer that ends sooner is spoken of at every start and every day. */
export const issuerWarningSeconds = 30 * 86_400

const read = ([certificate, ...chain]: Bytes[]) => readIssuerCertificate({ certificate, chain })

/** Rejects with `issuer_unusable`, as a CommandError, when configuration and records disagree. */
export async function openConfiguredRollOver({ issuer, fleet }: Settings, ports: IssuerPorts): Promise<RollOver> {
  try {
    return await openRollOver({
      ...ports,
      fleet,
      main: read(issuer.certificates),
      next: issuer.next && read(issuer.next.certificates),
      previous: issuer.previous.map(read),
      links: issuer.links,
    })
  } catch (error) {
    if (!(error instanceof EstServerError) || error.code !== 'issuer_unusable') throw error
    const detail = error.message.replace(/^issuer_unusable: /, '')
    throw new CommandError('issuer_unusable', detail, 'correct issuer in the configuration; docs/keys.md says how', 'failed', error)
  }
}

export interface OpenedIssuers {
  issuers: IssuerSet
  /** The issuing CA that a roll-over prepares and what is above it; [] where there is none. */
  next(): Bytes[]
  /** All whose keys are here. */
  readonly opened: Issuer[]
  /** Why nothing could be signed now, or null. `patient`: as Issuer's. */
  unready(patient?: boolean): string | null
  close(): Promise<void>
}

/** Opens the key that signs and the one that is to. The key of an issuer that signs no more is left alone where it has no lists to sign. */
export async function openConfiguredIssuers(settings: Settings, ports: IssuerPorts): Promise<OpenedIssuers> {
  const { issuer, state } = settings
  const { clock, log } = ports
  const rollOver = await openConfiguredRollOver(settings, ports)
  const opened: Issuer[] = []
  const close = async () => {
    for (const one of opened.splice(0)) await one.close?.()
  }
  try {
    for (const signer of [issuer, ...(issuer.next ? [issuer.next] : [])]) {
      const { keyId, certificate } = read(signer.certificates)
      const standing = rollOver.standings().find(other => equalBytes(other.keyId, keyId))?.state
      // Lists of what it signed are asked for as long as any of it lives, and none of it outlives the issuer.
      const lists = settings.status !== null && clock.now() < certificate.notAfter
      if (standing === 'retired' || (standing === 'previous' && !lists)) continue
      const key = await openIssuer(signer, {
        state,
        clock,
        log,
        loopTurns: ports.loopTurns,
        statusUrl: settings.status?.url ?? null,
      })
      opened.push(ports.metrics?.issuer(key) ?? key)
    }
  } catch (error) {
    await close()
    throw error
  }
  const issuers = createIssuerSet(rollOver, opened)
  const stop = watchRollOver(rollOver, ports, () => {})
  return {
    issuers,
    next() {
      const prepared = rollOver.standings().find(({ state }) => state === 'next')
      const certificate = prepared && rollOver.admitted().find(({ keyId }) => equalBytes(keyId, prepared.keyId))
      return certificate ? [certificate.certificate.der, ...certificate.chain] : []
    },
    opened,
    unready(patient) {
      const { signing } = issuers.current()
      if (signing === null) return 'another issuer signs, whose key this process does not have'
      if (clock.now() >= signing.issuer.certificate.notAfter) return 'the issuer has ended'
      return signing.issuer.unready?.(patient) ?? null
    },
    async close() {
      stop()
      await close()
    },
  }
}

/** Reads the standings again and again; `onMoved` hears of a change that another process made or this one. Answers how to stop. */
export function watchRollOver(rollOver: RollOver, { clock, log }: Omit<IssuerPorts, 'store'>, onMoved: () => void): () => void {
  let version = rollOver.version()
  let closed = false
  const end = repeat(
    clock,
    lookSeconds,
    async () => {
      await rollOver.refresh()
      if (closed || version === rollOver.version()) return
      version = rollOver.version()
      onMoved()
    },
    error => log.warn({ err: error }, 'the issuers could not be looked at'),
  )
  return () => {
    closed = true
    end()
  }
}

/** Speaks once a day of an issuer that is about to end: what it signs ends with it. Answers how to stop. */
export function warnOfEnd(rollOver: RollOver, { clock, log }: Omit<IssuerPorts, 'store'>): () => void {
  let cancel = () => {}
  const look = () => {
    const signing = rollOver.admitted().find(({ keyId }) => equalBytes(keyId, rollOver.signing()))
    const seconds = (signing?.certificate.notAfter ?? Number.POSITIVE_INFINITY) - clock.now()
    if (seconds < issuerWarningSeconds)
      log.warn({ days: Math.floor(seconds / 86_400) }, 'alarm: the issuing CA is about to end; roll over to a new one')
    cancel = clock.setTimer(86_400, look)
  }
  look()
  return () => cancel()
}

/** Roots of what the admitted issuers sign, once each: what whoever checks a device's certificate trusts. */
export function operationalAnchorsOf(rollOver: RollOver): Bytes[] {
  const roots = rollOver.admitted().map(({ certificate, chain }) => chain.at(-1) ?? certificate.der)
  return roots.filter((der, i) => roots.findIndex(other => equalBytes(other, der)) === i)
}
