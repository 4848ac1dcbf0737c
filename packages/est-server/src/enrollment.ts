// The first story: from a request to a certificate, the steps numbered. It joins registrar (may this be issued?), ca (prepare and sign) and
// store (what was promised), none of which knows another. Promises: nothing is signed that was not recorded first; nothing is answered that
// is not recorded; the same request gets the same certificate; a failure at any step leaves a state that the next attempt continues from.

import { type Bytes, equalBytes, type Membership, parseCertificate } from '@birthmark/device-sdk/core'
import { createAuditBudget } from './audit-budget.ts'
import { createAuthority, type IssuedCertificate } from './ca/issuance.ts'
import type { Issuer } from './ca/issuer-key.ts'
import type { Lint } from './ca/lint.ts'
import { serialSource } from './ca/serial.ts'
import { createTurns } from './device-turns.ts'
import type { EnrollmentOutcome, EnrollmentRequest, Peer } from './enrollment-request.ts'
import { EstServerError, failureCode } from './errors.ts'
import { createVerifier, sha256 } from './node-crypto.ts'
import type { Clock, Failpoint, Log, RandomBytes } from './ports.ts'
import { type Claim, claimOfChain, claimOfSecret } from './registrar/authenticate.ts'
import { type Approval, decide, type Identity } from './registrar/decide.ts'
import { type KeyMemory, type ProvenCsr, prove } from './registrar/possession.ts'
import { type EnrollmentProfile, requestContent } from './registrar/profile.ts'
import { isUnauthenticated, type Refusal, type RefusalCode, refusal } from './registrar/refusal.ts'
import type { AuditKind, CertificateRecord, IssuanceIntent, Store } from './store/store.ts'

export interface EnrollmentOptions {
  store: Store
  issuer: Issuer
  /** One per label; at most one without. */
  profiles: EnrollmentProfile[]
  /** The rule set's word on a certificate. Asked at every request; anything but `good` refuses. */
  status(membership: Membership, issuerKeyId: Bytes | null): 'good' | 'revoked' | 'unknown'
  clock: Clock
  random: RandomBytes
  log: Log
  /** An operator's own rules for certificates, beside the built-in ones. */
  lints?: Lint[]
  failpoint?: Failpoint
}

export interface Enrollment {
  /** Never rejects. */
  enroll(request: EnrollmentRequest): Promise<EnrollmentOutcome>
  /** For /cacerts: the issuer and everything above it, DER. Empty for an unknown label. */
  caCertificates(label: string | null): Bytes[]
  /** Resolves every open intent, as the first request would otherwise wait for. Call it before listening. */
  reconcile(): Promise<{ voided: number }>
}

/** The steps at which a crash is rehearsed, in order. */
export const failpoints = ['decided', 'reserved', 'prepared', 'intended', 'signed', 'verified', 'recorded'] as const

/**
 * Seconds the clock may lie behind the latest recorded time. NTP steps by milliseconds; a virtual machine that was paused or a second server
 * of this store may be off by a minute.
 */
export const clockToleranceSeconds = 120

/** How often a serial that is taken is drawn anew, and a decision whose ground has moved is made anew. */
const attemptsMax = 3

/** What a connection is remembered for. Never: that its certificate is good now. */
interface PeerMemory {
  claims: Map<EnrollmentProfile, Claim | Refusal>
  key: KeyMemory
}

interface Turn {
  request: EnrollmentRequest
  profile: EnrollmentProfile
  identity: Identity
  csr: ProvenCsr
}

type Decided = EnrollmentOutcome | { kind: 'approved'; approval: Approval }

const isRefusal = (value: object): value is Refusal => 'code' in value

