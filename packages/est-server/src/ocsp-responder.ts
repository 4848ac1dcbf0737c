// The fourth story: what a standard consumer is told when it asks about one certificate. A question is read, looked up and judged by the store's
// rules, and answered with a signature made for it or, where no nonce asks for a fresh one, with the one that others got. Promises: an answer made
// after a revocation was recorded knows of it; a serial that we never signed is `unknown`; everything kept or waiting is bounded.

import { hash } from 'node:crypto'
import { type Bytes, bytesOfHex, concatBytes, encodeElement, OCTET_STRING } from '@birthmark/device-sdk/core'
import type { RevocationFact } from './ca/crl.ts'
import type { Issuer } from './ca/issuer-key.ts'
import { type OcspDraft, type OcspEncoder, type OcspStatement, ocspEncoder, ocspErrorResponse } from './ca/ocsp.ts'
import { issuerAsSigner, type OcspSigner, publicKeyBits } from './ca/ocsp-signer.ts'
import { EstServerError, failureCode } from './errors.ts'
import type { Clock, Log } from './ports.ts'
import { clockToleranceSeconds } from './recorded-time.ts'
import { createRuleView, type RevocationRules } from './revocation-rules.ts'
import { type Place, standingTable } from './standing-table.ts'
import type { Store } from './store/store.ts'
import { twoGenerations } from './two-generations.ts'
import { type CertIdPlace, type OcspError, type OcspQuestion, ocspErrors, parseOcspRequest, sameOctets } from './wire/ocsp.ts'

export interface OcspResponderOptions {
  store: Store
  issuers: readonly Issuer[]
  /** Who signs for an issuer in its place. */
  delegate?: (issuer: Issuer) => OcspSigner | null
  /** Seconds from thisUpdate to nextUpdate: how long others may go on believing an answer after a revocation. */
  lifetimeSeconds: number
  clock: Clock
  log: Log
}

export interface OcspAnswer {
  /** DER OCSPResponse. */
  body: Bytes
  /** Present when the same question may get the same answer until then. */
  cacheable: { thisUpdate: number; nextUpdate: number; etag: string } | null
  error: OcspError | null
}

export interface OcspResponder {
  /** Never throws nor rejects. A promise where something has to be waited for. */
  answer(request: Bytes): OcspAnswer | Promise<OcspAnswer>
  /** Why questions cannot be answered at present, or null. */
  problem(): string | null
  readonly signatures: number
}

/** Answers that are kept, about a kilobyte each. */
const keptMax = 10_000
/** Certificates whose place in their fleet is remembered, 32 bytes each. */
const standingsMax = 65_536
/** Signatures that are being made at once. A key in a token makes some hundred a second; who waits longer asks elsewhere or again. */
const signingMax = 256
/** A kept answer is made anew after this part of its life. */
const refreshFraction = 1 / 2

const SHA_1 = '06052b0e03021a' // 1.3.14.3.2.26
const SHA_256 = '0609608648016503040201' // 2.16.840.1.101.3.4.2.1

interface Side {
  issuer: Issuer
  /** Tells the issuers apart in what is kept. */
  number: number
  /** Contents of a CertID before its serial that mean this issuer. */
  names: Bytes[]
  signer: OcspSigner
  encoder: OcspEncoder
}

interface Kept {
  answer: OcspAnswer
  fleet: string
  idx: number
  gids: number[]
  issuer: Bytes
  fact: RevocationFact | null
  revocations: number
  refreshAt: number
}

/** The contents of a CertID before its serial that mean this issuer: with either hash, its NULL parameters written or not. */
function namesOf({ certificate }: Issuer): Bytes[] {
  const key = publicKeyBits(certificate.spki)
  return (
    [
      ['sha1', SHA_1],
      ['sha256', SHA_256],
    ] as const
  ).flatMap(([digest, oid]) => {
    const hashes = [certificate.subject, key].map(bytes => encodeElement(OCTET_STRING, [hash(digest, bytes, 'buffer')]))
    return ['0500', ''].map(parameters => {
      const algorithm = encodeElement(0x30, [bytesOfHex(oid + parameters)])
      return concatBytes([algorithm, ...hashes])
    })
  })
}

