// The room in which a group of journal lines is put together before it is written: each line's octets go where they will stand in the file,
// and its hash is taken there. One room for all groups, since a line is made for every step of every unit.

import { type Bytes, base64Length, writeBase64 } from '@birthmark/device-sdk/core'
import { type FateLine, hashOf, type NoteLine, type OpenedLine } from './journal-line.ts'

/** A unit before it has a certificate. */
export interface NewUnit {
  serial: string
  /** SHA-256 of the SubjectPublicKeyInfo, hex. */
  spkiSha256: string
  groups: string[]
  keyOrigin: 'device' | 'host'
  toBeSigned: Bytes
}

/** What a line is to say, where it will say base64 still as octets. */
export type NewLine =
  | { kind: 'reserved'; unit: NewUnit }
  | { kind: 'issued'; serial: string; signature: Bytes }
  | { kind: 'seal'; signature: Bytes }
  | OpenedLine
  | FateLine
  | NoteLine

export interface JournalRoom {
  /** Octets of all lines since `clear`. */
  filled(): number
  /** Appends line `n` and its newline; returns its hash, for the line after it. */
  add(n: number, at: number, prev: string, line: NewLine): string
  /** A view that holds until the next `add`. */
  data(): Bytes
  clear(): void
}

export function journalRoom(): JournalRoom {
  let room = Buffer.alloc(1 << 16)
  let filled = 0

  // A line is a text, the octets that follow it in base64, and the text that ends it.
  const write = (before: string, octets: Bytes | null, after: string): void => {
    // Three octets are the most that UTF-8 makes of one unit of a string.
    const most = filled + 3 * (before.length + after.length) + (octets ? base64Length(octets.length) : 0) + 1
    if (most > room.length) room = Buffer.concat([room.subarray(0, filled)], 2 * most)
    filled += room.write(before, filled)
    if (octets) filled = writeBase64(room, filled, octets, 0, octets.length)
    filled += room.write(after, filled)
  }

  return {
    filled: () => filled,
    add(n, at, prev, line) {
      const begin = filled
      const head = `{"n":${n},"at":${at},"kind":"${line.kind}"`
      const end = `","prev":"${prev}"}`
      switch (line.kind) {
        case 'reserved': {
          const { serial, spkiSha256, groups, keyOrigin, toBeSigned } = line.unit
          const names = `"serial":${JSON.stringify(serial)},"spki":"${spkiSha256}","groups":${JSON.stringify(groups)}`
          write(`${head},${names},"origin":"${keyOrigin}","tbs":"`, toBeSigned, end)
          break
        }
        case 'issued':
          write(`${head},"serial":${JSON.stringify(line.serial)},"signature":"`, line.signature, end)
          break
        case 'seal':
          write(`${head},"signature":"`, line.signature, end)
          break
        default:
          write(JSON.stringify({ n, at, ...line, prev }), null, '')
      }
      const hash = hashOf(room.subarray(begin, filled))
      room[filled++] = 0x0a
      return hash
    },
    data: () => room.subarray(0, filled),
    clear() {
      filled = 0
    },
  }
}
