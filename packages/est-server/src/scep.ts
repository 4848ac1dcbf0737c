// The second door: SCEP (RFC 8894) on the same stories as EST. A message is opened step by step, and every step that fails ends in a signed
// CertRep with its failInfo. It decides nothing about devices: a challenge or the certificate that signed becomes a Peer, and enrollment does the
// rest. Promises: what stands outside the envelope is judged first; what is wrong inside looks the same whatever it was.

import { type Bytes, codeOf, equalBytes, parseCertificate } from '@birthmark/device-sdk/core'
import { createAuditBudget } from './audit-budget.ts'
import type { RaKey } from './ca/ra-key.ts'
import type { Enrollment } from './enrollment.ts'
import type { EnrollmentOutcome, Peer } from './enrollment-request.ts'
import { EstServerError, failureCode } from './errors.ts'
import { createLogBudget } from './log-budget.ts'
import { createLoopTurns, type LoopTurns } from './loop-turns.ts'
import { sha256 } from './node-crypto.ts'
import type { Clock, Log, RandomBytes } from './ports.ts'
import { type IssuerName, operationalClaim } from './registrar/authenticate.ts'
import { prove } from './registrar/possession.ts'
import type { EnrollmentProfile } from './registrar/profile.ts'
import { isRefusal, isUnauthenticated, type RefusalCode } from './registrar/refusal.ts'
import { createChallengeAdmission, withoutChallenge } from './scep-challenge.ts'
import { createScepEnvelopes, type EnclosedCsr, type OpenedMessage } from './scep-envelope.ts'
import { failInfoOf, failureOf, ScepFailure } from './scep-failure.ts'
import { type ScepOrigin, verifyMessage } from './scep-message.ts'
import { signedCertificates, signedReply } from './scep-reply.ts'
import type { ScepTransaction } from './store/scep.ts'
import type { CertificateRecord, Store } from './store/store.ts'
import type { Webhook } from './webhook.ts'
import { derOfBer } from './wire/ber.ts'
import { parseSigned, type SignedMessage } from './wire/cms-signed.ts'
import { encodeCertificateBag, encodeCrlBag } from './wire/degenerate-data.ts'
import {
  type FailInfo,
  headerOf,
  type MessageType,
  messageTypes,
  type PkiStatus,
  parseIssuerAndSerial,
  parseIssuerAndSubject,
  readableHeader,
  type ScepHeader,
} from './wire/scep.ts'
import { createWorkQueue } from './work-queue.ts'

export interface ScepOptions {
  ra: RaKey
  /** Of the issuer that a roll-over prepares: clients are shown it beforehand, and it is the RA from the moment that issuer signs. */
  nextRa?: RaKey | null
  /** RAs before this one, whose certificate clients still hold: their messages are read and answered with it. */
  previousRas?: RaKey[]
  /** Those that are reached by SCEP are served, the others are not there. */
  profiles: EnrollmentProfile[]
  enrollment: Pick<Enrollment, 'enroll' | 'caCertificates'>
  /** Issuers whose certificates sign renewals and are handed out again, as of now. */
  issuers: () => readonly IssuerName[]
  store: Store
  /** As in EnrollmentOptions. */
  status(membership: { fleet: string; idx: number; gids: number[] }, issuerKeyId: Bytes | null): 'good' | 'revoked' | 'unknown'
  /** DER of the list that a certificate is to be looked up in; null where there is none. */
  crl?: (certificate: CertificateRecord) => Promise<Bytes | null>
  /** During a roll-over: the CA certificates to come, DER. Empty otherwise. */
  nextCertificates?: (label: string | null) => Bytes[]
  /** For profiles whose owner answers for challenges. */
  webhook?: Webhook
  /** That answer on this port and record in this store; 1 unless told. */
  processes?: number
  /** Enrollment's, so that this door makes way for the other; one of its own unless told. */
  loopTurns?: LoopTurns
  clock: Clock
  random: RandomBytes
  log: Log
}

