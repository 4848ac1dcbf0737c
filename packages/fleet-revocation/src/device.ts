// A device's ear for revocation: it takes notices from any broker, believes only their signature, and remembers what concerns its own
// groups in a record of a few hundred bytes. It knows whether this device is revoked; to obey is the agent's. Device subset.

import {
  type Bytes,
  type CborValue,
  codeOf,
  type DeviceError,
  decodeCbor,
  deviceError,
  encodeCbor,
  equalBytes,
  type Membership,
} from '@birthmark/device-sdk/core'
import { type AnswerBody, answerTopic, encodeQuestion, openAnswer, questionTopic } from './answer.ts'
import { checkBlockProof, type Sha256 } from './block-proof.ts'
import { headTopic, type NoticeBody, type NoticeProblem, openNotice, ringSize, ringTopic } from './notice.ts'
import { boundFor, certificatesNamed, namesCertificate } from './rule.ts'
import type { NoticeSigner, NoticeVerify } from './signed.ts'

export { type BlockProof, checkBlockProof, type Sha256 } from './block-proof.ts'
export { type NoticeProblem, noticeBytesMax } from './notice.ts'
export type { NoticeSigner, NoticeVerify } from './signed.ts'

/** As in agent/ports.ts of the device SDK: `put` has reached the medium when it returns, and is atomic. */
export interface DeviceStore {
  get(name: string): Bytes | null
  put(name: string, value: Bytes): void
}

export interface DeviceReceiverOptions {
  fleet: string
  /** Of the operational certificate in use now; null before the first enrollment. */
  membership(): Membership | null
  /** Of that certificate, its authority key identifier: without it a rule against an issuing authority is the relying parties' alone. */
  issuerKeyId?(): Bytes | null
  signers: NoticeSigner[]
  /** A notice that names more certificates than this by range, list, floor or issuer must be signed by two of `signers`. Without it, one does. */
  oneSignatureMax?: number
  verify: NoticeVerify
  store: DeviceStore
}

export interface DeviceReceiver {
  /** What to be subscribed to now. After a gap the ring topics of the missing notices are appended, and taken away as they arrive: look again after each notice. */
  topics: string[]
  /**
   * `error`: the message was refused (`notice_rejected`, or the store's failure) and nothing changed. A notice seen before is no error.
   * `revoked`: this device is revoked by all that was taken in so far.
   */
  receive(topic: string, payload: Bytes, done: (error: DeviceError | null, revoked: boolean) => void): void
  revoked(): boolean
  /**
   * Asks which notice is the newest, and with `idx` for a proof of how the certificate with this idx stands, a peer's or its own: publish `payload` at `topic`. `nonce`: 16 to 32 bytes from a cryptographic source, never used before.
   * `device`: this device's id. The answer comes on one of `topics`; until then the next question replaces this one.
   */
  ask(device: string, nonce: Bytes, idx?: number): { topic: string; payload: Bytes }
  /**
   * The last answer: the newest notice then, a signed time, no earlier than the question, and the proof where one was asked for and could be
   * given. Null before the first; not kept over a restart.
   */
  answered(): { seq: number; issuedAt: number; proof: Bytes | null } | null
  /**
   * What a proof, from an answer or from the peer itself, says about the peer's certificate under the newest root that was taken in since the
   * start. Null: nothing; ask again. That the peer holds the certificate is for TLS or a signature to show.
   */
  peerStatus(proof: Bytes, idx: number, hash: Sha256): 'good' | 'revoked' | null
  /** Highest number taken in; how many of the 63 before it are still missing. */
  progress(): { seq: number; missing: number }
}

const RECORD = 'notices'
const RECORD_VERSION = 2
// 8 gids, 63 missing numbers of at most 9 bytes and a header: under 1 KB; the decoder's limits say the same.
const recordLimits = { depthMax: 3, itemsMax: 120 }

interface Progress {
  seq: number
  missing: number[]
  floor: number
  bounds: number[][]
  /** The idx of this device's certificate that a range, a list or its issuer's end revoked; −1 when none did. */
  named: number
}

