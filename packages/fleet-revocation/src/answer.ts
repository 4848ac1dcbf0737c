// For a device that doesn't know the time: it asks which notice is the newest with a number that nobody else knows, and the publisher signs
// the answer over it. The answer is as new as the question, and carries a signed time to go by. Device subset.

import { type Bytes, type CborValue, codeOf, decodeCbor, encodeCbor, mapEntries } from '@birthmark/device-sdk/core'
import { isBytes, isCount, isFleet, type NoticeProblem } from './notice.ts'
import { type NoticeSigner, type NoticeVerify, openSigned } from './signed.ts'

/** An answer with a block proof in it. */
export const answerBytesMax = 2048
/** A question: a device's name of 64, a nonce of 32, a number. */
const questionBytesMax = 128

/** At least 16, so that no answer was ever given to the same question. */
export const nonceBytesMin = 16
export const nonceBytesMax = 32

export interface Question {
  /** Who asks: the answer goes to `fr/1/{fleet}/rsp/{device}`. */
  device: string
  nonce: Bytes
  /** A block proof about this certificate is wanted too; −1: none. */
  idx: number
}

export interface AnswerBody {
  fleet: string
  /** Of the newest notice. */
  seq: number
  noticeSha256: Bytes
  /** When the answer was signed, seconds since 1970. */
  issuedAt: number
  nonce: Bytes
  device: string
  /** See block-proof.ts. */
  proof: Bytes | null
}

export function questionTopic(fleet: string): string {
  return 'fr/1/' + fleet + '/req'
}

export function answerTopic(fleet: string, device: string): string {
  return 'fr/1/' + fleet + '/rsp/' + device
}

function isDevice(value: CborValue): boolean {
  return typeof value === 'string' && value.length <= 64 && /^[A-Za-z0-9._:-]+$/.test(value)
}

/** The values of a map by its small keys; null for anything else. */
function fieldsOf(bytes: Bytes, bytesMax: number, keyMax: number): CborValue[] | null {
  if (bytes.length > bytesMax) return null
  try {
    const entries = mapEntries(decodeCbor(bytes, { depthMax: 1, itemsMax: 2 * keyMax + 1 }))
    const out: CborValue[] = []
    for (let i = 0; i < entries.length; i++) {
      if (!isCount(entries[i][0], 1, keyMax)) return null
      out[entries[i][0] as number] = entries[i][1]
    }
    return out
  } catch (error) {
    if (codeOf(error) === null) throw error
    return null
  }
}

export function encodeQuestion(question: Question): Bytes {
  const map: [CborValue, CborValue][] = [
    [1, question.device],
    [2, question.nonce],
  ]
  if (question.idx >= 0) map.push([3, question.idx])
  return encodeCbor({ map: map })
}

/** Null for anything else. Who sent it is not known: the broker lets every device write here. */
export function decodeQuestion(bytes: Bytes): Question | null {
  const fields = fieldsOf(bytes, questionBytesMax, 3)
  if (!fields || !isDevice(fields[1]) || !isBytes(fields[2], nonceBytesMin, nonceBytesMax)) return null
  if (fields[3] !== undefined && !isCount(fields[3], 0, 0x7fffffff)) return null
  return { device: fields[1] as string, nonce: fields[2] as Bytes, idx: fields[3] === undefined ? -1 : (fields[3] as number) }
}

export function encodeAnswerBody(body: AnswerBody): Bytes {
  const map: [CborValue, CborValue][] = [
    [1, body.fleet],
    [2, body.seq],
    [3, body.noticeSha256],
    [4, body.issuedAt],
    [5, body.nonce],
    [6, body.device],
  ]
  if (body.proof) map.push([7, body.proof])
  return encodeCbor({ map: map })
}

function decodeAnswerBody(payload: Bytes): AnswerBody | null {
  const fields = fieldsOf(payload, answerBytesMax, 7)
  if (!fields || !isFleet(fields[1]) || !isCount(fields[2], 1, 9007199254740991) || !isBytes(fields[3], 32, 32)) return null
  if (!isCount(fields[4], 0, 9007199254740991) || !isBytes(fields[5], nonceBytesMin, nonceBytesMax) || !isDevice(fields[6]))
    return null
  const proof = fields[7]
  if (proof !== undefined && !isBytes(proof, 1, answerBytesMax)) return null
  return {
    fleet: fields[1] as string,
    seq: fields[2] as number,
    noticeSha256: fields[3] as Bytes,
    issuedAt: fields[4] as number,
    nonce: fields[5] as Bytes,
    device: fields[6] as string,
    proof: proof === undefined ? null : (proof as Bytes),
  }
}

/** Judges received bytes, as `openNotice` does. Whose question it answers is for the caller to compare. */
export function openAnswer(
  bytes: Bytes,
  fleet: string,
  signers: NoticeSigner[],
  verify: NoticeVerify,
  done: (problem: NoticeProblem | null, body: AnswerBody | null) => void,
): void {
  openSigned(bytes, answerBytesMax, 'answer', signers, verify, function (problem, payload) {
    const body = payload ? decodeAnswerBody(payload) : null
    if (!body) done(problem || 'notice_malformed', null)
    else if (body.fleet !== fleet) done('notice_other_fleet', null)
    else done(null, body)
  })
}