export interface ScepRequest extends ScepOrigin {
  message: Bytes
}

/** `busy`: not even a refusal can be signed now. */
export type ScepReply =
  | { kind: 'reply'; body: Bytes /** Of a closed set: for counting. */; outcome: 'success' | 'pending' | FailInfo | RefusalCode }
  | { kind: 'busy'; retryAfterSeconds: number }

export interface ScepService {
  /** What GetCACaps says, null for a label that is not served. Everything in it works. */
  capabilities(label: string | null): string[] | null
  /** Certs-only, DER: the RA first, then the issuer and what is above it. */
  caCertificates(label: string | null): Bytes | null
  /** A signed certs-only of the certificates to come; null where no roll-over is under way. */
  nextCaCertificates(label: string | null): Promise<Bytes | null>
  /** Never rejects. */
  pkiOperation(request: ScepRequest): Promise<ScepReply>
  /** Why no message can be answered now, or null: of the RAs that clients are shown. Costs nothing. */
  unready(): string | null
  close(): Promise<void>
}

/** Messages in work at once, what one batch of the RA's thread takes; what is beyond queues here. Together they cost few commits and few messages. */
const atOnceMax = 16
/** Messages that may queue: some two seconds of them. */
const queueMax = 2048

interface Answer {
  status: PkiStatus
  /** To be enveloped for the signer. */
  content: Bytes | null
}

