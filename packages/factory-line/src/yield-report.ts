// The day's end: every certificate is on a good unit, scrapped, or unaccounted for, and the last number has to be zero. Read from the
// journal's lines alone, so that anybody who has the journal gets the same report.

import { closeSync, openSync } from 'node:fs'
import type { Bytes } from '@birthmark/device-sdk/core'
import { FactoryError } from './errors.ts'
import { readJournal, sealInput } from './journal-line.ts'
import { verifySignature } from './signing-key.ts'
import { fingerprintIndex, fingerprintOf } from './unit-index.ts'

/** One bar of a Pareto, of which the most frequent comes first. `share` is cumulative: how much would be gone if this and all above were. */
export interface Failures {
  count: number
  share: number
}

export interface YieldReport {
  journal: string
  station: string
  sku: string | null
  /** Lines covered, and the hash of the seal that covers them: what this report is about. */
  lines: number
  head: string
  /** Seconds since 1970: first and last reservation. */
  from: number
  until: number
  /** Serials taken: `issued` and those begun and never finished. */
  reserved: number
  issued: number
  good: number
  scrapped: number
  unaccounted: number
  /** The first hundred of them. */
  unaccountedSerials: string[]
  /** Certificates for keys that the line made. */
  hostKeys: number
  /** Good without a failed attempt, of all that were settled; 0 to 1, null while there are none. */
  firstPassYield: number | null
  finalYield: number | null
  /** Failed attempts and scrapped units, by the step at which. */
  steps: ({ step: string } & Failures)[]
  /** The same by step and cause. */
  failures: ({ step: string; cause: string } & Failures)[]
  notes: { at: number; what: string; detail: string }[]
}

// Steps and causes are a handful; a line that invents one for every unit is to be cut off, not to fill the memory.
const causesMax = 1000
const notesMax = 1000
const SETTLED_GOOD = 2
const SETTLED_SCRAPPED = 3

/** Reads and verifies a journal. `spki`: the key of its station. Throws `journal_corrupt`. */
export function yieldReport(file: string, spki: Bytes, algorithm: string): YieldReport {
  let fd: number
  try {
    fd = openSync(file, 'r')
  } catch (error) {
    throw new FactoryError('authority_missing', `cannot read ${file}`, error)
  }
  const report: YieldReport = {
    journal: '',
    station: '',
    sku: null,
    lines: 0,
    head: '',
    from: 0,
    until: 0,
    reserved: 0,
    issued: 0,
    good: 0,
    scrapped: 0,
    unaccounted: 0,
    unaccountedSerials: [],
    hostKeys: 0,
    firstPassYield: null,
    finalYield: null,
    steps: [],
    failures: [],
    notes: [],
  }
  const index = fingerprintIndex()
  let states = new Uint8Array(1024)
  let failed = new Uint8Array(1024)
  let count = 0
  const causes = new Map<string, number>()
  const blame = (step: string, cause: string): void => {
    const key = JSON.stringify([step, cause])
    if (causes.size < causesMax || causes.has(key)) causes.set(key, (causes.get(key) ?? 0) + 1)
  }
  // Each serial is reserved once: one whose fingerprint is there already is another unit's twin in that, and is kept by name.
  const twins = new Map<string, number>()
  const numberOf = (serial: string): number => twins.get(serial) ?? index.find(fingerprintOf(serial), () => true)
  try {
    const end = readJournal(
      fd,
      line => {
        switch (line.kind) {
          case 'opened':
            report.journal = line.journal
            report.station = line.station
            report.sku = line.sku
            break
          case 'reserved':
            if (count === states.length) {
              const grow = (old: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> => {
                const made = new Uint8Array(old.length * 2)
                made.set(old)
                return made
              }
              states = grow(states)
              failed = grow(failed)
            }
            if (index.find(fingerprintOf(line.serial), () => true) >= 0) twins.set(line.serial, count++)
            else index.add(fingerprintOf(line.serial), count++)
            report.from ||= line.at
            report.until = line.at
            if (line.origin === 'host') report.hostKeys++
            break
          case 'issued':
            report.issued++
            states[numberOf(line.serial)] = 1
            break
          case 'good':
            states[numberOf(line.serial)] = SETTLED_GOOD
            break
          case 'scrapped':
            states[numberOf(line.serial)] = SETTLED_SCRAPPED
            blame(line.step, line.cause)
            break
          case 'failed': {
            const at = numberOf(line.serial)
            if (at >= 0) failed[at] = 1
            blame(line.step, line.cause)
            break
          }
          case 'note':
            if (report.notes.length < notesMax) report.notes.push({ at: line.at, what: line.what, detail: line.detail })
        }
      },
      seal => verifySignature(spki, algorithm, sealInput(seal.n, seal.prev), Buffer.from(seal.signature, 'base64')),
    )
    report.lines = end.lines
    report.head = end.head
    report.reserved = count
    let clean = 0
    const open = new Uint8Array(count)
    for (let i = 0; i < count; i++) {
      if (states[i] === SETTLED_GOOD) {
        report.good++
        if (!failed[i]) clean++
      } else if (states[i] === SETTLED_SCRAPPED) report.scrapped++
      else open[i] = 1
    }
    report.unaccounted = count - report.good - report.scrapped
    if (report.unaccounted > 0)
      readJournal(
        fd,
        line => {
          if (line.kind === 'reserved' && report.unaccountedSerials.length < 100 && open[numberOf(line.serial)])
            report.unaccountedSerials.push(line.serial)
        },
        () => true,
      )
    const settled = report.good + report.scrapped
    if (settled > 0) {
      report.firstPassYield = clean / settled
      report.finalYield = report.good / settled
    }
    report.failures = pareto(
      [...causes].map(([key, n]) => {
        const [step, cause] = JSON.parse(key) as [string, string]
        return { step, cause, count: n }
      }),
    )
    const steps = new Map<string, number>()
    for (const { step, count: n } of report.failures) steps.set(step, (steps.get(step) ?? 0) + n)
    report.steps = pareto([...steps].map(([step, n]) => ({ step, count: n })))
    return report
  } finally {
    closeSync(fd)
  }
}

function pareto<T extends { count: number }>(counted: T[]): (T & Failures)[] {
  const total = counted.reduce((sum, { count }) => sum + count, 0)
  let above = 0
  return counted
    .sort((a, b) => b.count - a.count)
    .map(each => {
      above += each.count
      return { ...each, share: above / total }
    })
}
