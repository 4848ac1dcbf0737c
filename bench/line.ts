// `line`: birth certificates per second of CPU, each reserved and recorded in a journal that is fsynced by group commit, 32 in flight, against
// the raw cryptography of the same run (verify the CSR, sign the certificate, import the key); the memory that a million units take; and a
// station killed a hundred times at its every step.

import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { lineFlags, serverEnvironment } from '../packages/birthmark/src/server-process.ts'
import { lineKillLoop } from '../test/support/line-kill-loop.ts'
import type { LineMillion } from './line-million.ts'
import type { LineSpeed } from './line-speed.ts'

const kills = 100

/** A program of this folder in a process as `birthmark line run` makes it; what it prints. */
async function asLine<T>(file: string): Promise<T> {
  const program = fileURLToPath(new URL(file, import.meta.url))
  const flags = [...lineFlags, '--conditions=source', '--disable-warning=ExperimentalWarning']
  const { stdout } = await promisify(execFile)(process.execPath, [...flags, program], { env: serverEnvironment(process.env) })
  return JSON.parse(stdout) as T
}

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  const speed = await asLine<LineSpeed>('line-speed.ts')
  process.stderr.write(`of raw ${speed.ratio.toFixed(3)}\n`)
  const million = await asLine<LineMillion>('line-million.ts')
  process.stderr.write(`a million: ${million.rssMb.toFixed(0)} MB\n`)
  const killed = await lineKillLoop(kills, line => process.stderr.write(`${line}\n`))
  const table = [
    `raw            ${speed.raw.toFixed(0)} µs of CPU: verify a CSR, sign a certificate, import a key`,
    `line           ${speed.line.toFixed(0)} µs of CPU, ${speed.perSecond.toFixed(0)}/s; ${speed.ratio.toFixed(3)} of raw`,
    `a million      ${million.units} good, journal ${million.journalMb.toFixed(0)} MB, opened in ${million.openSeconds.toFixed(1)} s; ${million.rssMb.toFixed(0)} MB at most`,
    `kill −9        ${killed.kills} at ${killed.steps.join(', ')}: ${killed.units} units, ${killed.unaccounted} unaccounted, ${killed.duplicateSerials} duplicates`,
  ].join('\n')
  return {
    table,
    figures: {
      ofRaw: speed.ratio,
      lineMicroseconds: speed.line,
      rssMb: million.rssMb,
      units: million.units,
      kills: killed.kills,
      unaccounted: killed.unaccounted + million.unaccounted,
      duplicateSerials: killed.duplicateSerials,
    },
  }
}