/** As a key of a map. */
const textOf = (bytes: Bytes) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')

export function createOcspResponder(options: OcspResponderOptions): OcspResponder {
  const { store, issuers, lifetimeSeconds, clock, log } = options
  const rulesOf = createRuleView(store)
  const sides = issuers.map((issuer, number): Side => {
    const signer = options.delegate?.(issuer) ?? issuerAsSigner(issuer)
    return { issuer, number, names: namesOf(issuer), signer, encoder: ocspEncoder(signer) }
  })
  const answers = twoGenerations<Kept>(keptMax)
  let signing = 0
  let signatures = 0
  let failing: { since: number; code: string } | null = null
  let latestTime = -1

  const failed = (error: OcspError): OcspAnswer => ({ body: ocspErrorResponse(ocspErrors[error]), cacheable: null, error })

  /** The time, when it goes forward as it should; a promise of it, or of a refusal, where that has to be looked up. */
  function forwardTime(now: number): number | Promise<number> {
    if (latestTime < 0 || now < latestTime) return checkedTime(now)
    latestTime = now
    return now
  }

  async function checkedTime(now: number): Promise<number> {
    if (now < latestTime - clockToleranceSeconds || latestTime < 0) {
      // At the start, and again when an operator may have accepted the clock meanwhile.
      latestTime = await store.lastTime()
      if (now < latestTime - clockToleranceSeconds) throw new EstServerError('clock_regressed', 'the clock lies behind the records')
    }
    if (now > latestTime) latestTime = now
    return now
  }

  interface Signed {
    body: Bytes
    nextUpdate: number
  }

  /** A promise only where the key answers with one: each would cost as much as reading the question. */
  function signed(side: Side, question: OcspQuestion, statements: OcspStatement[], now: number): Signed | Promise<Signed> {
    const { signer, encoder } = side
    if (signing >= signingMax) throw new EstServerError('store_busy', `${signing} answers are being signed`)
    if (now >= signer.notAfter) throw new EstServerError('issuer_unusable', 'the responder’s certificate has ended')
    // Clients hold a response to the life of the certificate that signed it.
    const nextUpdate = Math.min(now + lifetimeSeconds, signer.notAfter)
    const draft = encoder.draft(question, statements, now, nextUpdate)
    let made: Bytes | Promise<Bytes>
    try {
      made = signer.sign(draft.data)
    } catch (error) {
      throw new EstServerError('issuer_failed', 'the key did not sign', error)
    }
    if (!(made instanceof Uint8Array)) return signedLater(side, draft, made, nextUpdate)
    return released(side, draft, made, nextUpdate)
  }

  async function signedLater(side: Side, draft: OcspDraft, made: Promise<Bytes>, nextUpdate: number): Promise<Signed> {
    signing++
    let signature: Bytes
    try {
      signature = await made
    } catch (error) {
      throw new EstServerError('issuer_failed', 'the key did not sign', error)
    } finally {
      signing--
    }
    // A key that answers later is in another device, and what that gives is looked at before it leaves; our own cipher is believed, since
    // looking would cost three times the signature.
    if (!side.signer.verify(draft.data, signature))
      throw new EstServerError('signature_wrong', 'the key gave a signature that does not verify')
    return released(side, draft, signature, nextUpdate)
  }

  function released({ encoder }: Side, draft: OcspDraft, signature: Bytes, nextUpdate: number): Signed {
    signatures++
    if (failing !== null) {
      log.info({ since: failing.since }, 'OCSP answers are signed again')
      failing = null
    }
    return { body: encoder.response(draft, signature), nextUpdate }
  }

  // What a certificate is never changes once it is recorded; only the rules do. So it is looked up once, and the rules are asked each time.
  const standings = standingTable(standingsMax)

  /** Counts that were read in this turn of the event loop: nobody can have heard of a later revocation and asked within it. */
  const counted = new Map<string, number>()
  const forget = () => counted.clear()

  async function countNow(fleet: string): Promise<number> {
    const revocations = await store.revocations(fleet)
    if (counted.size === 0) setImmediate(forget)
    counted.set(fleet, revocations)
    return revocations
  }

  const known = new Map<string, RevocationRules>()

  async function readRules(fleet: string, revocations: number): Promise<RevocationRules> {
    const rules = await rulesOf(fleet, revocations)
    known.set(fleet, rules)
    return rules
  }

  /** The rules of a fleet as they stand in this turn; without a promise where they are at hand. */
  function rulesNow(fleet: string): RevocationRules | Promise<RevocationRules> {
    const revocations = counted.get(fleet)
    if (revocations === undefined) return countNow(fleet).then(count => rulesAt(fleet, count))
    return rulesAt(fleet, revocations)
  }

  function rulesAt(fleet: string, revocations: number): RevocationRules | Promise<RevocationRules> {
    const rules = known.get(fleet)
    return rules?.revocations === revocations ? rules : readRules(fleet, revocations)
  }

  interface Verdict extends Place {
    idx: number
    issuer: Bytes
    revocations: number
    fact: RevocationFact | null
  }

  function verdictOf({ issuer: { keyId: issuer } }: Side, { fleet, gids }: Place, idx: number, rules: RevocationRules): Verdict {
    return { fleet, gids, idx, issuer, revocations: rules.revocations, fact: rules.verdict(idx, gids, issuer) }
  }

  /** Null for what this issuer never signed. */
  async function judged(side: Side, { der }: OcspQuestion, { serial, end }: CertIdPlace): Promise<Verdict | null> {
    const { issuer, number } = side
    const entry = standings.find(number, der, serial, end)
    if (entry >= 0) {
      const [idx, place] = [standings.idx(entry), standings.place(entry)]
      return verdictOf(side, place, idx, await rulesNow(place.fleet))
    }
    const standing = await store.standing(issuer.keyId, der.subarray(serial, end))
    if (standing === null) return null
    standings.set(number, der, serial, end, standing)
    return verdictOf(side, standing, standing.idx, await rulesNow(standing.fleet))
  }

  /** A kept answer, when it is young and still what would be said. */
  async function fromKept(id: string, now: number): Promise<OcspAnswer | null> {
    const kept = answers.get(id)
    if (kept === undefined || now >= kept.refreshAt || now < kept.refreshAt - lifetimeSeconds) return null
    const given = rulesNow(kept.fleet)
    const rules = given instanceof Promise ? await given : given
    if (rules.revocations !== kept.revocations) {
      const fact = rules.verdict(kept.idx, kept.gids, kept.issuer)
      if (fact?.at !== kept.fact?.at || fact?.reason !== kept.fact?.reason) return null
      kept.revocations = rules.revocations
    }
    return kept.answer
  }

  /** The answer about one certificate. Without a promise where a nonce asks for a signature and all that goes into it is at hand. */
  function one(side: Side, question: OcspQuestion, time: number | Promise<number>): OcspAnswer | Promise<OcspAnswer> {
    if (typeof time !== 'number' || question.nonceAt === question.nonceEnd) return oneLater(side, question, time)
    const { serial, end } = question.certIds[0]
    const entry = standings.find(side.number, question.der, serial, end)
    if (entry < 0) return oneLater(side, question, time)
    const { fleet, gids } = standings.place(entry)
    const idx = standings.idx(entry)
    const rules = rulesNow(fleet)
    if (rules instanceof Promise) return oneUnder(rules, side, question, idx, gids, time)
    return told(side, question, rules.verdict(idx, gids, side.issuer.keyId) ?? 'good', time)
  }

  /** A function of its own: what a closure holds on to would be allocated for those that need not wait as well. */
  async function oneUnder(
    rules: Promise<RevocationRules>,
    side: Side,
    question: OcspQuestion,
    idx: number,
    gids: number[],
    time: number,
  ): Promise<OcspAnswer> {
    return told(side, question, (await rules).verdict(idx, gids, side.issuer.keyId) ?? 'good', time)
  }

  async function oneLater(side: Side, question: OcspQuestion, time: number | Promise<number>): Promise<OcspAnswer> {
    const now = await time
    const [certId] = question.certIds
    if (question.nonceAt < question.nonceEnd) {
      const verdict = await judged(side, question, certId)
      return told(side, question, verdict && (verdict.fact ?? 'good'), now)
    }
    // By the question's own bytes, since they are repeated in the answer.
    const id = `${side.number} ${textOf(question.der.subarray(certId.at, certId.end))}`
    const same = await fromKept(id, now)
    if (same !== null) return same
    const verdict = await judged(side, question, certId)
    // What was never issued may be at any moment, and anybody can invent serials enough to fill what is kept.
    if (verdict === null) return told(side, question, null, now)
    const { body: pooled, nextUpdate } = await signed(side, question, [{ certId, status: verdict.fact ?? 'good' }], now)
    const body = new Uint8Array(pooled)
    const etag = `"${hash('sha256', body, 'hex').slice(0, 32)}"`
    const answer: OcspAnswer = { body, cacheable: { thisUpdate: now, nextUpdate, etag }, error: null }
    answers.set(id, { answer, ...verdict, refreshAt: now + (nextUpdate - now) * refreshFraction })
    return answer
  }

  const notKept = ({ body }: Signed): OcspAnswer => ({ body, cacheable: null, error: null })

  /** An answer that is signed for its asker alone. */
  function told(
    side: Side,
    question: OcspQuestion,
    status: OcspStatement['status'],
    now: number,
  ): OcspAnswer | Promise<OcspAnswer> {
    const made = signed(side, question, [{ certId: question.certIds[0], status }], now)
    return made instanceof Promise ? made.then(notKept) : notKept(made)
  }

  async function several(side: Side, question: OcspQuestion, time: number | Promise<number>): Promise<OcspAnswer> {
    const now = await time
    const statements: OcspStatement[] = []
    for (const certId of question.certIds) {
      // Of another issuer, even of ours, this one has nothing to say.
      const verdict = sideOf(question, certId) === side ? await judged(side, question, certId) : null
      statements.push({ certId, status: verdict === null ? null : (verdict.fact ?? 'good') })
    }
    return notKept(await signed(side, question, statements, now))
  }

  function complain(error: unknown): OcspAnswer {
    const code = failureCode(error) ?? 'internal'
    if (code === 'store_busy') return failed('tryLater')
    if (failing === null) log.error({ code, err: error }, 'OCSP questions cannot be answered')
    failing ??= { since: Math.floor(clock.now()), code }
    // Nothing of it is the asker's fault, and nothing stays so: somebody is being alarmed.
    return failed(code === 'internal' ? 'internalError' : 'tryLater')
  }

  function sideOf({ der }: OcspQuestion, { issuer, serialElement }: CertIdPlace): Side | undefined {
    for (const side of sides) for (const name of side.names) if (sameOctets(der, issuer, serialElement, name)) return side
    return undefined
  }

  /** The side that is asked: that of the first certificate of an issuer of ours. */
  function sideAsked(question: OcspQuestion): Side | undefined {
    for (const certId of question.certIds) {
      const side = sideOf(question, certId)
      if (side !== undefined) return side
    }
    return undefined
  }

  return {
    answer(request) {
      const question = parseOcspRequest(request)
      if (question === null) return failed('malformedRequest')
      // RFC 5019 2.2.3: unauthorized says that we have nothing to say with authority, and costs no signature.
      const side = sideAsked(question)
      // What an issuer signed ends with it at the latest, and its word on anything ended too. Nobody is to be alarmed about that: anybody can ask.
      const now = Math.floor(clock.now())
      if (side === undefined || now >= side.issuer.certificate.notAfter) return failed('unauthorized')
      try {
        const time = forwardTime(now)
        const given = question.certIds.length === 1 ? one(side, question, time) : several(side, question, time)
        return given instanceof Promise ? given.catch(complain) : given
      } catch (error) {
        return complain(error)
      }
    },
    problem: () =>
      failing && `OCSP questions cannot be answered since ${new Date(failing.since * 1000).toISOString()} (${failing.code})`,
    get signatures() {
      return signatures
    },
  }
}
