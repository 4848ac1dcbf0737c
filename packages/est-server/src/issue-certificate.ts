// Steps 4 to 9 of enrollment: from an approval to a recorded certificate. The order is the promise: the intent is on the medium before the key
// is asked, and the certificate is before anybody gets it.

import type { Bytes } from '@birthmark/device-sdk/core'
import type { CertificateDetails } from './ca/certificate-template.ts'
import type { Authority, IssuancePermit } from './ca/issuance.ts'
import type { CertificateBudget } from './certificate-budget.ts'
import { EstServerError, failureCode } from './errors.ts'
import type { IssuerSet } from './issuer-set.ts'
import type { LoopTurns } from './loop-turns.ts'
import type { Clock, Failpoint, Log } from './ports.ts'
import type { Approval } from './registrar/decide.ts'
import type { ScepTransaction } from './store/scep.ts'
import type { AuditEntry, AuditKind, IntentConflict, IssuanceIntent, Store } from './store/store.ts'
import { UnavailableError } from './unavailability.ts'

/** The steps at which a crash is rehearsed, in order. */
export const failpoints = ['decided', 'reserved', 'prepared', 'intended', 'signed', 'verified', 'recorded'] as const

/** How often a serial that is taken is drawn anew, and a decision whose ground has moved is made anew. */
export const attemptsMax = 3

/** An audit entry about one request: what happened, in words, and a code where there is one. */
export type Note = (kind: AuditKind, detail: string, code?: string) => AuditEntry

/** By which profiles this server answers, where a fleet has several servers. */
export interface ProfileStanding {
  /** profileSetHash() of them. */
  hash: Bytes
  /** Which server has newer ones, and since when, in words; null while these are the newest. */
  superseded(): string | null
  /** Looks now. */
  refresh(): Promise<unknown>
}

export interface IssuingParts {
  store: Store
  certificates: Pick<CertificateBudget, 'spend'>
  issuers: IssuerSet
  clock: Clock
  log: Log
  nextSerial: () => Bytes
  failpoint: Failpoint | undefined
  profiles: ProfileStanding | undefined
  loopTurns: Pick<LoopTurns, 'turn'>
}

export interface Issuing {
  approval: Approval
  /** Whose budget pays for it. */
  name: string
  operation: string
  requestId: string
  note: Note
  transaction: ScepTransaction | undefined
  /** Whether it may wait behind everybody else. */
  patient: boolean
}

export type Issued =
  | { kind: 'issued'; certificate: Bytes; issuer: Bytes; notBefore: number; notAfter: number }
  /** What the decision rests on has changed: decide again. */
  | { kind: 'stale' }
  /** A group of the device was closed since. */
  | { kind: 'group_revoked' }
  /** The transaction id stands for another request. */
  | { kind: 'transaction_conflict' }

const hex = (bytes: Bytes) => Buffer.from(bytes).toString('hex')

/** A device that is told to come again may reach a server that has them. */
export const supersededError = (detail: string | null) =>
  new UnavailableError('profiles_superseded', 30, detail ?? 'another server of the fleet has newer profiles')

