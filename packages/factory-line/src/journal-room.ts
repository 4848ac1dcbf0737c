// The room in which a group of journal lines is put together before it is written: each line goes where it will stand in the file,
// and its hash is taken there. One room for all groups, since a line is made for every step of every unit.

import type { Bytes } from '@birthmark/device-sdk/core'
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

/** A tenth of the time of the device's own base64Of, at every step of every unit. */
const base64 = (bytes: Bytes) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64')

export function journalRoom(): JournalRoom {
  let room = Buffer.alloc(1 << 16)
  let filled = 0

  const write = (text: string): void => {
    // Three octets are the most that UTF-8 makes of one unit of a string; one for the newline.
    const most = filled + 3 * text.length + 1
    if (most > room.length) room = Buffer.concat([room.subarray(0, filled)], 2 * most)
    filled += room.write(text, filled)
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
          write(`${head},${names},"origin":"${keyOrigin}","tbs":"${base64(toBeSigned)}${end}`)
          break
        }
        case 'issued':
          write(`${head},"serial":${JSON.stringify(line.serial)},"signature":"${base64(line.signature)}${end}`)
          break
        case 'seal':
          write(`${head},"signature":"${base64(line.signature)}${end}`)
          break
        default:
          write(JSON.stringify({ n, at, ...line, prev }))
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
