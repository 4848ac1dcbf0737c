// The first story: from a request to a certificate, the steps numbered. It joins registrar (may this be issued?), ca (prepare and sign) and
// store (what was promised), none of which knows another. Promises: nothing is signed that was not recorded first; nothing is answered that
// is not recorded; the same request gets the same certificate; a failure at any step leaves a state that the next attempt continues from.

import { type Bytes, csrReader, type Membership } from '@birthmark/device-sdk/core'
import { createAuditBudget } from './audit-budget.ts'
import type { BearerTokens } from './bearer-token.ts'
import type { Issuer } from './ca/issuer-key.ts'
import type { Lint } from './ca/lint.ts'
import { serialSource } from './ca/serial.ts'
import { createCertificateBudget, type OverBudget } from './certificate-budget.ts'
import { createCertificateUse } from './certificate-use.ts'
import { csrDemand } from './csr-demand.ts'
import { createTurns } from './device-turns.ts'
import type { EnrollmentOutcome, EnrollmentRequest, Peer, ShownProof } from './enrollment-request.ts'
import { EstServerError, failureCode } from './errors.ts'
import { createGroupNames } from './group-names.ts'
import {
  attemptsMax,
  createIssuing,
  type failpoints,
  type Note,
  type ProfileStanding,
  supersededError,
} from './issue-certificate.ts'
import { type IssuerSet, type IssuerStand, soleIssuer } from './issuer-set.ts'
import { createLoopTurns, type LoopTurns } from './loop-turns.ts'
import { awaitApproval } from './manual-approval.ts'
import { sha256 } from './node-crypto.ts'
import { resolveOpenIntents } from './open-intents.ts'
import { createPeerIdentities } from './peer-identity.ts'
import type { Clock, Failpoint, Log, RandomBytes } from './ports.ts'
import { createRecordedTime } from './recorded-time.ts'
import { type Approval, decide, type Identity, isForgiven, waitsForPerson } from './registrar/decide.ts'
import { NameError } from './registrar/name-template.ts'
import { type ProvenCsr, prove } from './registrar/possession.ts'
import { certificateNames, type EnrollmentProfile, requestContent } from './registrar/profile.ts'
import { isRefusal, isUnauthenticated, type Refusal, refusal } from './registrar/refusal.ts'
import { detailWithRule } from './registrar/rule.ts'
import type { WebhookRule } from './registrar/webhook-rule.ts'
import { createRelays } from './relayed-peer.ts'
import { renewAfterSeconds } from './renewal-hint.ts'
import type { CertificateRecord, EnrollmentFacts, Store } from './store/store.ts'
import { UnavailableError, unavailabilityOf } from './unavailability.ts'
import type { Webhook } from './webhook.ts'

export interface EnrollmentOptions {
  store: Store
  /** One for good, or those that a roll-over moves among. */
  issuer: Issuer | IssuerSet
  /** One per label; at most one without. */
  profiles: EnrollmentProfile[]
  /** The rule set's word on a certificate. Asked at every request; anything but `good` refuses. */
  status(membership: Membership, issuerKeyId: Bytes | null): 'good' | 'revoked' | 'unknown'
  clock: Clock
  random: RandomBytes
  log: Log
  /** An operator's own rules for certificates, beside the built-in ones. */
  lints?: Lint[]
  /**
   * That issue from this store on this machine; 1 unless told. With more an open intent may be another's, and whoever started them sees to those
   * of the dead; and each takes its part of every budget.
   */
  processes?: number
  /** For profiles with a rule for bearer tokens. */
  tokens?: BearerTokens
  /** For profiles with a webhook. */
  webhook?: Webhook
  /** Where other servers answer for the fleet too: nothing is issued once one of them has newer profiles. */
  profileStanding?: ProfileStanding
  /** What is asked by SCEP makes way in them for what is asked by EST. Shared with the SCEP service; its own unless told. */
  loopTurns?: LoopTurns
  /** Called with each of `failpoints`. */
  failpoint?: Failpoint
}

