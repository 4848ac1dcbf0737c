// The line's record: append-only JSON lines, hash-chained, sealed by the station's signature, each on the medium before its effect
// leaves the station. Promises that a serial and a key appear once, whatever is pulled out of the wall and when.
//
// A unit takes two lines: `reserved` (what will be signed) and `issued` (its signature). A crash in between leaves a reservation, which
// the same request later completes by signing the very same bytes. What became of the unit (`good`, `scrapped`) comes after.
// Lines that arrive together share one seal and one fsync.

import {
  closeSync,
  fdatasync,
  fsyncSync,
  ftruncateSync,
  linkSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { type Bytes, signatureAlgorithmIdentifier } from '@birthmark/device-sdk/core'
import type { Authority } from './authority.ts'
import { assembleCertificate } from './certificate-form.ts'
import { FactoryError } from './errors.ts'
import { type FateLine, GENESIS, type Line, type OpenedLine, type ReservedLine, readJournal, sealInput } from './journal-line.ts'
import { journalRoom, type NewLine, type NewUnit } from './journal-room.ts'
import { lineReader } from './line-reader.ts'
import { verifySignature } from './signing-key.ts'
import { fingerprintIndex, fingerprintOf, fingerprintOfHex, GOOD, ISSUED, SCRAPPED, unitTable } from './unit-index.ts'

export type UnitState = 'reserved' | 'issued' | 'good' | 'scrapped'

export interface Unit extends NewUnit {
  /** Which of the journal's units it is, in the order of reservation. */
  index: number
  /** null while only reserved. */
  certificate: Bytes | null
  state: UnitState
}

export interface Tally {
  reserved: number
  issued: number
  good: number
  scrapped: number
  certificates: number
}

export interface Journal {
  /** From the journal's first line. */
  id: string
  bySerial(serial: string): Unit | null
  byKey(spkiSha256: string): Unit | null
  /**
   * Taken at once, so that nobody else gets serial or key; on the medium when `durable` resolves. The caller has checked that neither is
   * known. Throws `journal_write` when nothing more is written.
   */
  reserve(unit: NewUnit, at: number): { index: number; durable: Promise<void> }
  /** Of a unit that was reserved. Durable when it resolves: only now may the certificate leave. */
  issued(unit: { serial: string; index: number }, signature: Bytes, at: number): Promise<void>
  /** `good` and `scrapped` settle an issued unit (`scrapped` also a reserved one); `failed` leaves it as it is. */
  fate(fate: FateLine, at: number): Promise<void>
  note(what: string, detail: string, at: number): Promise<void>
  /** In the order of reservation. */
  units(): Iterable<Unit>
  /** How many are in each state, and how many have a certificate: a scrapped unit may have one or not. */
  tally(): Tally
  /** When the latest line says that it was written; 0 in an empty journal. */
  latest(): number
  /** What the medium holds: lines, bytes, and the hash that the next line will carry. */
  head(): { lines: number; bytes: number; hash: string }
  /** Ends when what was begun is on the medium. */
  close(): void
}

/** Called by name at each instant that a power cut should be tried at. */
export type Failpoint = (name: string) => void

const STATES: UnitState[] = ['reserved', 'issued', 'good', 'scrapped']
// One write: large enough for a thousand waiting units, small enough that the first of them does not wait for long.
const groupLinesMax = 4096

/**
 * Opens or starts `journal.jsonl` in `folder`. One process at a time (`journal_busy`). Lines after the last seal were cut off by a power
 * loss and are dropped: their fsync never returned. Any other damage is `journal_corrupt` and nothing is issued.
 */
export function openJournal(options: {
  folder: string
  /** Seals; its certificate and chain are in the first line. */
  signer: Authority
  /** Signature algorithm of the birth certificates. */
  algorithm: string
  station: string
  sku: string | null
  random(length: number): Bytes
  failpoint?: Failpoint
}): Journal {
  const unlock = lock(join(options.folder, 'journal.lock'))
  try {
    return open(options, unlock)
  } catch (error) {
    unlock()
    throw error
  }
}

function open(options: Parameters<typeof openJournal>[0], unlock: () => void): Journal {
  const { signer, failpoint = () => {} } = options
  const file = join(options.folder, 'journal.jsonl')
  const fd = openSync(file, 'a+', 0o600)
  const table = unitTable()
  const serials = fingerprintIndex()
  const keys = fingerprintIndex()
  // Reserved here and not yet on the medium, by its number.
  const waiting = new Map<number, NewUnit>()
  const algorithmDer = signatureAlgorithmIdentifier(options.algorithm)
  let opened: OpenedLine | null = null
  let certificates = 0
  let latest = 0

  const lineAt = lineReader(fd, file)
  const reservedLine = (index: number) => lineAt(table.reservedAt(index)) as Line & ReservedLine
  const reservedUnit = (index: number): NewUnit => {
    const unit = waiting.get(index)
    if (unit) return unit
    const { serial, spki, groups, origin, tbs } = reservedLine(index)
    return { serial, spkiSha256: spki, groups, keyOrigin: origin, toBeSigned: Buffer.from(tbs, 'base64') }
  }
  const unitOf = (index: number, reserved: NewUnit): Unit => {
    const at = table.issuedAt(index)
    const signature = at < 0 ? null : Buffer.from((lineAt(at) as Line & { signature: string }).signature, 'base64')
    return {
      ...reserved,
      index,
      certificate: signature && assembleCertificate(reserved.toBeSigned, algorithmDer, signature),
      state: STATES[table.state(index)],
    }
  }
  const serialOf = (index: number): string => (waiting.get(index) ?? reservedLine(index)).serial
  /** −1 for a serial that is not known. */
  const indexOf = (serial: string): number => serials.find(fingerprintOf(serial), index => serialOf(index) === serial)
  // Serials whose fingerprint another has, too. Practically none: for all others a reader of the sealed journal need not look twice.
  const ambiguous = new Set<string>()
  const sealedIndexOf = (serial: string): number =>
    serials.find(fingerprintOf(serial), candidate => ambiguous.size === 0 || serialOf(candidate) === serial)
  const enter = (serial: string, spkiSha256: string): number => {
    const print = fingerprintOf(serial)
    if (serials.find(print, () => true) >= 0) ambiguous.add(serial)
    const index = table.add()
    serials.add(print, index)
    keys.add(fingerprintOfHex(spkiSha256), index)
    return index
  }
  const settle = (index: number, kind: 'good' | 'scrapped'): void => table.setState(index, kind === 'good' ? GOOD : SCRAPPED)

  let end: ReturnType<typeof readJournal>
  try {
    end = readJournal(
      fd,
      (line, offset) => {
        latest = Math.max(latest, line.at)
        if (line.kind === 'opened') opened = line
        else if (line.kind === 'reserved') table.setReserved(enter(line.serial, line.spki), offset)
        else if (line.kind !== 'note' && line.kind !== 'seal' && line.kind !== 'failed') {
          const index = sealedIndexOf(line.serial)
          if (index < 0) throw new FactoryError('journal_corrupt', `line ${line.n}: ${line.serial} was never reserved`)
          if (line.kind === 'issued') {
            certificates++
            table.setIssued(index, offset)
            table.setState(index, ISSUED)
          } else settle(index, line.kind)
        }
      },
      seal =>
        verifySignature(signer.key.spki, signer.key.algorithm, sealInput(seal.n, seal.prev), Buffer.from(seal.signature, 'base64')),
    )
    if (end.tail > 0) {
      ftruncateSync(fd, end.bytes)
      fsyncSync(fd)
    }
    if (end.lines === 0) syncFolder(dirname(file))
  } catch (error) {
    closeSync(fd)
    throw error
  }

  let { lines: count, head: previous, bytes: size } = end
  const known = opened as OpenedLine | null
  const id = known?.journal ?? Buffer.from(options.random(16)).toString('hex')
  /** `index`: of the unit that the line is about, or −1. */
  type Entry = { line: NewLine; at: number; index: number; offset: number }
  /** Lines that share a seal, an fsync, and the promise that tells of it. */
  type Group = { entries: Entry[]; durable: Promise<void>; settle(failure: unknown): void }
  const groups: Group[] = []
  let flushing = false
  let committing = false
  let closing = false
  // After a failed write or fsync nobody knows what the medium holds (FAULTS 68): nothing more is issued until a restart reads it.
  let failed: FactoryError | null = null

  /** Why nothing more is written; null when all is well. */
  const refusal = (): FactoryError | null => failed ?? (closing ? new FactoryError('journal_write', 'the journal is closed') : null)

  const append = (line: NewLine, at: number, index: number): Promise<void> => {
    const over = refusal()
    if (over) return Promise.reject(over)
    let group = groups.at(-1)
    if (!group || group.entries.length >= groupLinesMax) {
      group = emptyGroup()
      groups.push(group)
    }
    group.entries.push({ line, at, index, offset: 0 })
    if (!flushing) {
      flushing = true
      // After everything that this turn of the event loop brings: those lines share a group.
      setImmediate(() => void flush())
    }
    return group.durable
  }
  const emptyGroup = (): Group => {
    let settle: Group['settle'] = () => {}
    const durable = new Promise<void>((resolve, reject) => {
      settle = failure => (failure ? reject(failure) : resolve())
    })
    return { entries: [], durable, settle }
  }

  const flush = async (): Promise<void> => {
    for (let group = groups.shift(); group; group = groups.shift()) {
      try {
        if (failed) throw failed
        committing = true
        await commit(group.entries)
        group.settle(null)
      } catch (error) {
        failed ??=
          error instanceof FactoryError
            ? error
            : new FactoryError('journal_write', `${file} could not be written: ${(error as Error).message}`, error)
        group.settle(failed)
      }
      committing = false
      // Those who waited take their next step first, so that its lines come into this group and not the one after it.
      await new Promise(resolve => setImmediate(resolve))
    }
    flushing = false
    if (closing) finish()
  }

  const room = journalRoom()
  const commit = async (entries: Entry[]): Promise<void> => {
    room.clear()
    const begin = size
    const chain = (line: NewLine, at: number): number => {
      const offset = size
      previous = room.add(count + 1, at, previous, line)
      count++
      size = begin + room.filled()
      return offset
    }
    if (count === 0) {
      const { station, sku } = options
      const certificates = [signer.certificate, ...signer.chain.slice(0, -1)].map(der => Buffer.from(der).toString('base64'))
      chain({ kind: 'opened', journal: id, station, sku, certificates }, entries[0].at)
    }
    for (const entry of entries) entry.offset = chain(entry.line, entry.at)
    const last = entries[entries.length - 1].at
    chain({ kind: 'seal', signature: await signer.key.sign(sealInput(count + 1, previous)) }, last)
    const data = room.data()
    failpoint('before-write')
    // Into the page cache at once, below a megabyte for hundreds of units: a helper thread would cost more than that copy. The medium is waited for elsewhere.
    for (let at = 0; at < data.length; ) at += writeSync(fd, data, at)
    failpoint('before-sync')
    await synced(fd)
    failpoint('after-sync')
    for (const { line, index, offset } of entries) {
      if (line.kind === 'reserved') {
        table.setReserved(index, offset)
        waiting.delete(index)
      } else if (line.kind === 'issued') {
        certificates++
        table.setIssued(index, offset)
        table.setState(index, ISSUED)
      } else if (line.kind === 'good' || line.kind === 'scrapped') settle(index, line.kind)
    }
    latest = Math.max(latest, last)
  }

  let finished = false
  const finish = (): void => {
    if (finished) return
    finished = true
    closeSync(fd)
    for (const each of [table, serials, keys]) each.clear()
    unlock()
  }

  return {
    id,
    bySerial(serial) {
      let unit: NewUnit | null = null
      const index = serials.find(fingerprintOf(serial), candidate => {
        unit = reservedUnit(candidate)
        return unit.serial === serial
      })
      return index < 0 || unit === null ? null : unitOf(index, unit)
    },
    byKey(spkiSha256) {
      let unit: NewUnit | null = null
      const index = keys.find(fingerprintOfHex(spkiSha256), candidate => {
        unit = reservedUnit(candidate)
        return unit.spkiSha256 === spkiSha256
      })
      return index < 0 || unit === null ? null : unitOf(index, unit)
    },
    reserve(unit, at) {
      const over = refusal()
      if (over) throw over
      const index = enter(unit.serial, unit.spkiSha256)
      waiting.set(index, unit)
      return { index, durable: append({ kind: 'reserved', unit }, at, index) }
    },
    issued: ({ serial, index }, signature, at) => append({ kind: 'issued', serial, signature }, at, index),
    fate(fate, at) {
      // A failure may be about a unit that never got as far as a reservation.
      if (fate.kind === 'failed') return append(fate, at, -1)
      const index = indexOf(fate.serial)
      if (index < 0) return Promise.reject(new FactoryError('serial_unknown', `${fate.serial} was not issued here`))
      return append(fate, at, index)
    },
    note: (what, detail, at) => append({ kind: 'note', what, detail }, at, -1),
    *units() {
      for (let index = 0; index < table.count; index++) yield unitOf(index, reservedUnit(index))
    },
    tally() {
      const [reserved, issued, good, scrapped] = table.tally
      return { reserved, issued, good, scrapped, certificates }
    },
    latest: () => latest,
    head: () => ({ lines: count, bytes: size, hash: count === 0 ? GENESIS : previous }),
    close() {
      if (closing) return
      closing = true
      if (!committing && groups.length === 0) finish()
    },
  }
}

function synced(fd: number): Promise<void> {
  return new Promise((resolve, reject) => fdatasync(fd, error => (error ? reject(error) : resolve())))
}

function syncFolder(folder: string): void {
  const fd = openSync(folder, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** A file naming the process that holds the journal. One left by a process that is gone is taken over. */
function lock(file: string): () => void {
  const own = `${file}.${process.pid}`
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      // Whole before it has its name: a kill in between leaves no lock that names nobody.
      writeFileSync(own, holderOf(process.pid), { mode: 0o600 })
      linkSync(own, file)
      return () => rmSync(file, { force: true })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw new FactoryError('journal_write', `cannot write ${file}`, error)
      const holder = readFileSync(file, 'utf8')
      const pid = Number.parseInt(holder, 10)
      if (pid === process.pid || holderOf(pid) === holder)
        throw new FactoryError('journal_busy', `process ${pid} works with this journal`)
      rmSync(file, { force: true })
    } finally {
      rmSync(own, { force: true })
    }
  }
  throw new FactoryError('journal_busy', `${file} is contended`)
}

/** Names a process for good: after a power cut another one may have the same number. */
function holderOf(pid: number): string {
  const read = (path: string): string => {
    try {
      return readFileSync(path, 'utf8')
    } catch {
      return ''
    }
  }
  // proc(5): field 22 of stat is the start time; the name in field 2 may hold spaces and brackets.
  const started = read(`/proc/${pid}/stat`).split(') ').pop()?.split(' ')[19] ?? ''
  return `${pid} ${started} ${read('/proc/sys/kernel/random/boot_id').trim()}\n`
}