export function createScep(options: ScepOptions): ScepService {
  const { ra, nextRa = null, enrollment, issuers, store, status, clock, random, log, processes } = options
  const ras = [ra, ...(nextRa ? [nextRa] : []), ...(options.previousRas ?? [])]
  const profiles = new Map(options.profiles.filter(p => p.scep !== null).map(p => [p.label, p]))
  for (const { label, scep } of profiles.values())
    if (scep?.webhook && !options.webhook)
      throw new EstServerError('profile_invalid', `profile ${label ?? '(none)'} has a rule that nothing here applies`)
  const budget = createAuditBudget({ store, clock, log, ...(processes && { processes }) })
  const strangers = createLogBudget(log, clock, processes)
  const envelopes = createScepEnvelopes({ ras, random, log })
  const admission = createChallengeAdmission({ store, webhook: options.webhook, clock, random })
  const queue = createWorkQueue({ atOnceMax, waitingMax: queueMax })
  const { turn } = options.loopTurns ?? createLoopTurns()
  const at = () => Math.floor(clock.now())

  /** What the RA's thread decrypted together is gone on with one after the other. */
  async function decrypt(verified: OpenedMessage): Promise<Bytes | null> {
    const content = await envelopes.decrypt(verified)
    await turn()
    return content
  }

  /** The one that clients are shown: of the issuer that signs now. */
  function currentRa(label: string | null): RaKey {
    const signing = nextRa && enrollment.caCertificates(label).at(0)
    return nextRa && signing && isIssuedBy(nextRa, signing) ? nextRa : ra
  }

  /** The device whose recorded, live certificate signed; null for anybody else. */
  async function operationalSigner({ signer, profile }: OpenedMessage) {
    let claim: ReturnType<typeof operationalClaim>
    try {
      claim = operationalClaim(parseCertificate(signer.der), [...issuers()])
    } catch (error) {
      if (codeOf(error) === null) throw error
      return null
    }
    const record = claim && (await store.certificate(claim.issuerKeyId, claim.serial))
    if (!claim || !record || record.fleet !== profile.fleet || !equalBytes(record.spkiSha256, claim.spkiSha256)) return null
    return record
  }

  function transactionOf(verified: OpenedMessage, csr: EnclosedCsr, challenge: Bytes | null): ScepTransaction {
    const { header, profile, signer } = verified
    const spkiSha256 = sha256(csr.spki)
    return {
      fleet: profile.fleet,
      label: profile.label ?? '',
      id: header.transactionId,
      spkiSha256,
      signerSpkiSha256: equalBytes(csr.spki, signer.spki) ? spkiSha256 : sha256(signer.spki),
      // Copies: the store's thread would be sent the whole buffers that these are views of.
      csr: withoutChallenge(csr),
      challenge,
      signer: challenge ? null : new Uint8Array(signer.der),
      at: at(),
    }
  }

  /** `csr`: null for that of the transaction, as it was kept. */
  async function ask(
    verified: OpenedMessage,
    operation: 'enroll' | 'reenroll',
    transaction: ScepTransaction,
    csr: Bytes | null,
  ): Promise<Answer> {
    const { origin, profile, signer, key } = verified
    const { label, address, requestId } = origin
    const peer: Peer = {
      ...{ chain: transaction.signer ? [transaction.signer] : null, basic: null, address, tlsVersion: '', resumed: false },
      scep: { challenge: transaction.challenge, signer: { spki: signer.spki, key }, proven: csr === null },
    }
    const known = await store.scepTransaction(transaction.fleet, transaction.label, transaction.id)
    const outcome: EnrollmentOutcome =
      known && !equalBytes(known.spkiSha256, transaction.spkiSha256)
        ? { kind: 'refused', code: 'transaction_conflict', detail: 'the transaction id stands for another key' }
        : await enrollment.enroll({ operation, label, csr: csr ?? transaction.csr, peer, requestId, transaction })
    switch (outcome.kind) {
      case 'issued':
        return { status: { kind: 'success' }, content: encodeCertificateBag([outcome.certificate, ...outcome.chain]) }
      case 'pending':
        // What there is to be polled for.
        if ((await store.recordScepTransaction(transaction)) === 'conflict')
          throw new ScepFailure('badRequest', 'the transaction id stands for another key', null, 'transaction_conflict')
        log.info({ requestId, fleet: profile.fleet }, 'SCEP: waits for approval')
        return { status: { kind: 'pending' }, content: null }
      default: {
        const { code, detail } = outcome
        // Who could not prove to be somebody, hears nothing that would help to become it.
        const silent =
          isUnauthenticated(code) || code.startsWith('csr_') || code === 'subject_not_own' || code === 'transaction_conflict'
        throw new ScepFailure(failInfoOf(code), detail, silent && operation === 'enroll' ? null : `${code}: ${detail}`, code)
      }
    }
  }

  async function enroll(verified: OpenedMessage): Promise<Answer> {
    const { profile, signer, origin } = verified
    // certmonger and old routers know no RenewalReq: they sign a PKCSReq with the certificate that they have (RFC 8894 2.3). What names one of
    // our issuers is that or nothing; a certificate made for the occasion names itself.
    if (issuers().some(({ subject }) => equalBytes(subject, signer.issuer))) return renew(verified)
    const content = await decrypt(verified)
    let csr = envelopes.csrOf(content, origin.requestId)
    if (!equalBytes(csr.spki, signer.spki) && csr !== envelopes.decoy) {
      // That the two differ is only said of a CSR that is whole. A bent one that happens to parse would otherwise tell its padding.
      const whole = prove(csr.der, profile.keys, { resumed: false, scep: {} }, { spki: null, key: null })
      if (!isRefusal(whole)) throw new ScepFailure('badMessageCheck', 'the message is signed with another key than the CSR holds')
      log.info({ requestId: origin.requestId, code: whole.code }, 'SCEP: another key, and the CSR is not whole')
      csr = envelopes.decoy
    }
    const challenge = await admission.hashOf(origin, profile, csr)
    return ask(verified, 'enroll', transactionOf(verified, csr, challenge), csr.der)
  }

  async function renew(verified: OpenedMessage): Promise<Answer> {
    // Before anything is decrypted: what a stranger's message holds is nobody's business.
    const signer = await operationalSigner(verified)
    if (signer === null)
      throw new ScepFailure(
        'badMessageCheck',
        'the message is not signed with a certificate of this server',
        undefined,
        'certificate_unknown',
      )
    const content = await decrypt(verified)
    const csr = envelopes.csrOf(content, verified.origin.requestId)
    return ask(verified, 'reenroll', transactionOf(verified, csr, null), csr.der)
  }

  async function poll(verified: OpenedMessage): Promise<Answer> {
    const { profile, header, signer } = verified
    const content = await decrypt(verified)
    if (content === null) throw new ScepFailure('badRequest', 'the content does not decrypt', null)
    parseIssuerAndSubject(derOfBer(content))
    const known = await store.scepTransaction(profile.fleet, profile.label ?? '', header.transactionId)
    // Another's transaction is as unknown as none.
    if (known === null || !equalBytes(known.signerSpkiSha256, sha256(signer.spki)))
      throw new ScepFailure('badCertId', 'no request waits under this transaction id')
    return ask(verified, known.signer ? 'reenroll' : 'enroll', known, null)
  }

  /** The certificate that a query names. To those who hold a certificate of the fleet, and about it alone. */
  async function asked(verified: OpenedMessage): Promise<CertificateRecord> {
    const content = await decrypt(verified)
    if (content === null) throw new ScepFailure('badRequest', 'the content does not decrypt', null)
    const id = parseIssuerAndSerial(derOfBer(content))
    const { profile, signer } = verified
    const reader = await operationalSigner(verified)
    const live = reader !== null && status(reader, reader.issuer) === 'good' && clock.now() <= reader.notAfter
    for (const { subject, keyId } of issuers()) {
      if (!equalBytes(subject, id.issuer)) continue
      const record = await store.certificate(keyId, id.serial)
      if (record === null || record.fleet !== profile.fleet) continue
      // Its own holder may have lost it, and then signs with a certificate made for the occasion.
      if (live || equalBytes(record.spkiSha256, sha256(signer.spki))) return record
    }
    throw new ScepFailure('badCertId', 'no such certificate, or it is none of yours')
  }

  async function getCert(verified: OpenedMessage): Promise<Answer> {
    const record = await asked(verified)
    return { status: { kind: 'success' }, content: encodeCertificateBag([record.der]) }
  }

  async function getCrl(verified: OpenedMessage): Promise<Answer> {
    const crl = (await options.crl?.(await asked(verified))) ?? null
    if (crl === null) throw new ScepFailure('badCertId', 'there is no revocation list for this certificate')
    return { status: { kind: 'success' }, content: encodeCrlBag(crl) }
  }

  const stories: Partial<Record<MessageType, (verified: OpenedMessage) => Promise<Answer>>> = {
    PKCSReq: enroll,
    RenewalReq: renew,
    CertPoll: poll,
    GetCert: getCert,
    GetCRL: getCrl,
  }

  async function record(
    { requestId, address }: ScepRequest,
    profile: EnrollmentProfile | undefined,
    failure: ScepFailure,
  ): Promise<void> {
    // Those with a code have been through enrollment, which keeps its own record.
    if (failure.code !== '' && failure.code !== 'certificate_unknown') return
    const entry = { at: at(), kind: 'enrollment_refused', requestId, fleet: profile?.fleet ?? '', device: '', by: address } as const
    try {
      await budget.record('', { ...entry, code: failure.code || failure.failInfo, detail: `SCEP: ${failure.message}` })
    } catch (error) {
      log.error({ code: failureCode(error), requestId }, 'a refusal could not be recorded')
    }
  }

  async function answer(request: ScepRequest): Promise<ScepReply> {
    const profile = profiles.get(request.label)
    let header: ScepHeader | null = null
    let signed: SignedMessage | null = null
    let key = currentRa(request.label)
    try {
      signed = parseSigned(derOfBer(request.message))
      header = headerOf(signed)
      if (profile === undefined) throw new ScepFailure('badRequest', 'no profile is reached by SCEP under this path')
      const verified = verifyMessage(request, signed, header, profile, clock.now())
      const type = Object.hasOwn(messageTypes, header.messageType)
        ? messageTypes[header.messageType as keyof typeof messageTypes]
        : null
      const story = type && stories[type]
      if (!story) throw new ScepFailure('badRequest', `message type ${header.messageType}`)
      const opened = envelopes.open(verified)
      key = opened.ra
      const { status: pkiStatus, content } = await story(opened)
      // Those whose certificates were recorded together are answered one after the other.
      await turn()
      const sealed = content && envelopes.seal(opened, content)
      const body = await signedReply(key, header, signed, pkiStatus, sealed, random)
      // And those that the RA signed together are sent so.
      await turn()
      return { kind: 'reply', body, outcome: pkiStatus.kind === 'failure' ? pkiStatus.failInfo : pkiStatus.kind }
    } catch (error) {
      const failure = failureOf(error, request.requestId, log)
      const { failInfo, text } = failure
      strangers.info(
        { requestId: request.requestId, address: request.address, failInfo, code: failure.code, detail: failure.message },
        'SCEP request refused',
      )
      await record(request, profile, failure)
      const told = { kind: 'failure', failInfo, text: text === null ? null : text.slice(0, 200) } as const
      header ??= readableHeader(signed?.attributes ?? [])
      return { kind: 'reply', body: await signedReply(key, header, signed, told, null, random), outcome: failure.code || failInfo }
    }
  }

  /** What is shown of a roll-over under way. */
  function nextCertificates(label: string | null): Bytes[] {
    const next = profiles.has(label) ? (options.nextCertificates?.(label) ?? []) : []
    if (next.length === 0) return []
    return nextRa && isIssuedBy(nextRa, next[0]) ? [nextRa.certificate.der, ...next] : next
  }

  return {
    capabilities(label) {
      const profile = profiles.get(label)
      if (profile === undefined) return null
      // RFC 8894 3.5.2. SCEPStandard says AES, POST and SHA-256 once more, for the clients that know the word.
      const more = [...(profile.scep?.tripleDes ? ['DES3'] : []), ...(nextCertificates(label).length > 0 ? ['GetNextCACert'] : [])]
      return ['AES', 'POSTPKIOperation', 'Renewal', 'SCEPStandard', 'SHA-256', 'SHA-512', ...more]
    },
    caCertificates: label =>
      profiles.has(label) ? encodeCertificateBag([currentRa(label).certificate.der, ...enrollment.caCertificates(label)]) : null,
    async nextCaCertificates(label) {
      const next = nextCertificates(label)
      return next.length === 0 ? null : signedCertificates(currentRa(label), next)
    },
    async pkiOperation(request) {
      const busy = { kind: 'busy', retryAfterSeconds: 5 } as const
      try {
        return (await queue.take(() => turn().then(() => answer(request)))) ?? busy
      } catch (error) {
        log.warn({ requestId: request.requestId, code: failureCode(error), err: error }, 'SCEP: no answer could be signed')
        return busy
      }
    },
    unready() {
      for (const label of profiles.keys()) {
        const reason = currentRa(label).unready?.() ?? null
        if (reason !== null) return reason
      }
      return null
    },
    async close() {
      await Promise.all(ras.map(one => one.close()))
    },
  }
}

/** By name and, where both say it, by key: a CA that rolls over may keep its name. */
function isIssuedBy({ certificate }: RaKey, authority: Bytes): boolean {
  const { subject, subjectKeyId } = parseCertificate(authority)
  if (!equalBytes(subject, certificate.issuer)) return false
  const { authorityKeyId } = certificate
  return authorityKeyId === null || subjectKeyId === null || equalBytes(authorityKeyId, subjectKeyId)
}