export interface Enrollment {
  /** Never rejects. */
  enroll(request: EnrollmentRequest): Promise<EnrollmentOutcome>
  /**
   * For a story in front of this one: its client as this one knows it, then `work`, or what `work` refuses with, recorded as this one's refusals
   * are. `foresee` says what the client is refused whatever its key, before one is made for it; it throws where the client has had too many
   * certificates. It changes nothing but the record of that. Never rejects.
   */
  introduce<T extends object>(
    request: EnrollmentRequest,
    work: (profile: EnrollmentProfile, foresee: (csr: ProvenCsr) => Promise<Refusal | null>) => Promise<T | Refusal>,
  ): Promise<T | EnrollmentOutcome>
  /** Whether the label's clients read base64 of one line only. */
  bodyInOneLine(label: string | null): boolean
  /** For /cacerts: the issuer and everything above it, DER. Empty for an unknown label. */
  caCertificates(label: string | null): Bytes[]
  /** For /csrattrs: DER CsrAttrs, the names filled in where the peer's certificate says whose they are. Null for an unknown label; never refuses. */
  csrAttributes(peer: Peer, label: string | null): Promise<Bytes | null>
  /** Whether the peer's certificate was judged under this label and refused: what that cost is to be counted as its own. */
  isStranger(peer: Peer, label: string | null): boolean
  /**
   * Counts what a peer does besides enrolling as the first use of its certificate: from then on everything older of its device is superseded,
   * so that nobody renews with a copy of the last key. Settles when that is durable; never rejects.
   */
  noteUse(peer: Peer, label: string | null, proof?: ShownProof): Promise<void>
  /** Resolves every open intent, as the first request would otherwise wait for. Call it before listening. */
  reconcile(): Promise<{ voided: number }>
}

/** One request of a known device with a proven key. */
interface Turn {
  request: EnrollmentRequest
  profile: EnrollmentProfile
  identity: Identity
  csr: ProvenCsr
  note: Note
  /** The device's, with its fleet's: what its turns and budgets are counted by. */
  name: string
}

interface Recognised {
  kind: 'recognised'
  profile: EnrollmentProfile
  identity: Identity
}

/** SCEP brings as many at once as it likes: it makes way for EST. */
const isPatient = ({ request }: Turn) => request.peer.scep !== undefined