function nothing(): Progress {
  return { seq: 0, missing: [], floor: 0, bounds: [], named: -1 }
}

function encodeRecord(fleet: string, progress: Progress): Bytes {
  return encodeCbor([RECORD_VERSION, fleet, progress.seq, progress.missing, progress.floor, progress.bounds, progress.named])
}

/** A damaged record, or one of another fleet, is as none: the lattice is refilled by the retained notices. */
function decodeRecord(bytes: Bytes | null, fleet: string): Progress {
  if (!bytes) return nothing()
  let value: CborValue = null
  try {
    value = decodeCbor(bytes, recordLimits)
  } catch (error) {
    if (codeOf(error) === null) throw error
  }
  if (!Array.isArray(value) || value.length !== 7 || value[0] !== RECORD_VERSION || value[1] !== fleet) return nothing()
  if (typeof value[2] !== 'number' || !Array.isArray(value[3]) || typeof value[4] !== 'number') return nothing()
  if (!Array.isArray(value[5]) || typeof value[6] !== 'number') return nothing()
  return { seq: value[2], missing: value[3] as number[], floor: value[4], bounds: value[5] as number[][], named: value[6] }
}

function boundOf(progress: Progress, gid: number): number {
  for (let i = 0; i < progress.bounds.length; i++) if (progress.bounds[i][0] === gid) return progress.bounds[i][1]
  return 0
}

function isRevoked(progress: Progress, membership: Membership | null): boolean {
  if (!membership) return false
  if (membership.idx < progress.floor || membership.idx === progress.named) return true
  for (let i = 0; i < membership.gids.length; i++) if (membership.idx < boundOf(progress, membership.gids[i])) return true
  return false
}

/**
 * `progress` with every number up to `newest` that has not come, that one included. What has left the ring can't be asked for any more. It does
 * not matter to a device that was enrolled since (its idx is above every bound of then), and one that was revoked by it is refused by every
 * relying party.
 */
function withMissing(progress: Progress, newest: number): Progress {
  const highest = Math.max(progress.seq, newest)
  const oldest = highest - ringSize + 1
  const missing: number[] = []
  for (let i = 0; i < progress.missing.length; i++) if (progress.missing[i] >= oldest) missing.push(progress.missing[i])
  for (let seq = Math.max(progress.seq + 1, oldest, 1); seq <= newest; seq++) missing.push(seq)
  return { seq: highest, missing: missing, floor: progress.floor, bounds: progress.bounds, named: progress.named }
}

/**
 * `progress` and one more notice: a new value, so that a failed write leaves the old one in force. Null when it says nothing new. Its rules
 * count whatever its number: a publisher that was restored from a backup spends numbers twice, and means both.
 */
function withNotice(progress: Progress, body: NoticeBody, membership: Membership, issuerKeyId: Bytes | null): Progress | null {
  const floor = Math.max(progress.floor, body.floor)
  let fresh = body.seq > progress.seq || progress.missing.indexOf(body.seq) >= 0 || floor > progress.floor
  const bounds: number[][] = []
  for (let i = 0; i < membership.gids.length; i++) {
    const gid = membership.gids[i]
    const known = boundOf(progress, gid)
    let bound = known
    // A rule of an unknown kind is passed over: who enforces are the relying parties, and they stop at it.
    for (let k = 0; k < body.rules.length; k++) bound = Math.max(bound, boundFor(body.rules[k], gid))
    if (bound > known) fresh = true
    if (bound > 0) bounds.push([gid, bound])
  }
  let named = progress.named
  if (named !== membership.idx)
    for (let k = 0; k < body.rules.length; k++)
      if (namesCertificate(body.rules[k], membership.idx, issuerKeyId)) {
        named = membership.idx
        fresh = true
        break
      }
  if (!fresh) return null
  const next = withMissing(progress, body.seq)
  const missing: number[] = []
  for (let i = 0; i < next.missing.length; i++) if (next.missing[i] !== body.seq) missing.push(next.missing[i])
  return { seq: next.seq, missing: missing, floor: floor, bounds: bounds, named: named }
}

