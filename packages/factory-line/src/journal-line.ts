// What a journal's lines say, and the check of a whole journal from its first line: numbers without a gap, each line with the hash of the
// one before, and seals, which are signatures of the station over everything so far. Reads in pieces: a journal may have gigabytes.

import { readSync } from 'node:fs'
import type { Bytes } from '@birthmark/device-sdk/core'
import { FactoryError } from './errors.ts'
import { sha256Hex } from './signing-key.ts'

/** The first line: whose journal this is. */
export interface OpenedLine {
  kind: 'opened'
  /** 32 hex digits, random: two journals of one station are never taken for one another. */
  journal: string
  station: string
  sku: string | null
  /** Who seals: certificate, then its issuers without the root, DER in base64. */
  certificates: string[]
}

export interface ReservedLine {
  kind: 'reserved'
  serial: string
  /** SHA-256 of the SubjectPublicKeyInfo, hex. */
  spki: string
  groups: string[]
  origin: 'device' | 'host'
  /** TBSCertificate, base64: what will be signed, octet for octet. */
  tbs: string
}

/** The signature over the `tbs` of the reservation, base64: with it the certificate is complete. */
export interface IssuedLine {
  kind: 'issued'
  serial: string
  signature: string
}

/** What became of a unit. `step` and `cause` are short names of the line's own, for the Pareto. */
export interface FateLine {
  kind: 'good' | 'scrapped' | 'failed'
  serial: string
  step: string
  cause: string
}

/** Something to be remembered that is not about one unit: host-made keys allowed, an order begun, the line closed. */
export interface NoteLine {
  kind: 'note'
  what: string
  detail: string
}

export interface SealLine {
  kind: 'seal'
  /** Over `birthmark-journal/1`, the number of this line and `prev`; base64. */
  signature: string
}

export type Line = (OpenedLine | ReservedLine | IssuedLine | FateLine | NoteLine | SealLine) & {
  n: number
  at: number
  prev: string
}

export const GENESIS = '0'.repeat(64)
/** A reservation with an ML-DSA-65 key and 8 groups has about 5 KB. */
export const journalLineBytesMax = 65_536

export function sealInput(n: number, prev: string): Bytes {
  return Buffer.from(`birthmark-journal/1\n${n}\n${prev}\n`)
}

export interface JournalEnd {
  /** Bytes up to and including the last seal. */
  bytes: number
  /** Lines up to and including the last seal. */
  lines: number
  /** Hash of that seal's line. */
  head: string
  /** Bytes after it: a group of lines whose fsync never returned. */
  tail: number
}

/**
 * Reads a journal from `from` and shows each line, with its offset, once a seal covers it. The lines after the last seal were cut off by a
 * power loss: nothing that depends on them has left, and they are not shown. Throws `journal_corrupt` for anything else.
 * `verify` is asked about the last seal alone: by the chain it covers every line before it.
 */
export function readJournal(
  fd: number,
  show: (line: Line, offset: number) => void,
  verify: (line: SealLine & { n: number; prev: string }) => boolean,
  from: { bytes: number; lines: number; head: string } = { bytes: 0, lines: 0, head: GENESIS },
): JournalEnd {
  const end: JournalEnd = { ...from, tail: 0 }
  let lastSeal: (SealLine & { n: number; prev: string }) | null = null
  let group: [Line, number][] = []
  let { lines: count, head: previous } = from
  // The first thing wrong. A power loss may leave it at the end; a seal after it says that it is something else.
  let wrong: string | null = null
  let torn = false
  let offset = from.bytes

  const take = (text: Buffer): void => {
    const at = offset
    offset += text.length + 1
    let line: Line | null = null
    try {
      line = JSON.parse(text.toString('utf8')) as Line
    } catch {
      // Blocks that were never written read as zeros: a power loss, even with whole lines after them.
      torn ||= text.includes(0)
    }
    if (wrong === null && (line === null || line.n !== count + 1 || line.prev !== previous || !KINDS.has(line.kind)))
      wrong = `line ${count + 1} does not follow the one before`
    if (wrong !== null) {
      if (line?.kind === 'seal' && !torn) throw new FactoryError('journal_corrupt', `${wrong}, and more was sealed after it`)
      return
    }
    const sound = line as Line
    previous = hashOf(text)
    count++
    group.push([sound, at])
    if (sound.kind !== 'seal') return
    lastSeal = sound
    for (const [each, where] of group) show(each, where)
    group = []
    end.bytes = offset
    end.lines = count
    end.head = previous
  }

  // One buffer from beginning to end: pieces that are made anew outrun the collector in a journal of gigabytes.
  const buffer = Buffer.alloc((1 << 18) + journalLineBytesMax)
  let filled = 0
  for (let position = from.bytes; ; ) {
    const length = readSync(fd, buffer, filled, buffer.length - filled, position)
    if (length === 0) break
    position += length
    filled += length
    let begin = 0
    for (;;) {
      const nl = buffer.indexOf(0x0a, begin)
      if (nl < 0 || nl >= filled) break
      take(buffer.subarray(begin, nl))
      begin = nl + 1
    }
    if (begin === 0 && filled === buffer.length) {
      if (!buffer.includes(0)) throw new FactoryError('journal_corrupt', `line ${count + 1} never ends`)
      // Never written, so torn: what follows cannot follow.
      torn = true
      wrong ??= `line ${count + 1} is not there`
      offset += filled
      begin = filled
    }
    buffer.copyWithin(0, begin, filled)
    filled -= begin
  }
  end.tail = offset + filled - end.bytes
  if (lastSeal !== null && !verify(lastSeal))
    throw new FactoryError('journal_corrupt', `the seal in line ${end.lines} is not by this station`)
  return end
}

const KINDS = new Set<string>(['opened', 'reserved', 'issued', 'good', 'scrapped', 'failed', 'note', 'seal'])

export function hashOf(text: Bytes): string {
  return sha256Hex(text)
}
