// The second door: SCEP (RFC 8894) on the same stories as EST. A message is opened step by step, and every step that fails ends in a signed
// CertRep with its failInfo. It decides nothing about devices: a challenge or the certificate that signed becomes a Peer, and enrollment does the
// rest. Promises: what stands outside the envelope is judged first; what is wrong inside looks the same whatever it was.

import { createHash, hash, type KeyObject, timingSafeEqual } from 'node:crypto'
import {
  algorithmFitsKey,
  type Bytes,
  CHALLENGE_PASSWORD,
  COMMON_NAME,
  challengePassword,
  codeOf,
  csrAssemble,
  csrInfo,
  encodeAttribute,
  encodeCertsOnly,
  encodeElement,
  encodeName,
  equalBytes,
  nameAttribute,
  PRINTABLE_STRING,
  parseCertificate,
  parseCsr,
  SERIAL_NUMBER,
} from '@birthmark/device-sdk/core'
import { createAuditBudget } from './audit-budget.ts'
import type { RaKey } from './ca/ra-key.ts'
import { openContent, sealContent } from './cms-cipher.ts'
import type { Enrollment } from './enrollment.ts'
import type { EnrollmentOutcome, Peer } from './enrollment-request.ts'
import { failureCode } from './errors.ts'
import { createLogBudget } from './log-budget.ts'
import { importKey, sha256, verifyWith } from './node-crypto.ts'
import type { Clock, Log, RandomBytes } from './ports.ts'
import { type IssuerName, operationalClaim } from './registrar/authenticate.ts'
import { challengeHash } from './registrar/challenge.ts'
import { keyRefusal } from './registrar/key-policy.ts'
import { prove } from './registrar/possession.ts'
import { type EnrollmentProfile, isDeviceId } from './registrar/profile.ts'
import { isRefusal, isUnauthenticated, type RefusalCode } from './registrar/refusal.ts'
import { failInfoOf } from './scep-failure.ts'
import type { ScepTransaction } from './store/scep.ts'
import type { Store } from './store/store.ts'
import { derOfBer } from './wire/ber.ts'
import { type ContentCipher, type Envelope, type KeyTransport, keyBytesOf, parseEnvelope } from './wire/cms-envelope.ts'
import { CmsError } from './wire/cms-error.ts'
import {
  attributeValue,
  draftSigned,
  MESSAGE_DIGEST,
  parseSigned,
  type SignedMessage,
  type SignerCertificate,
  signerCertificateOf,
  signingTimeOf,
} from './wire/cms-signed.ts'
import {
  certRepAttributes,
  encodeCrlOnly,
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

export interface ScepOptions {
  ra: RaKey
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
  /** DER of the list that a certificate (issuer's key identifier and serial) is to be looked up in; null where there is none. */
  crl?: (issuerKeyId: Bytes, serial: Bytes) => Promise<Bytes | null>
  /** During a roll-over: the RA and CA certificates to come, DER. Empty otherwise. */
  nextCertificates?: (label: string | null) => Bytes[]
  clock: Clock
  random: RandomBytes
  log: Log
}

export interface ScepRequest {
  message: Bytes
  label: string | null
  address: string
  requestId: string
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
  close(): Promise<void>
}

/** How far a signingTime may be off. It is left out by most clients; one that says it has a clock (FAULTS 34). */
export const signingTimeSkewSeconds = 900

/**
 * Messages in work at once: two batches of the RA's thread, so that it never waits for the next, and the store commits what it answered together.
 * What is beyond queues here.
 */
const atOnceMax = 32
/** Messages that may queue: some two seconds of them. */
const queueMax = 2048

/** A CSR has 16 KB at most; what is longer inside is none. */
const plainBytesMax = 32_768

/** Ends a request with a signed failure. `text`: for whoever may know; null says nothing. */
class Failure extends Error {
  readonly failInfo: FailInfo
  readonly code: RefusalCode | ''
  readonly text: string | null

  constructor(failInfo: FailInfo, detail: string, text: string | null = detail, code: RefusalCode | '' = '') {
    super(detail)
    this.failInfo = failInfo
    this.code = code
    this.text = text
  }
}

/** A message whose signature is good. */
interface Verified {
  request: ScepRequest
  profile: EnrollmentProfile
  signed: SignedMessage
  header: ScepHeader
  signer: SignerCertificate
  /** The signer's. */
  key: KeyObject
}

interface Answer {
  status: PkiStatus
  /** To be enveloped for the signer. */
  content: Bytes | null
}

const empty = new Uint8Array(0)

const hexOf = (bytes: Bytes) => Buffer.from(bytes).toString('hex')

export function createScep(options: ScepOptions): ScepService {
  const { ra, enrollment, issuers, store, status, clock, random, log } = options
  const ras = [ra, ...(options.previousRas ?? [])]
  const profiles = new Map(options.profiles.filter(p => p.scep !== null).map(p => [p.label, p]))
  const budget = createAuditBudget({ store, clock, log })
  const strangers = createLogBudget(log, clock)
  const decoy = decoyCsr(ra, random)
  const at = () => Math.floor(clock.now())

  // ---- Outside the envelope.

  function verify(request: ScepRequest, signed: SignedMessage, header: ScepHeader, profile: EnrollmentProfile): Verified {
    const { algorithms } = signed
    if (algorithms === null) throw signed.refused ?? new Failure('badAlg', 'algorithms')
    const signer = signerCertificateOf(signed.certificates, signed.signer)
    if (signer === null) throw new Failure('badMessageCheck', 'the certificate of the signer is not in the message')
    // Before anything is verified with it, and because the answer is encrypted to it (FAULTS 73).
    const weak = keyRefusal({ keyAlgorithm: signer.key.algorithm, keyBits: signer.key.bits, spki: signer.spki }, ['RSA'])
    if (weak) throw new Failure('badAlg', `the signer: ${weak.detail}`)
    if (!algorithmFitsKey(algorithms.signature, signer.key.algorithm))
      throw new Failure('badAlg', `${algorithms.signature} with a ${signer.key.algorithm} key`)
    if (signed.content === null) throw new Failure('badRequest', 'no content')
    const digest = attributeValue(signed.attributes, MESSAGE_DIGEST)
    const own = hash(algorithms.digest, signed.content, 'buffer')
    if (digest === null || !equalBytes(digest, encodeElement(4, [own])))
      throw new Failure('badMessageCheck', 'the message digest is not that of the content')
    const key = importKey(signer.spki)
    if (key === null) throw new Failure('badAlg', 'the key of the signer is not one')
    if (!signed.signed.some(bytes => verifyWith(key, algorithms.signature, bytes, signed.signature)))
      throw new Failure('badMessageCheck', 'the signature does not verify')
    const time = signingTimeOf(signed.attributes)
    if (time !== null && Math.abs(time - clock.now()) > signingTimeSkewSeconds)
      throw new Failure('badTime', `the message says it was signed ${new Date(time * 1000).toISOString()}`)
    return { request, profile, signed, header, signer, key }
  }

  /** The device whose recorded, live certificate signed; null for anybody else. */
  async function operationalSigner({ signer, profile }: Verified) {
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

  // ---- Inside the envelope.

  function envelopeOf({ signed, profile }: Verified): { envelope: Envelope; key: RaKey } {
    const envelope = parseEnvelope(derOfBer(signed.content as Bytes))
    if (envelope.cipher === 'des-ede3-cbc' && !profile.scep?.tripleDes)
      throw new Failure('badAlg', 'triple DES: the profile does not allow it; use AES')
    const { recipient } = envelope
    const key = ras.find(({ certificate }) =>
      'subjectKeyId' in recipient
        ? certificate.subjectKeyId && equalBytes(certificate.subjectKeyId, recipient.subjectKeyId)
        : equalBytes(certificate.issuer, recipient.issuer) && equalBytes(certificate.serial, recipient.serial),
    )
    if (key === undefined) throw new Failure('badRequest', 'encrypted to another certificate; ask GetCACert again')
    return { envelope, key }
  }

  /** Null where it could not be decrypted, however that came. */
  async function decrypted(verified: Verified): Promise<{ envelope: Envelope; content: Bytes | null }> {
    const { envelope, key } = envelopeOf(verified)
    const oaep = envelope.transport.kind === 'oaep' ? envelope.transport.digest : null
    const contentKey = await key.decrypt(envelope.encryptedKey, oaep, keyBytesOf[envelope.cipher])
    const { sound, content } = openContent(envelope, contentKey)
    return { envelope, content: sound && content.length <= plainBytesMax ? content : null }
  }

  /** The CSR inside; the decoy where there is none, which then meets the fate of a wrong challenge, in as much time. */
  function csrOf(content: Bytes | null, requestId: string): { der: Bytes; spki: Bytes; challenge: string | null } {
    for (const der of [content, decoy]) {
      if (der === null) {
        log.info({ requestId }, 'SCEP: the content does not decrypt')
        continue
      }
      try {
        const csr = parseCsr(der === decoy ? decoy : derOfBer(der))
        return { der: csr.der, spki: csr.spki, challenge: challengePassword(csr) }
      } catch (error) {
        if (codeOf(error) === null && !(error instanceof CmsError)) throw error
        log.info({ requestId, err: error }, 'SCEP: no CSR inside')
      }
    }
    throw new Error('the decoy does not parse')
  }

  function transactionOf(verified: Verified, csr: { der: Bytes; spki: Bytes }, challenge: Bytes | null): ScepTransaction {
    const { header, profile, signer } = verified
    return {
      fleet: profile.fleet,
      label: profile.label ?? '',
      id: header.transactionId,
      spkiSha256: sha256(csr.spki),
      signerSpkiSha256: sha256(signer.spki),
      // Copies: the store's thread would be sent the whole buffers that these are views of.
      csr: new Uint8Array(csr.der),
      challenge,
      signer: challenge ? null : new Uint8Array(signer.der),
      at: at(),
    }
  }

  async function ask(verified: Verified, operation: 'enroll' | 'reenroll', transaction: ScepTransaction): Promise<Answer> {
    const { request, profile, signer, key } = verified
    const { label, address, requestId } = request
    const peer: Peer = {
      ...{ chain: transaction.signer ? [transaction.signer] : null, basic: null, address, tlsVersion: '', resumed: false },
      scep: { challenge: transaction.challenge, signer: { spki: signer.spki, key } },
    }
    const known = await store.scepTransaction(transaction.fleet, transaction.label, transaction.id)
    const outcome: EnrollmentOutcome =
      known && !equalBytes(known.spkiSha256, transaction.spkiSha256)
        ? { kind: 'refused', code: 'transaction_conflict', detail: 'the transaction id stands for another key' }
        : await enrollment.enroll({ operation, label, csr: transaction.csr, peer, requestId, transaction })
    switch (outcome.kind) {
      case 'issued':
        return { status: { kind: 'success' }, content: encodeCertsOnly([outcome.certificate, ...outcome.chain]) }
      case 'pending':
        // What there is to be polled for.
        if ((await store.recordScepTransaction(transaction)) === 'conflict')
          throw new Failure('badRequest', 'the transaction id stands for another key', null, 'transaction_conflict')
        log.info({ requestId, fleet: profile.fleet }, 'SCEP: waits for approval')
        return { status: { kind: 'pending' }, content: null }
      default: {
        const { code, detail } = outcome
        // Who could not prove to be somebody, hears nothing that would help to become it.
        const silent =
          isUnauthenticated(code) || code.startsWith('csr_') || code === 'subject_not_own' || code === 'transaction_conflict'
        throw new Failure(failInfoOf(code), detail, silent && operation === 'enroll' ? null : `${code}: ${detail}`, code)
      }
    }
  }

  /**
   * In development alone: whoever shows the static challenge gets one of its own, derived from what is asked so that the same request finds it
   * again.
   */
  async function developmentChallenge(profile: EnrollmentProfile, csr: { der: Bytes; spki: Bytes }): Promise<Bytes | null> {
    const { subject } = parseCsr(csr.der)
    const deviceId = nameAttribute(subject, SERIAL_NUMBER) ?? nameAttribute(subject, COMMON_NAME) ?? ''
    if (!isDeviceId(deviceId)) return null
    const token = createHash('sha256')
      .update(`${profile.scep?.staticChallenge}\0${deviceId}\0`)
      .update(csr.spki)
      .digest('base64url')
    const minted = challengeHash(profile.fleet, profile.label, token)
    if (minted === null || (await store.secret(minted)) !== null) return minted
    const audit = {
      at: at(),
      kind: 'secret_minted',
      requestId: '',
      fleet: profile.fleet,
      device: deviceId,
      by: 'static challenge',
    } as const
    const groups = [...profile.groups]
    const what = { hash: minted, fleet: profile.fleet, deviceId, groups, expiresAt: at() + 3600, at: at() }
    const outcome = await store.mintSecret({ ...what, audit: { ...audit, code: '', detail: 'development' } })
    return outcome.kind === 'minted' ? minted : null
  }

  function isStatic(profile: EnrollmentProfile, challenge: string): boolean {
    const expected = profile.scep?.staticChallenge
    return expected != null && timingSafeEqual(sha256(Buffer.from(expected)), sha256(Buffer.from(challenge)))
  }

  async function enroll(verified: Verified): Promise<Answer> {
    const { profile, signer, request } = verified
    // certmonger and old routers know no RenewalReq: they sign a PKCSReq with the certificate that they have (RFC 8894 2.3). What names one of
    // our issuers is that or nothing; a certificate made for the occasion names itself.
    if (issuers().some(({ subject }) => equalBytes(subject, signer.issuer))) return renew(verified)
    const { content } = await decrypted(verified)
    let csr = csrOf(content, request.requestId)
    if (!equalBytes(csr.spki, signer.spki) && csr.der !== decoy) {
      // That the two differ is only said of a CSR that is whole. A bent one that happens to parse would otherwise tell its padding.
      const whole = prove(csr.der, profile.keys, { resumed: false, scep: {} }, { spki: null, key: null })
      if (!isRefusal(whole)) throw new Failure('badMessageCheck', 'the message is signed with another key than the CSR holds')
      log.info({ requestId: request.requestId, code: whole.code }, 'SCEP: another key, and the CSR is not whole')
      csr = csrOf(null, request.requestId)
    }
    const given = csr.challenge ?? ''
    const { fleet, label } = profile
    let challenge = given === '' ? null : challengeHash(fleet, label, given)
    if (challenge && isStatic(profile, given)) challenge = await developmentChallenge(profile, csr)
    return ask(verified, 'enroll', transactionOf(verified, csr, challenge ?? sha256(random(32))))
  }

  async function renew(verified: Verified): Promise<Answer> {
    // Before anything is decrypted: what a stranger's message holds is nobody's business.
    const signer = await operationalSigner(verified)
    if (signer === null)
      throw new Failure(
        'badMessageCheck',
        'the message is not signed with a certificate of this server',
        undefined,
        'certificate_unknown',
      )
    const { content } = await decrypted(verified)
    const csr = csrOf(content, verified.request.requestId)
    return ask(verified, 'reenroll', transactionOf(verified, csr, null))
  }

  async function poll(verified: Verified): Promise<Answer> {
    const { profile, header, signer } = verified
    const { content } = await decrypted(verified)
    if (content === null) throw new Failure('badRequest', 'the content does not decrypt', null)
    parseIssuerAndSubject(derOfBer(content))
    const known = await store.scepTransaction(profile.fleet, profile.label ?? '', header.transactionId)
    // Another's transaction is as unknown as none.
    if (known === null || !equalBytes(known.signerSpkiSha256, sha256(signer.spki)))
      throw new Failure('badCertId', 'no request waits under this transaction id')
    return ask(verified, known.signer ? 'reenroll' : 'enroll', known)
  }

  /** The issuer that a query names, and the record under its serial. To those who hold a certificate of the fleet, and about it alone. */
  async function asked(verified: Verified) {
    const { content } = await decrypted(verified)
    if (content === null) throw new Failure('badRequest', 'the content does not decrypt', null)
    const id = parseIssuerAndSerial(derOfBer(content))
    const { profile, signer } = verified
    const reader = await operationalSigner(verified)
    const live = reader !== null && status(reader, reader.issuer) === 'good' && clock.now() <= reader.notAfter
    for (const { subject, keyId } of issuers()) {
      if (!equalBytes(subject, id.issuer)) continue
      const record = await store.certificate(keyId, id.serial)
      if (record === null || record.fleet !== profile.fleet) continue
      // Its own holder may have lost it, and then signs with a certificate made for the occasion.
      if (live || equalBytes(record.spkiSha256, sha256(signer.spki))) return { record, keyId, serial: id.serial }
    }
    throw new Failure('badCertId', 'no such certificate, or it is none of yours')
  }

  async function getCert(verified: Verified): Promise<Answer> {
    const { record } = await asked(verified)
    return { status: { kind: 'success' }, content: encodeCertsOnly([record.der]) }
  }

  async function getCrl(verified: Verified): Promise<Answer> {
    const { keyId, serial } = await asked(verified)
    const crl = (await options.crl?.(keyId, serial)) ?? null
    if (crl === null) throw new Failure('badCertId', 'there is no revocation list for this certificate')
    return { status: { kind: 'success' }, content: encodeCrlOnly(crl) }
  }

  const stories: Partial<Record<MessageType, (verified: Verified) => Promise<Answer>>> = {
    PKCSReq: enroll,
    RenewalReq: renew,
    CertPoll: poll,
    GetCert: getCert,
    GetCRL: getCrl,
  }

  // ---- The answer.

  /** As the client signed, so that it can verify: its hash, and PSS for PSS. */
  async function signedReply(
    key: RaKey,
    header: ScepHeader,
    asked: SignedMessage | null,
    status: PkiStatus,
    content: Bytes | null,
  ) {
    const digest = asked?.algorithms?.digest ?? 'sha256'
    const signatureAlgorithm = `${asked?.algorithms?.signature.startsWith('rsa-pss') ? 'rsa-pss' : 'rsa-pkcs1'}-${digest}`
    const draft = draftSigned({
      // An empty content where RFC 8894 3.2 leaves it out: OpenSSL's PKCS7_verify, and certmonger with it, verifies nothing without one.
      content: content ?? empty,
      contentDigest: hash(digest, content ?? empty, 'buffer'),
      attributes: certRepAttributes(header, status, random(16)),
      certificates: [key.certificate.der],
      signer: key.certificate,
      digest,
      signatureAlgorithm,
    })
    return draft.assemble(await key.sign(signatureAlgorithm, draft.toBeSigned))
  }

  function enveloped({ signer, key }: Verified, envelope: Envelope, content: Bytes): Bytes {
    // AES whatever came: what a client could be made to send in triple DES it need not get back so.
    const cipher: ContentCipher = envelope.cipher === 'des-ede3-cbc' ? 'aes-128-cbc' : envelope.cipher
    const transport: KeyTransport = envelope.transport
    return sealContent({ content, cipher, transport, recipient: signer, key, random })
  }

  async function record(
    { requestId, address }: ScepRequest,
    profile: EnrollmentProfile | undefined,
    failure: Failure,
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

  /** Anything thrown on the way, as a failure to be signed. */
  function failureOf(error: unknown, requestId: string): Failure {
    if (error instanceof Failure) return error
    if (error instanceof CmsError) return new Failure(error.code === 'cms_algorithm' ? 'badAlg' : 'badRequest', error.message)
    if (codeOf(error) !== null) return new Failure('badRequest', (error as Error).message)
    log.error({ requestId, code: failureCode(error), err: error }, 'SCEP: could not answer')
    return new Failure('badRequest', 'the server cannot answer now; try again later', undefined, 'internal')
  }

  async function answer(request: ScepRequest): Promise<ScepReply> {
    const profile = profiles.get(request.label)
    let header: ScepHeader = { messageType: '', transactionId: '', senderNonce: new Uint8Array(0) }
    let signed: SignedMessage | null = null
    let key = ra
    try {
      signed = parseSigned(derOfBer(request.message))
      header = readableHeader(signed.attributes)
      header = headerOf(signed)
      if (profile === undefined) throw new Failure('badRequest', 'no profile is reached by SCEP under this path')
      const verified = verify(request, signed, header, profile)
      const type = Object.hasOwn(messageTypes, header.messageType)
        ? messageTypes[header.messageType as keyof typeof messageTypes]
        : null
      const story = type && stories[type]
      if (!story) throw new Failure('badRequest', `message type ${header.messageType}`)
      const { envelope, key: addressed } = envelopeOf(verified)
      key = addressed
      const { status: pkiStatus, content } = await story(verified)
      const body = await signedReply(key, header, signed, pkiStatus, content && enveloped(verified, envelope, content))
      return { kind: 'reply', body, outcome: pkiStatus.kind === 'failure' ? pkiStatus.failInfo : pkiStatus.kind }
    } catch (error) {
      const failure = failureOf(error, request.requestId)
      const { failInfo, text } = failure
      strangers.info(
        { requestId: request.requestId, address: request.address, failInfo, code: failure.code, detail: failure.message },
        'SCEP request refused',
      )
      await record(request, profile, failure)
      const told = { kind: 'failure', failInfo, text: text === null ? null : text.slice(0, 200) } as const
      return { kind: 'reply', body: await signedReply(key, header, signed, told, null), outcome: failure.code || failInfo }
    }
  }

  let atOnce = 0
  const queue: (() => void)[] = []
  /** Waits for its turn; false when too many do. */
  function turn(): Promise<boolean> | boolean {
    if (atOnce < atOnceMax) {
      atOnce++
      return true
    }
    return queue.length < queueMax && new Promise<boolean>(resolve => queue.push(() => resolve(true)))
  }
  function release(): void {
    const next = queue.shift()
    // In another turn of the event loop, which sees to whoever else has something ready.
    if (next) setImmediate(next)
    else atOnce--
  }

  return {
    capabilities(label) {
      const profile = profiles.get(label)
      if (profile === undefined) return null
      // RFC 8894 3.5.2. SCEPStandard says AES, POST and SHA-256 once more, for the clients that know the word.
      const next = (options.nextCertificates?.(label) ?? []).length > 0
      const more = [...(profile.scep?.tripleDes ? ['DES3'] : []), ...(next ? ['GetNextCACert'] : [])]
      return ['AES', 'POSTPKIOperation', 'Renewal', 'SCEPStandard', 'SHA-256', 'SHA-512', ...more]
    },
    caCertificates: label =>
      profiles.has(label) ? encodeCertsOnly([ra.certificate.der, ...enrollment.caCertificates(label)]) : null,
    async nextCaCertificates(label) {
      const next = profiles.has(label) ? (options.nextCertificates?.(label) ?? []) : []
      if (next.length === 0) return null
      // 4.7.1: signed by the RA that the client knows.
      const content = encodeCertsOnly(next)
      const draft = draftSigned({
        ...{ content, contentDigest: sha256(content), attributes: [], certificates: [ra.certificate.der] },
        ...{ signer: ra.certificate, digest: 'sha256', signatureAlgorithm: 'rsa-pkcs1-sha256' },
      })
      return draft.assemble(await ra.sign('rsa-pkcs1-sha256', draft.toBeSigned))
    },
    async pkiOperation(request) {
      if (!(await turn())) return { kind: 'busy', retryAfterSeconds: 5 }
      try {
        return await answer(request)
      } catch (error) {
        log.warn({ requestId: request.requestId, code: failureCode(error), err: error }, 'SCEP: no answer could be signed')
        return { kind: 'busy', retryAfterSeconds: 5 }
      } finally {
        release()
      }
    },
    async close() {
      await Promise.all(ras.map(one => one.close()))
    },
  }
}

/** A CSR of the usual size with a challenge that was never minted. Its signature is never looked at. */
function decoyCsr(ra: RaKey, random: RandomBytes): Bytes {
  const challenge = encodeElement(PRINTABLE_STRING, [Buffer.from(hexOf(random(16)))])
  const subject = encodeName([{ oid: COMMON_NAME, value: 'decoy' }])
  const info = csrInfo(subject, ra.certificate.spki, [encodeAttribute(CHALLENGE_PASSWORD, [challenge])])
  return csrAssemble(info, 'rsa-pkcs1-sha256', random(256))
}
