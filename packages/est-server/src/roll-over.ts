// Which of the configured issuers signs, by the store's word: what an operator moves along (issuer-moves.ts) and every process reads. Promises
// that a move is one transaction with its audit record, and that no process records an intent of an issuer that no longer signs. It holds
// certificates and no key.

import { type Bytes, equalBytes, hexOf } from '@birthmark/device-sdk/core'
import type { IssuerCertificate } from './ca/issuer-certificate.ts'
import { EstServerError } from './errors.ts'
import { type Moved, moved, type RollOverMove } from './issuer-moves.ts'
import type { Clock, Log } from './ports.ts'
import type { IssuerStanding, IssuerState } from './store/issuers.ts'
import type { AuditEntry, Store } from './store/store.ts'

export interface RollOverOptions {
  store: Pick<Store, 'issuerStandings' | 'recordIssuers' | 'issuerDevices'>
  fleet: string
  /** The issuer of the configuration, and the one that is to follow. */
  main: IssuerCertificate
  next: IssuerCertificate | null
  previous: IssuerCertificate[]
  /** Certificates that lead from one root to another (RFC 4210 4.4: OldWithNew, NewWithOld), DER, for /cacerts. */
  links?: Bytes[]
  clock: Clock
  log: Log
}

export interface IssuerReport {
  keyId: Bytes
  state: IssuerState
  since: number
  /** Null when the configuration does not have it. */
  certificate: IssuerCertificate | null
  /** Devices whose last certificate is of it and has not ended. */
  devices: number
}

export interface RollOver {
  /** As last read. */
  standings(): IssuerStanding[]
  /** Reads the standings again; whether they have changed. */
  refresh(): Promise<boolean>
  /** Key id of the issuer that signs. */
  signing(): Bytes
  /** The issuers whose certificates hold: signing first, then next and previous, as far as they are configured. */
  admitted(): IssuerCertificate[]
  /** For /cacerts: each admitted issuer and what is above it, once; then the links. */
  caCertificates(): Bytes[]
  /** Grows whenever the answers above change. */
  version(): number
  report(): Promise<IssuerReport[]>
  /**
   * What was done, in words. Rejects with `roll_over_refused` when the move is not there to be made, is contended, or (undo) something was
   * signed. `rehearse` changes nothing; whether an undo comes too late shows only when it is made.
   */
  move(
    step: 'prepare' | 'switch' | 'undo' | 'retire',
    by: string,
    options?: { keyId?: Bytes; force?: boolean; rehearse?: boolean },
  ): Promise<string>
}

/** Devices of one read: about 10 ms of the thread that enrollments share. */
const devicesPerRead = 5000

const refusal = (detail: string) => new EstServerError('roll_over_refused', detail)

