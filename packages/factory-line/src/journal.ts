// The line's record: append-only JSON lines, each with the hash of the one before, each on the medium before its effect leaves the
// station. Promises that a serial and a key appear once, whatever is pulled out of the wall and when.
//
// A unit takes two lines: `reserved` (what will be signed) and `issued` (what was signed). A crash in between leaves a reservation,
// which the same request later completes by signing the very same bytes.

import { closeSync, fsyncSync, ftruncateSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Bytes } from '@birthmark/device-sdk/core'
import { FactoryError } from './errors.ts'
import { sha256Hex } from './signing-key.ts'

export interface Unit {
  serial: string
  /** SHA-256 of the SubjectPublicKeyInfo, hex. */
  spkiSha256: string
  groups: string[]
  keyOrigin: 'device' | 'host'
  toBeSigned: Bytes
  /** null while only reserved. */
  certificate: Bytes | null
}

export interface Journal {
  bySerial(serial: string): Unit | null
  byKey(spkiSha256: string): Unit | null
  /** Durable when it returns. The caller has checked that neither serial nor key is known. */
  reserve(unit: Omit<Unit, 'certificate'>, at: number): Unit
  /** Durable when it returns: only now may the certificate leave. */
  issued(unit: Unit, certificate: Bytes, at: number): void
  units(): Iterable<Unit>
  close(): void
}

type Line =
  | {
      n: number
      at: number
      kind: 'reserved'
      serial: string
      spki: string
      groups: string[]
      origin: 'device' | 'host'
      tbs: string
      prev: string
    }
  | { n: number; at: number; kind: 'issued'; serial: string; certificate: string; prev: string }

const GENESIS = '0'.repeat(64)

/**
 * Opens or starts `journal.jsonl` in `folder`. One process at a time (`journal_busy`). A last line that was cut off by a power loss is
 * dropped: its fsync never returned, so nothing that depends on it has left. Any other damage is `journal_corrupt` and nothing is issued.
 */
export function openJournal(folder: string): Journal {
  const file = join(folder, 'journal.jsonl')
  const unlock = lock(join(folder, 'journal.lock'))
  try {
    return read(file, unlock)
  } catch (error) {
    unlock()
    throw error
  }
}

function read(file: string, unlock: () => void): Journal {
  const fd = openSync(file, 'a+', 0o600)
  const bytes = readFileSync(file)
  const whole = bytes.lastIndexOf(0x0a) + 1
  if (whole < bytes.length) {
    ftruncateSync(fd, whole)
    fsyncSync(fd)
  }
  const serials = new Map<string, Unit>()
  const keys = new Map<string, Unit>()
  let previous = GENESIS
  let count = 0

  const take = (line: Line): Unit => {
    if (line.kind === 'issued') {
      const unit = serials.get(line.serial)
      if (!unit) throw new Error(`issued before it was reserved: ${line.serial}`)
      unit.certificate = Buffer.from(line.certificate, 'base64')
      return unit
    }
    const { serial, groups } = line
    const toBeSigned = Buffer.from(line.tbs, 'base64')
    const unit: Unit = { serial, spkiSha256: line.spki, groups, keyOrigin: line.origin, toBeSigned, certificate: null }
    serials.set(unit.serial, unit)
    keys.set(unit.spkiSha256, unit)
    return unit
  }

  for (const text of bytes.subarray(0, whole).toString('utf8').split('\n').slice(0, -1)) {
    try {
      const line = JSON.parse(text) as Line
      if (line.n !== count + 1 || line.prev !== previous) throw new Error('it does not follow the line before')
      if (line.kind !== 'reserved' && line.kind !== 'issued') throw new Error('unknown kind')
      take(line)
    } catch (error) {
      closeSync(fd)
      throw new FactoryError('journal_corrupt', `line ${count + 1} of ${file}: ${(error as Error).message}`, error)
    }
    previous = sha256Hex(Buffer.from(text))
    count++
  }

  // After a failed write or fsync nobody knows what the medium holds (FAULTS 68): nothing more is issued until a restart reads it.
  let failed = false
  const append = (line: Line): void => {
    if (failed) throw new FactoryError('journal_write', 'an earlier write failed; restart the station')
    const text = JSON.stringify(line)
    try {
      const data = Buffer.from(`${text}\n`)
      for (let at = 0; at < data.length; ) at += writeSync(fd, data, at)
      fsyncSync(fd)
    } catch (error) {
      failed = true
      throw new FactoryError('journal_write', `${file} could not be written: ${(error as Error).message}`, error)
    }
    previous = sha256Hex(Buffer.from(text))
    count++
  }

  if (count === 0) syncFolder(dirname(file))

  return {
    bySerial: serial => serials.get(serial) ?? null,
    byKey: spkiSha256 => keys.get(spkiSha256) ?? null,
    reserve(unit, at) {
      const line: Line = {
        n: count + 1,
        at,
        kind: 'reserved',
        serial: unit.serial,
        spki: unit.spkiSha256,
        groups: unit.groups,
        origin: unit.keyOrigin,
        tbs: Buffer.from(unit.toBeSigned).toString('base64'),
        prev: previous,
      }
      append(line)
      return take(line)
    },
    issued(unit, certificate, at) {
      const line: Line = {
        n: count + 1,
        at,
        kind: 'issued',
        serial: unit.serial,
        certificate: Buffer.from(certificate).toString('base64'),
        prev: previous,
      }
      append(line)
      take(line)
    },
    units: () => serials.values(),
    close() {
      closeSync(fd)
      unlock()
    },
  }
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
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      const fd = openSync(file, 'wx', 0o600)
      writeSync(fd, `${process.pid}\n`)
      closeSync(fd)
      return () => rmSync(file, { force: true })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw new FactoryError('journal_write', `cannot write ${file}`, error)
      const holder = Number(readFileSync(file, 'utf8'))
      if (holder !== process.pid && !alive(holder)) rmSync(file, { force: true })
      else throw new FactoryError('journal_busy', `process ${holder} works with this journal`)
    }
  }
  throw new FactoryError('journal_busy', `${file} is contended`)
}

function alive(pid: number): boolean {
  // An empty file: its writer is between making and naming it, so it is alive.
  if (!Number.isInteger(pid) || pid <= 0) return true
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
