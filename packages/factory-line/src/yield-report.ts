// The day's end: every certificate is on a good unit, scrapped, or unaccounted for, and the last number has to be zero. Read from the
// journal's lines alone, so that anybody who has the journal gets the same report.

import { closeSync, openSync } from 'node:fs'
import type { Bytes } from '@birthmark/device-sdk/core'
import { FactoryError } from './errors.ts'
import { readJournal, sealInput } from './journal-line.ts'
import { verifySignature } from './signing-key.ts'
import { fingerprintIndex, fingerprintOf } from './unit-index.ts'

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
  /** Most frequent first. `share` is cumulative: how much would be gone if this and all above were. */
  failures: { step: string; cause: string; count: number; share: number }[]
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
    const total = [...causes.values()].reduce((sum, n) => sum + n, 0)
    let above = 0
    report.failures = [...causes]
      .sort((a, b) => b[1] - a[1])
      .map(([key, n]) => {
        const [step, cause] = JSON.parse(key) as [string, string]
        above += n
        return { step, cause, count: n, share: above / total }
      })
    return report
  } finally {
    closeSync(fd)
  }
}

const escaped = (text: string): string => text.replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`)
const percent = (share: number | null): string => (share === null ? '–' : `${(share * 100).toFixed(2)} %`)
const when = (seconds: number): string => (seconds ? new Date(seconds * 1000).toISOString().slice(0, 16).replace('T', ' ') : '–')

/** One page without a script or anything from elsewhere: it opens on a machine without a network, and names of units are inert in it. */
export function yieldHtml(report: YieldReport): string {
  const row = (name: string, value: string | number): string => `<tr><th>${name}</th><td>${escaped(String(value))}</td></tr>`
  const most = report.failures[0]?.count ?? 1
  const pareto = report.failures
    .slice(0, 50)
    .map(
      ({ step, cause, count, share }) =>
        `<tr><td>${escaped(step)}</td><td>${escaped(cause)}</td><td>${count}</td><td>${percent(share)}</td>` +
        `<td><div class="bar" style="width:${Math.max(1, Math.round((count / most) * 240))}px"></div></td></tr>`,
    )
    .join('\n')
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Yield of ${escaped(report.station)}</title>
<style>body{font:15px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}th,td{text-align:left;padding:.2rem .8rem .2rem 0;vertical-align:top}
.bar{background:#c33;height:.9rem}.ok{color:#071}.bad{color:#b00;font-weight:bold}code{font-size:.85em;word-break:break-all}</style>
<h1>Station ${escaped(report.station)}${report.sku ? `, ${escaped(report.sku)}` : ''}</h1>
<p class="${report.unaccounted === 0 ? 'ok' : 'bad'}">${report.reserved} begun = ${report.good} good + ${report.scrapped} scrapped + ${report.unaccounted} unaccounted</p>
<table>
${row('From', `${when(report.from)} UTC`)}
${row('Until', `${when(report.until)} UTC`)}
${row('Certificates issued', report.issued)}
${row('First-pass yield', percent(report.firstPassYield))}
${row('Final yield', percent(report.finalYield))}
${row('Keys made by the line', report.hostKeys)}
${report.unaccountedSerials.length ? row('Unaccounted', report.unaccountedSerials.join(', ')) : ''}
</table>
<h2>Failures</h2>
${report.failures.length ? `<table><tr><th>Step</th><th>Cause</th><th>Count</th><th>Cumulative</th><th></th></tr>\n${pareto}\n</table>` : '<p>None.</p>'}
${report.notes.length ? `<h2>Notes</h2><table>${report.notes.map(note => `<tr><td>${when(note.at)}</td><td>${escaped(note.what)}</td><td>${escaped(note.detail)}</td></tr>`).join('\n')}</table>` : ''}
<p>Journal <code>${escaped(report.journal)}</code>, ${report.lines} lines up to seal <code>${escaped(report.head)}</code></p>
</html>
`
}