export function createEnrollment(options: EnrollmentOptions): Enrollment {
  const { store, issuer, clock, random, log, status } = options
  const authority = createAuthority(issuer, options.lints)
  const verifier = createVerifier()
  const nextSerial = serialSource(clock, random)
  const turns = createTurns()
  const budget = createAuditBudget({ store, clock, log })
  const peers = new WeakMap<Peer, PeerMemory>()
  const profiles = new Map<string | null, EnrollmentProfile>()
  for (const profile of options.profiles) {
    if (profiles.has(profile.label))
      throw new EstServerError('profile_invalid', `two profiles for label ${profile.label ?? '(none)'}`)
    profiles.set(profile.label, profile)
  }
  const above = [issuer.certificate.der, ...issuer.chain]
  // RFC 7030 4.2.3: what leads from the certificate to the trust anchor; the anchor itself comes from /cacerts.
  const chain = above.filter(der => {
    const certificate = parseCertificate(der)
    return !equalBytes(certificate.subject, certificate.issuer)
  })
  const issuers = [{ subject: issuer.certificate.subject, keyId: issuer.keyId }]
  const caKeys = above.map(der => sha256(parseCertificate(der).spki))
  for (const profile of options.profiles) for (const anchor of profile.birthAnchors) caKeys.push(sha256(anchor.spki))
  const at = () => Math.floor(clock.now())
  let latestTime = -1
  const pass = async (name: (typeof failpoints)[number]) => options.failpoint?.(name)

  function memoryOf(peer: Peer): PeerMemory {
    let memory = peers.get(peer)
    if (memory === undefined) {
      memory = { claims: new Map(), key: { spki: null, key: null } }
      peers.set(peer, memory)
    }
    return memory
  }

  /** What the credentials claim: judged once per connection, again when a birth path is outside the time it was valid in. */
  function claimOf(peer: Peer, profile: EnrollmentProfile): Claim | Refusal {
    // Together with a certificate the credentials are left alone: the stronger of the two identifies, and no failure falls back.
    if (peer.chain === null || peer.chain.length === 0) {
      if (peer.basic === null) return refusal('credentials_required', 'no client certificate and no secret came with the request')
      return claimOfSecret(peer.basic, profile)
    }
    const { claims } = memoryOf(peer)
    const now = clock.now()
    const known = claims.get(profile)
    if (known && !isRefusal(known) && (known.kind !== 'birth' || (now >= known.notBefore && now <= known.notAfter))) return known
    const claim = claimOfChain(peer.chain, profile, issuers, now, verifier)
    claims.set(profile, claim)
    return claim
  }

  /** A claim, with what the store holds about it. */
  async function identify(claim: Claim, profile: EnrollmentProfile): Promise<Identity | Refusal> {
    if (claim.kind === 'birth') return claim
    if (claim.kind === 'secret') {
      const secret = await store.secret(claim.hash)
      return secret === null ? refusal('secret_refused', 'unknown device or secret') : { ...claim, secret }
    }
    // By issuer, serial and key, never by the certificate's own hash: the twin of an ECDSA certificate has another one. What else the peer's
    // copy says is not read; our record speaks for it, and TLS has shown that the peer holds the recorded key.
    const certificate = await store.certificate(claim.issuerKeyId, claim.serial)
    if (certificate === null || certificate.fleet !== profile.fleet || !equalBytes(certificate.spkiSha256, claim.spkiSha256))
      return refusal('certificate_unknown', 'this operational certificate was not issued here, or to another fleet')
    if (clock.now() > certificate.notAfter)
      return refusal(
        'certificate_expired',
        `the operational certificate ended ${new Date(certificate.notAfter * 1000).toISOString()}`,
      )
    const { subject } = parseCertificate(certificate.der)
    return { kind: 'operational', deviceId: certificate.deviceId, certificate, subject }
  }

  const entryOf = (request: EnrollmentRequest, kind: AuditKind, fleet: string, device: string, code: string, detail: string) => ({
    ...{ at: at(), kind, requestId: request.requestId, fleet, device, by: request.peer.address, code, detail },
  })

  async function refuse(
    request: EnrollmentRequest,
    fleet: string,
    device: string,
    { code, detail }: Refusal,
  ): Promise<EnrollmentOutcome> {
    // Named as suspected, not proven: only a device whose claim was checked has a budget of its own.
    const source = device === '' || isUnauthenticated(code) ? '' : `${fleet}/${device}`
    if (code === 'clone_suspected')
      log.error({ fleet, device, code, requestId: request.requestId }, 'alarm: one identity, several live keys')
    try {
      await budget.record(source, entryOf(request, 'enrollment_refused', fleet, device, code, detail))
    } catch (error) {
      // The refusal stands without its record: the store's failure must not turn a no into anything else.
      log.error({ code: failureCode(error), requestId: request.requestId }, 'a refusal could not be recorded')
    }
    return { kind: isUnauthenticated(code) ? 'unauthenticated' : 'refused', code, detail }
  }

  /** Throws while the clock is behind the records: what it would date, and whom it would find expired, cannot be relied on. */
  async function requireForwardClock(): Promise<void> {
    if (clock.now() >= latestTime - clockToleranceSeconds) return
    // Asked anew, since an operator may have accepted the clock meanwhile.
    latestTime = await store.lastTime()
    const now = clock.now()
    if (now < latestTime - clockToleranceSeconds)
      throw new UnavailableError('clock_regressed', 60, `the clock says ${iso(now)}, the last record is of ${iso(latestTime)}`)
  }

  /** Step 3: look up what is known, and decide. Under the device's turn. */
  async function judge(turn: Turn): Promise<Decided> {
    const { request, profile, csr } = turn
    let { identity } = turn
    const { deviceId } = identity
    const contentSha256 = requestContent(profile, csr.spkiSha256)
    // An earlier turn of the same device may have spent it.
    if (identity.kind === 'secret') identity = { ...identity, secret: (await store.secret(identity.hash)) ?? identity.secret }
    let facts = await store.enrollmentFacts(profile.fleet, deviceId, csr.spkiSha256, contentSha256)
    const now = clock.now()
    latestTime = facts.lastTime
    await requireForwardClock()
    if (identity.kind === 'birth' && !profile.requireManifest && (facts.device === null || facts.device.birthSpkiSha256 === null)) {
      const audit = entryOf(
        request,
        'device_admitted',
        profile.fleet,
        deviceId,
        '',
        'birth certificate under a trusted manufacturer; no manifest asked for',
      )
      const groups = [...profile.groups]
      const admitted = await store.admitDevice({
        fleet: profile.fleet,
        id: deviceId,
        birthSpkiSha256: identity.spkiSha256,
        groups,
        at: at(),
        audit,
      })
      if (admitted === null)
        return refuse(
          request,
          profile.fleet,
          deviceId,
          refusal('device_key_mismatch', `device ${deviceId} or its birth key is known otherwise`),
        )
      facts = await store.enrollmentFacts(profile.fleet, deviceId, csr.spkiSha256, contentSha256)
    }
    const standing = identity.kind === 'operational' ? identity.certificate : facts.latest
    const verdict = standing ? status({ fleet: standing.fleet, idx: standing.idx, gids: standing.gids }, standing.issuer) : 'good'
    const { operation } = request
    const decision = decide<CertificateRecord>({
      operation,
      profile,
      identity,
      csr,
      contentSha256,
      ...facts,
      caKeys,
      status: verdict,
      now,
    })
    if (decision.kind === 'approved') return decision
    if (decision.kind === 'refused') return refuse(request, profile.fleet, deviceId, decision)
    const { der, idx } = decision.certificate
    const entry = entryOf(
      request,
      'certificate_returned',
      profile.fleet,
      deviceId,
      '',
      `idx ${idx}, made by an earlier request of the same content`,
    )
    await budget.record(`${profile.fleet}/${deviceId}`, entry)
    return { kind: 'issued', certificate: der, chain, again: true }
  }

  /** Steps 4 to 9 for one approval. Null: the ground has moved, decide again. */
  async function issue({ request, profile }: Turn, approval: Approval): Promise<EnrollmentOutcome | null> {
    const { device, csr, contentSha256 } = approval
    const now = at()
    const notBefore = now - profile.backdateSeconds
    const notAfter = Math.min(now + profile.lifetimeSeconds, issuer.certificate.notAfter)
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      // 4. Reserve serial and idx. A crash here leaves nothing behind.
      const serial = nextSerial()
      const idx = await store.reserveIdx(profile.fleet)
      await pass('reserved')
      // 5. Prepare: build and lint. The key is not touched; a lint failure ends here.
      const membership = { fleet: profile.fleet, idx, gids: device.gids }
      const { spkiSha256 } = csr
      const details = {
        deviceId: device.id,
        serial,
        notBefore,
        notAfter,
        spki: csr.csr.spki,
        spkiSha256,
        uri: approval.uri,
        membership,
      }
      const permit = authority.prepare(details)
      await pass('prepared')
      // 6. Record what will be signed. From here a crash leaves an open intent, which reconcile() or the device's next request voids.
      const intent: IssuanceIntent = {
        ...{
          issuer: issuer.keyId,
          serial,
          fleet: profile.fleet,
          device: device.key,
          deviceVersion: device.version,
          idx,
          gids: device.gids,
        },
        ...{
          spkiSha256,
          contentSha256,
          epoch: approval.epoch,
          notBefore,
          notAfter,
          secret: approval.secret,
          tbs: permit.tbs,
          at: now,
        },
        requestId: request.requestId,
      }
      const result = await store.recordIntent(intent)
      if (result.kind === 'conflict') {
        if (result.on === 'serial' || result.on === 'idx') {
          log.warn({ on: result.on, requestId: request.requestId }, 'a serial or idx was taken; drawing another')
          continue
        }
        if (result.on === 'group')
          return refuse(
            request,
            profile.fleet,
            device.id,
            refusal('group_revoked', `a group of device ${device.id} is being revoked`),
          )
        return null
      }
      await pass('intended')
      let certificate: IssuedCertificate
      try {
        // 7. Sign, once. A crash here leaves a signature that nobody has seen.
        const signed = await authority.issue(permit)
        await pass('signed')
        // 8. Verify: a faulty signature is not released.
        certificate = authority.verify(signed)
        await pass('verified')
      } catch (error) {
        // The intent resolves to void here, or at the device's next request when the store does not answer either.
        const entry = entryOf(
          request,
          'intent_voided',
          profile.fleet,
          device.id,
          failureCode(error) ?? '',
          `idx ${idx} was not signed`,
        )
        await store.voidIntent(issuer.keyId, serial, entry).catch(() => false)
        throw error
      }
      // 9. Record the certificate. A crash after this loses the answer alone; the same request gets it again.
      const audit = entryOf(
        request,
        'certificate_issued',
        profile.fleet,
        device.id,
        '',
        `${request.operation}, idx ${idx}, serial ${hex(serial)}`,
      )
      const { supersedes, supersedesSince } = approval
      const idxFloor = approval.idxFloor === 'own' ? idx : approval.idxFloor
      const issued = { issuer: issuer.keyId, serial, der: certificate.der, idxFloor, supersedes, supersedesSince, at: now, audit }
      if ((await store.recordCertificate(issued)) === 'conflict') return null
      await pass('recorded')
      // 10. Answer.
      return { kind: 'issued', certificate: certificate.der, chain, again: false }
    }
    throw new UnavailableError(
      'serial_conflict',
      60,
      `${attemptsMax} serials in a row were taken: the random source repeats itself`,
    )
  }

  async function answer(request: EnrollmentRequest): Promise<EnrollmentOutcome> {
    if (request.operation !== 'enroll' && request.operation !== 'reenroll')
      return refuse(
        request,
        '',
        '',
        refusal('operation_unknown', `no operation ${JSON.stringify(String(request.operation).slice(0, 32))}`),
      )
    const profile = profiles.get(request.label)
    if (profile === undefined)
      return refuse(request, '', '', refusal('label_unknown', `no profile is named ${JSON.stringify(request.label)}`))
    const { fleet } = profile
    await requireForwardClock()
    // 1. Who is it? 401 until that is settled.
    const claim = claimOf(request.peer, profile)
    if (isRefusal(claim)) return refuse(request, fleet, '', claim)
    const identity = await identify(claim, profile)
    if (isRefusal(identity)) return refuse(request, fleet, claim.kind === 'operational' ? '' : claim.deviceId, identity)
    // 2. Does it hold the key it asks for? Key policy first, then one signature.
    const csr = prove(request.csr, profile.keys, request.peer, memoryOf(request.peer).key)
    if (isRefusal(csr)) return refuse(request, fleet, identity.deviceId, csr)
    // 3. to 10. One request of a device at a time.
    const turn = { request, profile, identity, csr }
    const outcome = await turns.take(`${fleet}/${identity.deviceId}`, async () => {
      for (let attempt = 0; attempt < attemptsMax; attempt++) {
        const decided = await judge(turn)
        if (decided.kind !== 'approved') return decided
        await pass('decided')
        const issued = await issue(turn, decided.approval)
        if (issued !== null) return issued
      }
      throw new UnavailableError('busy', 2, 'what is known of the device changes under way; try again')
    })
    if (outcome === null) throw new UnavailableError('busy', 5, 'too many requests of this device are waiting')
    return outcome
  }

  async function unavailable(request: EnrollmentRequest, error: unknown): Promise<EnrollmentOutcome> {
    const [code, retryAfterSeconds, detail] = unavailability(error)
    const fields = { code, requestId: request.requestId, err: error }
    if (code === 'busy') log.warn(fields, 'turned away')
    else
      log.error(
        fields,
        code === 'lint_failed' || code === 'signature_wrong'
          ? 'alarm: a certificate was stopped before its release'
          : 'could not decide',
      )
    if (code !== 'busy' && code !== 'store_unavailable')
      await budget
        .record('failure', entryOf(request, 'failure', '', '', code, detail))
        .catch(() => log.error({ code }, 'a failure could not be recorded'))
    return { kind: 'unavailable', code, retryAfterSeconds, detail }
  }

  async function voidOpenIntents(): Promise<{ voided: number }> {
    let voided = 0
    latestTime = await store.lastTime()
    for (;;) {
      const open = await store.openIntents(100)
      if (open.length === 0) return { voided }
      for (const o of open) {
        // No certificate was recorded under it, so none was released: whatever was signed is in nobody's hands, and its serial stays spent.
        const detail = `serial ${hex(o.serial)}, open since ${iso(o.at)}`
        const audit = {
          at: at(),
          kind: 'intent_voided',
          requestId: o.requestId,
          fleet: o.fleet,
          device: o.deviceId,
          by: 'reconcile',
          code: '',
          detail,
        } as const
        if (await store.voidIntent(o.issuer, o.serial, audit)) voided++
      }
    }
  }

  let ready: Promise<{ voided: number }> | null = null
  const reconcile = () => {
    ready ??= voidOpenIntents().catch(error => {
      ready = null
      throw error
    })
    return ready
  }

  return {
    async enroll(request) {
      try {
        await reconcile()
        return await answer(request)
      } catch (error) {
        return unavailable(request, error)
      }
    },
    caCertificates: label => (profiles.has(label) ? above : []),
    reconcile,
  }
}