/** Implements the agent's `NoticeReceiver`. Throws `store_read` when the record can't be read. */
export function createDeviceReceiver(options: DeviceReceiverOptions): DeviceReceiver {
  let progress = decodeRecord(options.store.get(RECORD), options.fleet)
  const topics: string[] = []
  let asked: { device: string; nonce: Bytes } | null = null
  let answered: { seq: number; issuedAt: number; proof: Bytes | null } | null = null
  let root: { seq: number; root: Bytes } | null = null

  function refreshTopics(): void {
    topics.splice(0, topics.length)
    topics.push(headTopic(options.fleet))
    if (asked) topics.push(answerTopic(options.fleet, asked.device))
    for (let i = 0; i < progress.missing.length; i++) topics.push(ringTopic(options.fleet, progress.missing[i]))
  }

  function keep(next: Progress): DeviceError | null {
    try {
      options.store.put(RECORD, encodeRecord(options.fleet, next))
    } catch (error) {
      return codeOf(error) ? (error as DeviceError) : deviceError('store_write', String(error))
    }
    progress = next
    refreshTopics()
    return null
  }

  function takeAnswer(problem: NoticeProblem | null, body: AnswerBody | null): DeviceError | null {
    if (problem || !body) return deviceError('notice_rejected', problem || '')
    // Another's question, an older one of ours, or the same answer again.
    if (!asked || body.device !== asked.device || !equalBytes(body.nonce, asked.nonce)) return null
    asked = null
    answered = { seq: body.seq, issuedAt: body.issuedAt, proof: body.proof }
    refreshTopics()
    // What is newer than all that came is missing from now on, and asked for at the ring. A device without a certificate misses nothing.
    return body.seq > progress.seq && options.membership() ? keep(withMissing(progress, body.seq)) : null
  }

  function take(problem: NoticeProblem | null, body: NoticeBody | null, countersigned: boolean): DeviceError | null {
    if (problem) return deviceError('notice_rejected', problem)
    const most = options.oneSignatureMax
    if (body && !countersigned && most !== undefined && certificatesNamed(body.rules, body.floor - progress.floor) > most)
      return deviceError('notice_rejected', 'notice_one_signature')
    // A notice without a root says that the one before does not hold any more: something was revoked that it lacks.
    if (body && (!root || body.seq > root.seq)) root = body.root ? { seq: body.seq, root: body.root } : null
    const membership = options.membership()
    // Without a certificate there is nothing to revoke, and the one to come gets an idx above every bound of today.
    const next =
      body && membership ? withNotice(progress, body, membership, options.issuerKeyId ? options.issuerKeyId() : null) : null
    return next ? keep(next) : null
  }

  refreshTopics()
  return {
    topics: topics,
    receive: function (topic, payload, done) {
      if (asked && topic === answerTopic(options.fleet, asked.device))
        openAnswer(payload, options.fleet, options.signers, options.verify, function (problem, body) {
          const error = takeAnswer(problem, body)
          done(error, isRevoked(progress, options.membership()))
        })
      else
        openNotice(payload, options.fleet, options.signers, options.verify, function (problem, body, countersigned) {
          const error = take(problem, body, countersigned)
          done(error, isRevoked(progress, options.membership()))
        })
    },
    ask: function (device, nonce, idx) {
      asked = { device: device, nonce: nonce }
      refreshTopics()
      return {
        topic: questionTopic(options.fleet),
        payload: encodeQuestion({ device: device, nonce: nonce, idx: idx === undefined ? -1 : idx }),
      }
    },
    answered: function () {
      return answered
    },
    peerStatus: function (proof, idx, hash) {
      return root ? checkBlockProof(proof, root.seq, root.root, idx, hash) : null
    },
    revoked: function () {
      return isRevoked(progress, options.membership())
    },
    progress: function () {
      return { seq: progress.seq, missing: progress.missing.length }
    },
  }
}