export function createEnrollment(options: EnrollmentOptions): Enrollment {
  const { store, clock, random, log, status, failpoint, processes = 1 } = options
  const issuers = 'current' in options.issuer ? options.issuer : soleIssuer(options.issuer, options.lints)
  const certificates = createCertificateBudget(clock, processes)
  const loopTurns = options.loopTurns ?? createLoopTurns()
  const issue = createIssuing({
    store,
    certificates,
    issuers,
    clock,
    log,
    nextSerial: serialSource(clock, random),
    failpoint,
    profiles: options.profileStanding,
    loopTurns,
  })
  const identities = createPeerIdentities(store, () => issuers.current().names, clock, options.tokens ?? null)
  for (const { label, tokens, webhook } of options.profiles)
    if ((tokens !== null && !options.tokens) || (webhook !== null && !options.webhook))
      throw new EstServerError('profile_invalid', `profile ${label ?? '(none)'} has a rule that nothing here applies`)
  const readCsr = csrReader()
  const turns = createTurns()
  const groupNames = createGroupNames(store)
  const recordedTime = createRecordedTime(store, clock)
  const use = createCertificateUse({ identities, store, status, clock })
  const relays = createRelays({
    identities,
    store,
    groupNames: (fleet, gids) => groupNames(fleet, [...gids]),
    status: ({ certificate: { fleet, idx, gids, issuer } }) => status({ fleet, idx, gids }, issuer),
    noteUse: use.by,
    clock,
  })
  const budget = createAuditBudget({ store, clock, log, processes })
  const profiles = profilesByLabel(options.profiles)
  const anchorKeys = options.profiles.flatMap(profile => profile.birthAnchors.map(anchor => sha256(anchor.spki)))
  let caKeysOf: IssuerStand | null = null
  let caKeys: Bytes[] = []
  const knownCaKeys = () => {
    const stand = issuers.current()
    if (stand !== caKeysOf) caKeys = [...stand.caKeys, ...anchorKeys]
    caKeysOf = stand
    return caKeys
  }
  const at = () => Math.floor(clock.now())

  const noteOf =
    ({ requestId, peer }: EnrollmentRequest, fleet: string, device: string): Note =>
    (kind, detail, code = '') => ({ at: at(), kind, requestId, fleet, device, by: peer.address, code, detail })

  /** `device`: '' while it is only claimed. The refusal stands without its record: a failing store must not turn a no into anything else. */
  async function refuse(
    request: EnrollmentRequest,
    fleet: string,
    device: string,
    { code, detail: culprit }: Refusal,
  ): Promise<EnrollmentOutcome> {
    const detail = detailWithRule(code, culprit)
    const unrecognised = isUnauthenticated(code)
    try {
      const source = device === '' || unrecognised ? '' : `${fleet}/${device}`
      await budget.record(source, noteOf(request, fleet, device)('enrollment_refused', detail, code))
    } catch (error) {
      log.error({ code: failureCode(error), requestId: request.requestId }, 'a refusal could not be recorded')
    }
    return { kind: unrecognised ? 'unauthenticated' : 'refused', code, detail }
  }

  const factsOf = ({ profile, identity, csr }: Turn, contentSha256: Bytes) =>
    store.enrollmentFacts(profile.fleet, identity.deviceId, csr.spkiSha256, contentSha256)

  /** Whether the profile takes a birth certificate's or a token's word for a device, and nothing is known of this one. */
  function isToBeAdmitted({ profile, identity }: Turn, { device, latest }: EnrollmentFacts): boolean {
    if (profile.requireManifest || (identity.kind !== 'birth' && identity.kind !== 'token')) return false
    // Pinned at first sight is the birth key of a device that has nothing yet: who holds a certificate by a secret or token is not taken over by
    // a manufacturer's certificate with the same serial number.
    return !(device && (identity.kind === 'token' || device.birthSpkiSha256 || latest))
  }

  /** Makes the device known; null when it cannot be. */
  async function admit(turn: Turn, contentSha256: Bytes): Promise<EnrollmentFacts | null> {
    const { profile, identity, note } = turn
    const { fleet } = profile
    const by =
      identity.kind === 'birth' ? 'a birth certificate under a trusted manufacturer' : 'a bearer token of the trusted issuer'
    const audit = note('device_admitted', `${by}; the profile asks for no manifest`)
    const birthSpkiSha256 = identity.kind === 'birth' ? identity.spkiSha256 : null
    const admitted = await store.admitDevice({
      fleet,
      id: identity.deviceId,
      birthSpkiSha256,
      groups: [...profile.groups],
      at: at(),
      audit,
    })
    return admitted && factsOf(turn, contentSha256)
  }

  /** Of the certificate that authenticates, or else of the device's last one. */
  function verdictOn(identity: Identity, { latest, device }: EnrollmentFacts) {
    const standing = identity.kind === 'operational' ? identity.certificate : latest
    const isAsked = standing !== null && (identity.kind === 'operational' || !isForgiven(standing, device))
    return isAsked ? status({ fleet: standing.fleet, idx: standing.idx, gids: standing.gids }, standing.issuer) : 'good'
  }

  async function foreseen(
    request: EnrollmentRequest,
    profile: EnrollmentProfile,
    identity: Identity,
    csr: ProvenCsr,
  ): Promise<Refusal | null> {
    const { fleet } = profile
    const { deviceId } = identity
    // Of a key that nobody has: what is said of the CSR's own does not count, since it gets no certificate.
    const contentSha256 = random(32)
    const facts = await store.enrollmentFacts(fleet, deviceId, contentSha256, contentSha256)
    // Admitted on its way by what vouches for it.
    if (facts.device === null && !profile.requireManifest && (identity.kind === 'birth' || identity.kind === 'token')) return null
    const groups = profile.namesNeedGroups && facts.device ? await groupNames(fleet, facts.device.gids) : []
    const asked = {
      operation: request.operation,
      profile,
      identity,
      csr: { ...csr, spkiSha256: contentSha256 },
      contentSha256,
      groups,
      approval: null,
    }
    const more = { caKeys: [], status: verdictOn(identity, facts), now: clock.now() }
    const decision = decide<CertificateRecord>({ ...asked, ...facts, ...more })
    // A new suspicion is to be recorded, which only the whole way does.
    const isNewSuspicion = facts.device?.suspectedAt === null
    if (decision.kind === 'refused') return decision.code === 'clone_suspected' && isNewSuspicion ? null : decision
    const turn = { request, profile, identity, csr, note: noteOf(request, fleet, deviceId), name: `${fleet}/${deviceId}` }
    const over = certificates.over(turn.name)
    if (over !== null) await turnAway(turn, over)
    return null
  }

  /** 3. Look up and decide. */
  async function judge(turn: Turn): Promise<EnrollmentOutcome | Approval> {
    const { request, profile, csr, note } = turn
    const { fleet } = profile
    const { deviceId } = turn.identity
    let { identity } = turn
    // The owner's system and the device's own turns may have taken longer than it lives.
    if (identity.kind === 'token' && clock.now() >= identity.expiresAt)
      return refuse(request, fleet, deviceId, refusal('token_expired', 'the bearer token expired while its request waited'))
    // An earlier turn of the same device may have spent it.
    if (identity.kind === 'secret') identity = { ...identity, secret: (await store.secret(identity.hash)) ?? identity.secret }
    const contentSha256 = requestContent(profile, csr.spkiSha256)
    let facts: EnrollmentFacts | null = await factsOf(turn, contentSha256)
    recordedTime.learn(facts.lastTime)
    if (recordedTime.isAhead()) await recordedTime.requireClock()
    if (isToBeAdmitted(turn, facts)) facts = await admit(turn, contentSha256)
    if (facts === null)
      return refuse(
        request,
        fleet,
        deviceId,
        refusal('device_key_mismatch', `device ${deviceId} or its birth key is known otherwise`),
      )
    const verdict = verdictOn(identity, facts)
    const groups = profile.namesNeedGroups && facts.device ? await groupNames(fleet, facts.device.gids) : []
    const decision = decide<CertificateRecord>({
      operation: request.operation,
      lenientNames: request.peer.scep !== undefined,
      profile,
      identity,
      csr,
      contentSha256,
      device: facts.device,
      latest: facts.latest,
      same: facts.same,
      keyHolder: facts.keyHolder,
      birthKeyHolder: facts.birthKeyHolder,
      groups,
      approval: waitsForPerson(profile, facts.latest) ? await store.approval(fleet, deviceId, contentSha256) : null,
      caKeys: knownCaKeys(),
      status: verdict,
      now: clock.now(),
    })
    if (decision.kind !== 'refused' && identity.kind === 'token' && identity.use !== null) {
      // Spent before anything is signed. A crash behind this leaves the token good for this same request.
      const { use, expiresAt } = identity
      if (!(await store.spendToken({ use, fleet, deviceId, contentSha256, expiresAt, at: at() })))
        return refuse(
          request,
          fleet,
          deviceId,
          refusal('token_used', `the bearer token of device ${deviceId} was used for another key`),
        )
    }
    if (decision.kind === 'approved') return decision.approval
    if (decision.kind === 'pending') {
      const { spkiSha256 } = csr
      const { epoch, names } = decision
      const of = { request, profile, deviceId, keyAlgorithm: csr.csr.keyAlgorithm, spkiSha256, contentSha256 }
      return awaitApproval(store, { ...of, epoch, names, at: at(), note })
    }
    if (decision.kind === 'refused') {
      if (decision.code === 'clone_suspected' && facts.device?.suspectedAt === null) {
        // Held back, whoever asks in its name, until an operator lifts it or the profile's window is over.
        log.error({ fleet, device: deviceId, requestId: request.requestId }, 'alarm: one identity, several live keys')
        await store.setSuspicion(fleet, deviceId, true, note('clone_suspected', decision.detail))
      }
      return refuse(request, fleet, deviceId, decision)
    }
    const { der, idx, issuer } = decision.certificate
    await budget.record(`${fleet}/${deviceId}`, note('certificate_returned', `idx ${idx}, made by an earlier, equal request`))
    return {
      kind: 'issued',
      certificate: der,
      chain: issuers.current().chainOf(issuer),
      again: true,
      renewAfterSeconds: renewAfterSeconds(profile, decision.certificate, csr.spkiSha256, clock.now()),
    }
  }

  /** A device in a loop is recorded once, and told when its next certificate may be had. */
  async function turnAway({ request, profile, identity, note, name }: Turn, over: OverBudget): Promise<never> {
    const code = 'certificates_too_often'
    const detail = `too many certificates were made for device ${identity.deviceId} in a short time`
    if (over.isFirst) {
      log.warn({ code, fleet: profile.fleet, device: identity.deviceId, requestId: request.requestId }, 'a device asks in a loop')
      await budget.record(name, note('enrollment_refused', detail, code))
    }
    throw new UnavailableError(code, over.retryAfterSeconds, detail)
  }

  async function serve(turn: Turn): Promise<EnrollmentOutcome> {
    const { request, profile, identity, note } = turn
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      const judged = await judge(turn)
      if ('kind' in judged) return judged
      const over = certificates.over(turn.name)
      if (over !== null) await turnAway(turn, over)
      if (judged.device.revoked) {
        // The profile readmits by birth, or it would not be approved. What it had is superseded from here on; then it is looked at anew.
        const said = note('device_readmitted', 'by its birth certificate, as the profile allows')
        await store.readmitDevice(profile.fleet, identity.deviceId, said)
        continue
      }
      await failpoint?.('decided' satisfies (typeof failpoints)[number])
      // 4. to 9. Reserve, prepare, record the intent, sign, verify, record the certificate.
      const { operation, requestId, transaction } = request
      const issued = await issue({
        approval: judged,
        name: turn.name,
        operation,
        requestId,
        note,
        transaction,
        patient: isPatient(turn),
      })
      // 10. Answer.
      if (issued.kind === 'issued')
        return {
          kind: 'issued',
          certificate: issued.certificate,
          chain: issuers.current().chainOf(issued.issuer),
          again: false,
          renewAfterSeconds: renewAfterSeconds(profile, issued, turn.csr.spkiSha256, clock.now()),
        }
      if (issued.kind === 'transaction_conflict')
        return refuse(
          request,
          profile.fleet,
          identity.deviceId,
          refusal('transaction_conflict', 'the transaction id stands for another key'),
        )
      if (issued.kind === 'group_revoked')
        return refuse(
          request,
          profile.fleet,
          identity.deviceId,
          refusal('group_revoked', `a group of device ${identity.deviceId} was revoked just now`),
        )
    }
    throw new UnavailableError('busy', 2, 'what is known of the device changes under way; try again')
  }

  function askOwner(request: EnrollmentRequest, profile: EnrollmentProfile, identity: Identity, csr: ProvenCsr) {
    const { requestId, operation, label, peer } = request
    return (options.webhook as Webhook).ask(profile.webhook as WebhookRule, {
      ...{ requestId, operation, label, fleet: profile.fleet, device: identity.deviceId, identity: identity.kind },
      ...{ address: peer.address, keyAlgorithm: csr.csr.keyAlgorithm, spkiSha256: Buffer.from(csr.spkiSha256).toString('hex') },
    })
  }

  /**
   * What the challenge of some device would have cost up to its refusal: time must not tell which challenges there are (FAULTS 28), nor a CSR that
   * was read from one that stands in for it (FAULTS 33). Not for renewals. A signer whose certificate or issuer has ended is refused before any CSR
   * is looked at. One that is revoked, superseded or suspected is known here, and refused by what is decided, behind the proof of its CSR: what
   * stands in for one gets no further than a bent one, as with a signer in good standing.
   */
  async function asIfKnown({ csr, peer }: EnrollmentRequest, profile: EnrollmentProfile): Promise<void> {
    const proven = prove(csr, profile.keys, peer, identities.keyMemoryOf(peer), false, readCsr)
    await lookUpNobody(profile.fleet, isRefusal(proven) ? random(32) : proven.spkiSha256)
  }

  async function lookUpNobody(fleet: string, spkiSha256: Bytes): Promise<void> {
    await store.secret(random(32))
    await store.enrollmentFacts(fleet, '', spkiSha256, random(32))
  }

  /** 1. Who is it? 401 until that is settled. */
  async function recognise(request: EnrollmentRequest): Promise<Recognised | EnrollmentOutcome> {
    const { operation, label, peer } = request
    if (operation !== 'enroll' && operation !== 'reenroll')
      return refuse(request, '', '', refusal('operation_unknown', `no operation ${JSON.stringify(String(operation).slice(0, 32))}`))
    const profile = profiles.get(label)
    if (profile === undefined)
      return refuse(request, '', '', refusal('label_unknown', `no profile is named ${JSON.stringify(label)}`))
    const superseded = options.profileStanding?.superseded() ?? null
    if (superseded !== null) throw supersededError(superseded)
    if (recordedTime.isAhead()) await recordedTime.requireClock()
    const claim = identities.claimOf(peer, profile)
    if (isRefusal(claim)) return refuse(request, profile.fleet, '', claim)
    const identity = await identities.identify(claim, profile)
    if (isRefusal(identity)) {
      if (peer.scep?.challenge) await asIfKnown(request, profile)
      return refuse(request, profile.fleet, 'deviceId' in claim ? claim.deviceId : '', identity)
    }
    return { kind: 'recognised', profile, identity }
  }

  /** Behind a gateway, the same request of the device itself. */
  async function unwrapped(request: EnrollmentRequest): Promise<EnrollmentRequest | EnrollmentOutcome> {
    const { proof, peer, label } = request
    const profile = profiles.get(label)
    if (!proof || !profile) return request
    const device = await relays.peerOf(proof, peer, profile)
    return isRefusal(device) ? refuse(request, profile.fleet, '', device) : { ...request, peer: device }
  }

  function answer(request: EnrollmentRequest, { profile, identity }: Recognised): Promise<EnrollmentOutcome> {
    const { peer } = request
    const { fleet } = profile
    const { deviceId } = identity
    // 2. Does it hold the key it asks for? Key policy first, then one signature.
    const csr = prove(request.csr, profile.keys, peer, identities.keyMemoryOf(peer), profile.possession === 'channel', readCsr)
    if (isRefusal(csr)) {
      if (peer.scep?.challenge) return lookUpNobody(fleet, random(32)).then(() => refuse(request, fleet, deviceId, csr))
      return refuse(request, fleet, deviceId, csr)
    }
    const turn = { request, profile, identity, csr, note: noteOf(request, fleet, deviceId), name: `${fleet}/${deviceId}` }
    if (profile.webhook === null) return inTurn(turn)
    // The owner's system may say no. Nothing was looked up yet and no turn taken, so that a slow answer holds up this request alone.
    return askOwner(request, profile, identity, csr).then(denied =>
      denied === null ? inTurn(turn) : refuse(request, fleet, deviceId, denied),
    )
  }

  /** 3. to 10. One request of a device at a time. */
  function inTurn(turn: Turn): Promise<EnrollmentOutcome> {
    const outcome = turns.take(turn.name, () => (isPatient(turn) ? serve(turn) : loopTurns.ahead(() => serve(turn))))
    if (outcome === null) throw new UnavailableError('busy', 5, 'too many requests of this device are waiting')
    return outcome
  }

  async function unavailable(request: EnrollmentRequest, error: unknown): Promise<EnrollmentOutcome> {
    const { code, retryAfterSeconds, message: detail } = unavailabilityOf(error)
    // Said and recorded where it began.
    if (code === 'certificates_too_often') return { kind: 'unavailable', code, retryAfterSeconds, detail }
    const fields = { code, requestId: request.requestId, err: error }
    if (code === 'busy') log.warn(fields, 'turned away')
    else if (code === 'lint_failed' || code === 'signature_wrong')
      log.error(fields, 'alarm: a certificate was stopped before its release')
    else log.error(fields, 'could not decide')
    // Every request of a superseded server fails so: its log lines and its readiness say it, and no record of each.
    if (code !== 'busy' && code !== 'store_unavailable' && code !== 'profiles_superseded')
      await budget
        .record('failure', noteOf(request, '', '')('failure', detail, code))
        .catch(() => log.error({ code, requestId: request.requestId }, 'a failure could not be recorded'))
    return { kind: 'unavailable', code, retryAfterSeconds, detail }
  }

  async function voidOpenIntents(): Promise<{ voided: number }> {
    await recordedTime.read()
    return processes > 1 ? { voided: 0 } : resolveOpenIntents({ store, clock })
  }

  /** What a certificate would be called now; null when a template has no value for the device. */
  async function namesFor(profile: EnrollmentProfile, id: string) {
    const { fleet } = profile
    const groups = profile.namesNeedGroups ? ((await store.device(fleet, id))?.groups ?? []) : []
    try {
      return certificateNames(profile, { id, fleet, groups })
    } catch (error) {
      if (error instanceof NameError) return null
      throw error
    }
  }

  let ready: Promise<{ voided: number }> | null = null
  let isReady = false
  const reconcile = () => {
    ready ??= voidOpenIntents().then(
      done => {
        isReady = true
        return done
      },
      error => {
        ready = null
        throw error
      },
    )
    return ready
  }

  return {
    async enroll(request) {
      try {
        if (!isReady) await reconcile()
        const own = request.proof ? await unwrapped(request) : request
        if ('kind' in own) return own
        const recognised = await recognise(own)
        return recognised.kind === 'recognised' ? await answer(own, recognised) : recognised
      } catch (error) {
        return unavailable(request, error)
      }
    },
    async introduce(request, work) {
      try {
        if (!isReady) await reconcile()
        const recognised = await recognise(request)
        if (recognised.kind !== 'recognised') return recognised
        const { profile, identity } = recognised
        const done = await work(profile, csr => foreseen(request, profile, identity, csr))
        return isRefusalOf(done) ? refuse(request, profile.fleet, identity.deviceId, done) : done
      } catch (error) {
        return unavailable(request, error)
      }
    },
    bodyInOneLine: label => profiles.get(label)?.bodyInOneLine ?? false,
    caCertificates: label => (profiles.has(label) ? issuers.current().caCertificates : []),
    async csrAttributes(peer, label) {
      const profile = profiles.get(label)
      if (profile === undefined) return null
      const deviceId = await identities.deviceIdOf(peer, profile)
      return csrDemand(profile, deviceId, profile.possession, deviceId === null ? null : await namesFor(profile, deviceId))
    },
    isStranger(peer, label) {
      const profile = profiles.get(label)
      return profile !== undefined && identities.isStranger(peer, profile)
    },
    async noteUse(via, label, proof) {
      const profile = profiles.get(label)
      if (profile === undefined) return
      try {
        const peer = proof ? await relays.peerOf(proof, via, profile) : via
        if (!isRefusal(peer)) await use.of(peer, profile)
      } catch (error) {
        // Its next connection, or its next renewal, says it again.
        log.warn({ code: failureCode(error), err: error }, 'the use of a certificate could not be noted')
      }
    },
    reconcile,
  }
}

/** An outcome has a kind, and a refusal that a front made has none yet. */
function isRefusalOf<T extends object>(value: T | Refusal): value is Refusal {
  return 'code' in value && !('kind' in value)
}

function profilesByLabel(all: EnrollmentProfile[]): Map<string | null, EnrollmentProfile> {
  const profiles = new Map<string | null, EnrollmentProfile>()
  for (const profile of all) {
    if (profiles.has(profile.label))
      throw new EstServerError('profile_invalid', `two profiles for label ${profile.label ?? '(none)'}`)
    profiles.set(profile.label, profile)
  }
  return profiles
}