/** Thrown inside the story, where no decision about the device can be made. */
class UnavailableError extends Error {
  readonly code: RefusalCode
  readonly retryAfterSeconds: number
  constructor(code: RefusalCode, retryAfterSeconds: number, detail: string) {
    super(detail)
    this.code = code
    this.retryAfterSeconds = retryAfterSeconds
  }
}

function unavailability(error: unknown): [RefusalCode, number, string] {
  if (error instanceof UnavailableError) return [error.code, error.retryAfterSeconds, error.message]
  switch (failureCode(error)) {
    case 'store_busy':
      return ['busy', 2, 'too many writes are waiting']
    case 'store_failed':
    case 'store_unknown':
    case 'store_closed':
      return ['store_unavailable', 10, 'the store does not take records now']
    case 'issuer_failed':
    case 'issuer_unusable':
      return ['issuer_unavailable', 30, 'the issuer key is not available now']
    case 'lint_failed':
      return ['lint_failed', 60, 'the prepared certificate broke a rule and was not signed']
    case 'signature_wrong':
      return ['signature_wrong', 60, 'the issuer key gave a wrong signature, which was discarded']
    default:
      return ['internal', 60, 'an unexpected failure; the log has it under the request id']
  }
}

const hex = (bytes: Bytes) => Buffer.from(bytes).toString('hex')
const iso = (seconds: number) => new Date(seconds * 1000).toISOString()
