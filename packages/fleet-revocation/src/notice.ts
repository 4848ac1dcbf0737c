// The revocation notice: a COSE_Sign1 over a deterministic CBOR map. This file turns rules into the bytes that are signed, and received
// bytes into rules once their signature stands; it knows nothing of order, replay or who is revoked. It keeps to the device subset.

import { type Bytes, type CborValue, codeOf, decodeCbor, encodeCbor, mapEntries } from '@birthmark/device-sdk/core'
import { idxEnd, noticeRunsMax, type Rule, ruleOfCbor, ruleToCbor } from './rule.ts'
import { type NoticeSigner, type NoticeVerify, openSigned, type SignatureProblem } from './signed.ts'

/** A longer message is refused before it is parsed. Room for 300 group rules; one takes ~170 bytes. */
export const noticeBytesMax = 8192
/** Under `fr/1/{fleet}/n/`, the newest notices by `seq` modulo this. */
export const ringSize = 64
const rulesMax = 512

export interface NoticeBody {
  fleet: string
  /** From 1, one more each notice. */
  seq: number
  /** `noticeSha256` of the notice before; null in the first. */
  previousSha256: Bytes | null
  /** Seconds since 1970. */
  issuedAt: number
  /** A relying party whose newest proof of freshness is older refuses new connections. */
  maxAgeSeconds: number
  /** End of the heartbeat chain that belongs to this notice, 16 to 32 bytes. */
  heartbeatAnchor: Bytes
  rules: Rule[]
  /** Rules of a kind that this version doesn't know. Whoever enforces must not rest while this isn't zero. */
  unknownRules: number
  root: Bytes | null
  /** Every certificate with a lower idx is revoked. */
  floor: number
}

export type NoticeProblem =
  | SignatureProblem
  /** Signed, but of a later format: a field that this version doesn't know. */
  | 'notice_unsupported'
  | 'notice_other_fleet'
  /** It revokes more than one key alone may; see `certificatesNamed`. */
  | 'notice_one_signature'

export function headTopic(fleet: string): string {
  return 'fr/1/' + fleet + '/head'
}

export function ringTopic(fleet: string, seq: number): string {
  return 'fr/1/' + fleet + '/n/' + (seq % ringSize)
}

export function heartbeatTopic(fleet: string): string {
  return 'fr/1/' + fleet + '/hb'
}

export function isCount(value: CborValue, least: number, most: number): boolean {
  return typeof value === 'number' && value >= least && value <= most
}

/** The form of a fleet's name. */
export function isFleet(value: CborValue): boolean {
  return typeof value === 'string' && value.length <= 32 && /^[a-z0-9-]+$/.test(value)
}

export function isBytes(value: CborValue, least: number, most: number): boolean {
  return value instanceof Uint8Array && value.length >= least && value.length <= most
}

/** The deterministic CBOR map that is signed. Values outside their range give bytes that every receiver refuses. */
export function encodeNoticeBody(body: NoticeBody): Bytes {
  const map: [CborValue, CborValue][] = [
    [1, body.fleet],
    [2, body.seq],
    [3, body.previousSha256],
    [4, body.issuedAt],
    [5, body.maxAgeSeconds],
    [6, body.heartbeatAnchor],
    [7, body.rules.map(ruleToCbor)],
  ]
  if (body.root) map.push([8, body.root])
  if (body.floor > 0) map.push([9, body.floor])
  return encodeCbor({ map: map })
}

/** Reads a signed body. Throws `cbor_malformed`. Call it after the signature has been verified over these very bytes. */
export function decodeNoticeBody(payload: Bytes): NoticeBody | NoticeProblem {
  // Depth: map, rules, rule, one level for rule kinds to come. Items: nine entries, and five for each rule.
  const entries = mapEntries(decodeCbor(payload, { depthMax: 4, itemsMax: 20 + 6 * rulesMax }))
  const fields: CborValue[] = []
  for (let i = 0; i < entries.length; i++) {
    const key = entries[i][0]
    if (!isCount(key, 1, 9)) return 'notice_unsupported'
    fields[key as number] = entries[i][1]
  }
  for (let key = 1; key <= 7; key++) if (fields[key] === undefined) return 'notice_malformed'
  const wire = fields[7]
  const root = fields[8]
  const floor = fields[9]
  if (
    !isFleet(fields[1]) ||
    !isCount(fields[2], 1, 9007199254740991) ||
    !(fields[3] === null || isBytes(fields[3], 32, 32)) ||
    !isCount(fields[4], 0, 9007199254740991) ||
    !isCount(fields[5], 1, 2592000) ||
    !isBytes(fields[6], 16, 32) ||
    !Array.isArray(wire) ||
    wire.length > rulesMax ||
    !(root === undefined || isBytes(root, 32, 32)) ||
    !(floor === undefined || isCount(floor, 1, idxEnd))
  )
    return 'notice_malformed'
  const rules: Rule[] = []
  let unknownRules = 0
  for (let i = 0; i < wire.length; i++) {
    const rule = ruleOfCbor(wire[i], noticeRunsMax)
    if (rule === false) return 'notice_malformed'
    if (rule) rules.push(rule)
    else unknownRules++
  }
  return {
    fleet: fields[1] as string,
    seq: fields[2] as number,
    previousSha256: fields[3] as Bytes | null,
    issuedAt: fields[4] as number,
    maxAgeSeconds: fields[5] as number,
    heartbeatAnchor: fields[6] as Bytes,
    rules: rules,
    unknownRules: unknownRules,
    root: root === undefined ? null : (root as Bytes),
    floor: floor === undefined ? 0 : (floor as number),
  }
}

function readBody(payload: Bytes): NoticeBody | NoticeProblem {
  try {
    return decodeNoticeBody(payload)
  } catch (error) {
    if (codeOf(error) === null) throw error
    return 'notice_malformed'
  }
}

/**
 * Judges received bytes. `done` gets the body, and then it was signed by one of `signers` for `fleet`; or what is wrong with it. Neither
 * says whether the notice is new: that is the receiver's question. `countersigned`: two of `signers` stand behind it.
 */
export function openNotice(
  bytes: Bytes,
  fleet: string,
  signers: NoticeSigner[],
  verify: NoticeVerify,
  done: (problem: NoticeProblem | null, body: NoticeBody | null, countersigned: boolean) => void,
): void {
  openSigned(bytes, noticeBytesMax, 'notice', signers, verify, function (problem, payload, countersigned) {
    const body = payload ? readBody(payload) : (problem as NoticeProblem)
    if (typeof body === 'string') done(body, null, false)
    else if (body.fleet !== fleet) done('notice_other_fleet', null, false)
    else done(null, body, countersigned)
  })
}