/** Rejects with `issuer_unusable` when store and configuration disagree on who signs. */
export async function openRollOver(options: RollOverOptions): Promise<RollOver> {
  const { store, fleet, main, next, clock, log } = options
  const configured = [main, ...(next ? [next] : []), ...options.previous]
  const certificateOf = (keyId: Bytes) => configured.find(other => equalBytes(other.keyId, keyId)) ?? null
  const now = () => Math.floor(clock.now())
  const entry = (by: string, detail: string): AuditEntry => ({
    ...{ at: now(), kind: 'issuer_moved', requestId: '', fleet, device: '', by, code: '', detail },
  })

  let standings: IssuerStanding[] = []
  let version = 0
  let admitted: IssuerCertificate[] = []
  let signing: Bytes = main.keyId
  const text = (all: IssuerStanding[]) => all.map(({ keyId, state, since }) => `${hexOf(keyId)} ${state} ${since}`).join()

  function take(read: IssuerStanding[]): boolean {
    if (version > 0 && text(read) === text(standings)) return false
    standings = read
    version++
    const order: IssuerState[] = ['signing', 'next', 'previous']
    admitted = order.flatMap(state =>
      standings.flatMap(standing => {
        const certificate = standing.state === state && certificateOf(standing.keyId)
        if (certificate === null)
          log.warn({ issuer: hexOf(standing.keyId), state }, 'an issuer is in the records and not in the configuration')
        return certificate || []
      }),
    )
    signing = standings.find(({ state }) => state === 'signing')?.keyId ?? main.keyId
    return true
  }

  const refresh = async () => take(await store.issuerStandings())

  /** What the configuration says by itself: the first issuer ever, earlier ones, and a key that took over without being prepared. */
  async function adopt(): Promise<void> {
    for (let attempt = 0; attempt < 3; attempt++) {
      const before = await store.issuerStandings()
      const at = now()
      const of = (keyId: Bytes) => before.find(other => equalBytes(other.keyId, keyId))
      const after = [...before]
      const said: string[] = []
      const set = (keyId: Bytes, state: IssuerState) => {
        const index = after.findIndex(other => equalBytes(other.keyId, keyId))
        after.splice(index < 0 ? after.length : index, 1, { keyId, state, since: at })
        said.push(`issuer ${hexOf(keyId)} is ${state}`)
      }
      const recorded = before.find(({ state }) => state === 'signing')
      if (!recorded) set(main.keyId, 'signing')
      else if (!equalBytes(recorded.keyId, main.keyId) && !(next && equalBytes(recorded.keyId, next.keyId))) {
        // Listed among the previous ones by an operator who means it; anything else is a configuration of another server, or of another day.
        const given = options.previous.some(({ keyId }) => equalBytes(keyId, recorded.keyId))
        const state = of(main.keyId)?.state
        if (!given || (state !== undefined && state !== 'next'))
          throw new EstServerError(
            'issuer_unusable',
            `by the records issuer ${hexOf(recorded.keyId)} signs, and the configuration has no key of it; name it as issuer, ` +
              'or as one of issuer.previous to let the configured one take over',
          )
        set(recorded.keyId, 'previous')
        set(main.keyId, 'signing')
      }
      for (const { keyId } of options.previous) if (!after.some(other => equalBytes(other.keyId, keyId))) set(keyId, 'previous')
      if (said.length === 0) return
      const audit = entry('configuration', said.join('; '))
      if ((await store.recordIssuers({ expected: before, standings: after, unused: null, audit })) === 'recorded') return
    }
    throw refusal('other processes move the issuers at the same time')
  }

  async function devicesOf(issuer: Bytes): Promise<number> {
    let devices = 0
    for (let after: number | null = 0; after !== null; ) {
      const page = await store.issuerDevices({ issuer, now: now(), after, rows: devicesPerRead })
      devices += page.devices
      after = page.next
      // Enrollments get their turn between two pages.
      await new Promise(resolve => setImmediate(resolve))
    }
    return devices
  }

  await adopt()
  await refresh()

  return {
    standings: () => standings,
    refresh,
    signing: () => signing,
    admitted: () => admitted,
    version: () => version,
    caCertificates() {
      const all = [...admitted.flatMap(({ certificate, chain }) => [certificate.der, ...chain]), ...(options.links ?? [])]
      return all.filter((der, i) => all.findIndex(other => equalBytes(other, der)) === i)
    },
    async report() {
      await refresh()
      const report: IssuerReport[] = []
      for (const standing of standings)
        report.push({ ...standing, certificate: certificateOf(standing.keyId), devices: await devicesOf(standing.keyId) })
      return report
    },
    async move(step, by, { keyId, force = false, rehearse = false } = {}) {
      await refresh()
      const expected = standings
      let result: Moved
      if (step === 'prepare') {
        // The one that is configured and not yet known; the configuration may have been tidied for the time after.
        const candidate = [next, main].find(other => other && !expected.some(known => equalBytes(known.keyId, other.keyId)))
        if (!candidate) throw refusal('the configuration names no issuer that is not known already: issuer.next')
        const end = candidate.certificate.notAfter
        if (end <= now()) throw refusal(`issuer ${hexOf(candidate.keyId)} has ended ${new Date(end * 1000).toISOString()}`)
        result = moved(expected, { step, keyId: candidate.keyId }, now())
      } else result = moved(expected, step === 'retire' ? { step, keyId: keyId ?? null } : ({ step } as RollOverMove), now())
      if (result.kind === 'refused') throw refusal(result.detail)
      if (step === 'switch' || step === 'undo') {
        const taking = result.standings.find(({ state }) => state === 'signing') as IssuerStanding
        if (![main, next].some(other => other && equalBytes(other.keyId, taking.keyId)))
          throw refusal(`the configuration has no key of issuer ${hexOf(taking.keyId)}`)
      }
      if (step === 'retire' && !force) {
        const leaving = result.standings.find(
          ({ state, keyId: id }) =>
            state === 'retired' && expected.some(other => other.state === 'previous' && equalBytes(other.keyId, id)),
        )
        const devices = leaving ? await devicesOf(leaving.keyId) : 0
        if (devices > 0) throw refusal(`${devices} devices still hold its certificates and would have to enroll anew`)
      }
      if (rehearse) return result.detail
      const outcome = await store.recordIssuers({
        expected,
        standings: result.standings,
        unused: result.unused,
        audit: entry(by, result.detail),
      })
      if (outcome === 'conflict') throw refusal('the issuers were moved by somebody else at the same time; look again')
      if (outcome === 'used') throw refusal('the new issuer has signed certificates already: forward only')
      await refresh()
      return result.detail
    },
  }
}
