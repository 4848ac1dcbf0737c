// Several stations and one truth: the collector takes copies of their journals, verifies each to its last seal, and says what they are
// together. A station that was offline for a week brings its journal then; what it brought before must be the beginning of what it brings now.
//
// Two stations that are apart cannot keep each other from using one serial: the order gives each its own (column `station`), and the
// collector finds what went wrong all the same. It issues nothing and changes no journal.

import { closeSync, openSync } from 'node:fs'
import type { TrustAnchor } from '@birthmark/device-sdk/core'
import { FactoryError } from './errors.ts'
import { type Line, type OpenedLine, readJournal, type SealLine, sealInput } from './journal-line.ts'
import { trustedSigner } from './manifest.ts'
import { sha256Hex, verifySignature } from './signing-key.ts'
import { fingerprintIndex, fingerprintOfHex } from './unit-index.ts'

/** What the collector remembers of a journal between two visits. */
export interface CollectedJournal {
  journal: string
  station: string
  sku: string | null
  lines: number
  bytes: number
  head: string
}

export interface Conflict {
  kind: 'serial' | 'key'
  serial: string
  stations: [string, string]
}

export interface Collection {
  journals: CollectedJournal[]
  reserved: number
  issued: number
  good: number
  scrapped: number
  unaccounted: number
  /** A serial or a key on two stations: neither unit may leave until a person has decided. The first hundred. */
  conflicts: Conflict[]
  conflictCount: number
}

/**
 * Reads journals of any stations under `anchors`. `before`: what an earlier collection returned; a journal that does not continue it throws
 * `journal_forked` (a copy was put back, or two machines pose as one station). Throws `journal_corrupt`, `manifest_untrusted`.
 */
export function collectJournals(
  files: string[],
  rules: { anchors: TrustAnchor[]; now: number },
  before: CollectedJournal[] = [],
): Collection {
  const result: Collection = {
    journals: [],
    reserved: 0,
    issued: 0,
    good: 0,
    scrapped: 0,
    unaccounted: 0,
    conflicts: [],
    conflictCount: 0,
  }
  const serials = fingerprintIndex()
  const keys = fingerprintIndex()
  // By number: which journal reserved it. Serials and keys are 64 bits of SHA-256: a false alarm among a million has odds of one in 30 million.
  const owners: number[] = []
  files.forEach((file, number) => {
    const fd = openSync(file, 'r')
    try {
      let opened: (OpenedLine & { n: number }) | null = null
      let passed = ''
      const known = new Map<string, CollectedJournal>(before.map(each => [each.journal, each]))
      let lines = 0
      const show = (line: Line): void => {
        lines = line.n
        if (line.kind === 'opened') opened = line
        else if (line.kind === 'reserved') {
          const serialPrint = fingerprintOfHex(sha256Hex(Buffer.from(line.serial)))
          const at = owners.push(number) - 1
          const conflict = (kind: 'serial' | 'key', other: number): void => {
            if (owners[other] === number) return
            result.conflictCount++
            if (result.conflicts.length < 100)
              result.conflicts.push({ kind, serial: line.serial, stations: [files[owners[other]], file] })
          }
          const twin = serials.find(serialPrint, () => true)
          if (twin >= 0) conflict('serial', twin)
          else serials.add(serialPrint, at)
          const holder = keys.find(fingerprintOfHex(line.spki), () => true)
          if (holder >= 0) conflict('key', holder)
          else keys.add(fingerprintOfHex(line.spki), at)
          result.reserved++
        } else if (line.kind === 'issued') result.issued++
        else if (line.kind === 'good') result.good++
        else if (line.kind === 'scrapped') result.scrapped++
        // The line after the one that was last seen names it by its hash.
        const seen = opened && known.get((opened as OpenedLine).journal)
        if (seen && line.n === seen.lines + 1) passed = line.prev
      }
      const verify = (seal: SealLine & { n: number; prev: string }): boolean => {
        if (!opened) return false
        const signer = trustedSigner((opened as OpenedLine).certificates, rules)
        return ['ecdsa-sha256', 'ecdsa-sha384', 'ed25519', 'rsa-pkcs1-sha256'].some(algorithm =>
          verifySignature(signer.spki, algorithm, sealInput(seal.n, seal.prev), Buffer.from(seal.signature, 'base64')),
        )
      }
      const end = readJournal(fd, show, verify)
      const first = opened as OpenedLine | null
      if (!first) throw new FactoryError('journal_corrupt', `${file} holds no journal`)
      const seen = known.get(first.journal)
      if (seen && !(lines === seen.lines ? end.head === seen.head : lines > seen.lines && passed === seen.head))
        throw new FactoryError(
          'journal_forked',
          `${file} does not continue what station ${first.station} brought before (${seen.lines} lines)`,
        )
      const { journal, station, sku } = first
      if (result.journals.some(other => other.journal === journal))
        throw new FactoryError('journal_forked', `${file} is the journal ${journal} once more; give each journal once`)
      result.journals.push({ journal, station, sku, lines: end.lines, bytes: end.bytes, head: end.head })
    } finally {
      closeSync(fd)
    }
  })
  for (const seen of before) if (!result.journals.some(({ journal }) => journal === seen.journal)) result.journals.push(seen)
  result.unaccounted = result.reserved - result.good - result.scrapped
  return result
}
