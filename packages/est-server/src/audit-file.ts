// The audit record as a file that anybody can check offline with one public key: JSON lines, a head, one line a record, a foot with a signature.
// The records are chained by their hashes, so the foot's signature over the chain's end covers each of them, their order and their number.
// It leaves to others where records come from and which key signs.
//
//   {"format":"birthmark-audit/1","keyId":…,"after":n,"previous":hash,"made":seconds}
//   {"n":…,"at":…,"kind":…,"requestId":…,"fleet":…,"device":…,"by":…,"code":…,"detail":…,"hash":…}      hash: audit-chain.ts
//   {"records":count,"last":n,"head":hash,"algorithm":…,"signature":base64}
// Signed are the bytes of `birthmark-audit/1`, the head's line and `records last head` (as in the foot, with spaces), each with a line end.

import { hash } from 'node:crypto'
import { type Bytes, equalBytes } from '@birthmark/device-sdk/core'
import { verifyOnce } from './node-crypto.ts'
import { auditHash } from './store/audit-chain.ts'
import type { AuditRecord } from './store/store.ts'

const FORMAT = 'birthmark-audit/1'
/** A record stays under a kilobyte (audit-chain.ts) and escapes take at most six characters for one. */
export const auditLineBytesMax = 16_384

export interface AuditSigner {
  /** SubjectPublicKeyInfo, DER. */
  spki: Bytes
  /** As the core names it, such as `ecdsa-sha256`: DER signatures. */
  algorithm: string
  sign(message: Bytes): Promise<Bytes> | Bytes
}

export interface AuditRange {
  /** Number and hash of the record before the first; 0 and 32 zero bytes for the chain's start. */
  after: number
  previous: Bytes
}

const hex = (bytes: Bytes) => Buffer.from(bytes).toString('hex')
/** First 8 bytes of SHA-256 over the SubjectPublicKeyInfo. */
export const auditKeyId = (spki: Bytes): string => hash('sha256', spki, 'hex').slice(0, 16)
const signed = (head: string, records: number, last: number, end: string) =>
  Buffer.from(`${FORMAT}\n${head}\n${records} ${last} ${end}\n`)

/** The file, line by line, each with its end. */
export async function* auditLines(
  records: AsyncIterable<AuditRecord>,
  range: AuditRange,
  signer: AuditSigner,
  made: number,
): AsyncGenerator<string> {
  const head = JSON.stringify({
    format: FORMAT,
    keyId: auditKeyId(signer.spki),
    after: range.after,
    previous: hex(range.previous),
    made,
  })
  yield `${head}\n`
  let count = 0
  let last = range.after
  let end = hex(range.previous)
  for await (const { n, at, kind, requestId, fleet, device, by, code, detail, hash: own } of records) {
    count++
    last = n
    end = hex(own)
    yield `${JSON.stringify({ n, at, kind, requestId, fleet, device, by, code, detail, hash: end })}\n`
  }
  const signature = Buffer.from(await signer.sign(signed(head, count, last, end))).toString('base64')
  yield `${JSON.stringify({ records: count, last, head: end, algorithm: signer.algorithm, signature })}\n`
}

export type AuditFileProblem =
  /** Not such a file, or cut off before its foot. */
  | { code: 'audit_malformed'; line: number; detail: string }
  /** A record was changed, removed, put in or moved. */
  | { code: 'audit_broken'; line: number; detail: string }
  | { code: 'audit_key'; line: number; detail: string }
  | { code: 'audit_signature'; line: number; detail: string }

export interface AuditFileReport {
  after: number
  previous: Bytes
  records: number
  last: number
  head: Bytes
  made: number
}

/**
 * Judges a file against the public key it should be signed with. Before: lines from anywhere, without their ends, each at most
 * auditLineBytesMax long. After a report: whoever holds the key has vouched for exactly these records. Nothing says that they are all: the next
 * file's `after` and `previous` do.
 */
export async function verifyAuditLines(lines: AsyncIterable<string>, spki: Bytes): Promise<AuditFileReport | AuditFileProblem> {
  let line = 0
  let head: { text: string; after: number; previous: Buffer; made: number } | null = null
  let report: AuditFileReport | null = null
  let end: Bytes = new Uint8Array()
  let n = 0
  let count = 0
  const problem = (code: AuditFileProblem['code'], detail: string): AuditFileProblem => ({ code, line, detail })
  for await (const text of lines) {
    line++
    if (report) return problem('audit_malformed', 'something follows the foot')
    const value = objectOf(text)
    if (value === null) return problem('audit_malformed', 'not an object of JSON, or cut off')
    if (head === null) {
      const { format, keyId, after, previous, made } = value
      if (format !== FORMAT) return problem('audit_malformed', `the format is not ${FORMAT}`)
      if (!isCount(after) || !isCount(made) || !isHash(previous))
        return problem('audit_malformed', 'a head says after, previous and made')
      if (keyId !== auditKeyId(spki))
        return problem('audit_key', `signed with key ${String(keyId).slice(0, 16)}, not ${auditKeyId(spki)}`)
      head = { text, after, previous: Buffer.from(previous, 'hex'), made }
      end = head.previous
      n = after
      continue
    }
    if ('signature' in value) {
      const { records, last, head: said, algorithm, signature } = value
      if (records !== count || last !== n || said !== hex(end))
        return problem(
          'audit_broken',
          `the foot tells of ${String(records)} records up to ${String(last)}; there are ${count} up to ${n}`,
        )
      if (typeof signature !== 'string' || typeof algorithm !== 'string') return problem('audit_malformed', 'no signature')
      if (!verifyOnce(spki, algorithm, signed(head.text, count, n, hex(end)), Buffer.from(signature, 'base64')))
        return problem('audit_signature', 'the signature does not match')
      report = { after: head.after, previous: head.previous, records: count, last: n, head: end, made: head.made }
      continue
    }
    const record = recordOf(value)
    if (record === null) return problem('audit_malformed', 'a record lacks a field')
    if (record.n !== n + 1) return problem('audit_broken', `record ${record.n} stands where ${n + 1} is expected`)
    if (!equalBytes(auditHash(end, record.n, record), record.hash))
      return problem('audit_broken', `record ${record.n} was changed, or one before it`)
    end = record.hash
    n = record.n
    count++
  }
  return report ?? problem('audit_malformed', 'the foot is missing: the file was cut off')
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0
const isHash = (value: unknown): value is string => typeof value === 'string' && /^[0-9a-f]{64}$/.test(value)

function objectOf(text: string): Record<string, unknown> | null {
  if (text.length > auditLineBytesMax) return null
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : null
  } catch {
    return null
  }
}

function recordOf(value: Record<string, unknown>): AuditRecord | null {
  const { n, at, kind, requestId, fleet, device, by, code, detail, hash: own } = value
  const texts = [kind, requestId, fleet, device, by, code, detail]
  if (!isCount(n) || !Number.isSafeInteger(at) || !isHash(own) || texts.some(text => typeof text !== 'string')) return null
  // `kind` may be of a later version: the chain covers it whatever it says.
  return { ...(value as unknown as AuditRecord), hash: Buffer.from(own, 'hex') }
}
