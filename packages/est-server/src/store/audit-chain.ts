// The audit chain: each record's hash covers its content and the hash before it, so that a changed, removed or inserted record shows
// from there on. Whoever keeps the last hash elsewhere can also tell a truncated log. Pure; the drivers store what this computes.

import { hash } from 'node:crypto'
import type { AuditEntry, AuditRecord } from './store.ts'

/** Longer details are cut: a record stays under 1 KiB, whatever a peer put into its names. */
export const detailCharsMax = 512

export const chainStart: Uint8Array = new Uint8Array(32)

// Printable ASCII, as nearly all of it is.
const plain = /^[ -~]*$/

/** An entry as it is recorded: its free text bounded, and such that every database gives back what it took: no NUL, no half of a surrogate pair. */
export function boundEntry(entry: AuditEntry): AuditEntry {
  const cut = (text: string, most: number) => {
    if (text.length <= most && plain.test(text)) return text
    const short = text.length > most ? `${text.slice(0, most - 1)}…` : text
    // Half a surrogate pair does not survive UTF-8.
    return Buffer.from(short.replaceAll('\0', '\ufffd')).toString()
  }
  return { ...entry, by: cut(entry.by, 128), requestId: cut(entry.requestId, 64), detail: cut(entry.detail, detailCharsMax) }
}

/** SHA-256(previous hash ‖ JSON array of the fields in this order). */
export function auditHash(previous: Uint8Array, n: number, e: AuditEntry): Uint8Array {
  const content = JSON.stringify([n, e.at, e.kind, e.requestId, e.fleet, e.device, e.by, e.code, e.detail])
  return hash('sha256', Buffer.concat([previous, Buffer.from(content)]), 'buffer')
}

/** The first record of `records` that does not follow from `previous`, by number; 0 when all do. */
export function firstBroken(previous: Uint8Array, records: AuditRecord[]): number {
  let last = previous
  for (const record of records) {
    if (Buffer.compare(auditHash(last, record.n, record), record.hash) !== 0) return record.n
    last = record.hash
  }
  return 0
}