/** Throws UnavailableError, and what the store and the authority throw. */
export function createIssuing(parts: IssuingParts): (issuing: Issuing) => Promise<Issued> {
  const { store, certificates, issuers, clock, log, nextSerial } = parts
  const pass = async (name: (typeof failpoints)[number]) => parts.failpoint?.(name)

  function prepare(authority: Authority, details: CertificateDetails, { name, patient }: Issuing): IssuancePermit {
    try {
      return authority.prepare(details, patient)
    } catch (error) {
      // It was made and thrown away, with an idx and an alarm, and so would the next be. An issuer that is away or over cost the device nothing.
      if (failureCode(error) === 'lint_failed') certificates.spend(name)
      throw error
    }
  }

  /** 7. Sign, once. 8. Verify: a faulty signature is not released. */
  async function sign(
    authority: Authority,
    permit: IssuancePermit,
    intent: IssuanceIntent,
    { name, note, patient }: Issuing,
  ): Promise<Bytes> {
    // From here on it may be made. What failed before, at a store that is away, cost the device nothing.
    certificates.spend(name)
    try {
      // A crash behind this leaves a signature that nobody has seen.
      const signed = await authority.issue(permit, patient)
      // Those that were signed together are verified and recorded one after the other.
      if (patient) await parts.loopTurns.turn()
      await pass('signed')
      const { der } = authority.verify(signed)
      await pass('verified')
      return der
    } catch (error) {
      // The intent resolves to void here, or at the device's next request when the store does not answer either.
      const entry = note('intent_voided', `idx ${intent.idx} was not signed`, failureCode(error) ?? '')
      await store.voidIntent(intent.issuer, intent.serial, entry).catch(() => false)
      throw error
    }
  }

  type Attempt = { kind: 'conflict'; on: IntentConflict } | Issued

  async function attempt(issuing: Issuing): Promise<Attempt> {
    const { approval, operation, requestId, note, transaction } = issuing
    const { device, gids, csr, profile, names } = approval
    const { spkiSha256 } = csr
    const { fleet } = profile
    const { signing } = issuers.current()
    if (signing === null) throw new EstServerError('issuer_failed', 'another issuer signs now, and this process has no key of it')
    const { issuer, authority } = signing
    const at = Math.floor(clock.now())
    const notBefore = at - profile.backdateSeconds
    const notAfter = Math.min(at + profile.lifetimeSeconds, issuer.certificate.notAfter)
    // 4. Reserve serial and idx. A crash here leaves nothing behind.
    const serial = nextSerial()
    const idx = await store.reserveIdx(fleet)
    await pass('reserved')
    // 5. Prepare: build and lint. The key is not touched; a lint failure ends here.
    const details = {
      deviceId: device.id,
      serial,
      notBefore,
      notAfter,
      spki: csr.csr.spki,
      spkiSha256,
      subject: names.subject,
      alternativeNames: names.alternativeNames,
      extendedKeyUsage: profile.extendedKeyUsage,
      membership: { fleet, idx, gids },
    }
    const permit = prepare(authority, details, issuing)
    await pass('prepared')
    // 6. Record what will be signed. From here a crash leaves an open intent, which reconcile() or the device's next request voids.
    const intent: IssuanceIntent = {
      issuer: issuer.keyId,
      serial,
      fleet,
      device: device.key,
      deviceVersion: device.version,
      hold: device.hold,
      idx,
      gids,
      spkiSha256,
      contentSha256: approval.contentSha256,
      epoch: approval.epoch,
      notBefore,
      notAfter,
      secret: approval.secret,
      requestId,
      tbs: permit.tbs,
      at,
      consent: approval.consent,
    }
    if (transaction) intent.transaction = transaction
    if (parts.profiles) intent.profiles = parts.profiles.hash
    const result = await store.recordIntent(intent)
    if (result.kind === 'conflict') return result
    await pass('intended')
    const der = await sign(authority, permit, intent, issuing)
    // 9. Record the certificate. A crash after this loses the answer alone; the same request gets it again.
    const recorded = await store.recordCertificate({
      issuer: issuer.keyId,
      serial,
      der,
      idxFloor: approval.idxFloor === 'own' ? idx : approval.idxFloor,
      supersedes: approval.supersedes,
      supersedesSince: approval.supersedesSince,
      at,
      audit: note('certificate_issued', `${operation}, idx ${idx}, serial ${hex(serial)}`),
    })
    // Another server gave this intent up meanwhile; its own attempt may have won.
    if (recorded === 'conflict') return { kind: 'stale' }
    await pass('recorded')
    return { kind: 'issued', certificate: der, issuer: issuer.keyId, notBefore, notAfter }
  }

  return async issuing => {
    for (let i = 0; i < attemptsMax; i++) {
      const stand = issuers.current()
      const tried = await attempt(issuing)
      if (tried.kind !== 'conflict') return tried
      if (tried.on === 'group') return { kind: 'group_revoked' }
      if (tried.on === 'transaction') return { kind: 'transaction_conflict' }
      if (tried.on === 'profiles') {
        await parts.profiles?.refresh()
        throw supersededError(parts.profiles?.superseded() ?? null)
      }
      if (tried.on === 'issuer') {
        await issuers.refresh()
        if (issuers.current() === stand)
          throw new EstServerError('issuer_failed', 'by the records another issuer signs than this process knows of')
      }
      if (tried.on !== 'serial' && tried.on !== 'idx') return { kind: 'stale' }
      log.warn({ on: tried.on, requestId: issuing.requestId }, 'a serial or idx was taken; drawing another')
    }
    throw new UnavailableError(
      'serial_conflict',
      60,
      `${attemptsMax} serials in a row were taken: the random source repeats itself`,
    )
  }
}
