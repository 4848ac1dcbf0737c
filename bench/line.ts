// `line`: birth certificates per second of CPU, each reserved and recorded in a journal that is fsynced by group commit, 32 in flight, against
// the raw cryptography of the same run (verify the CSR, sign the certificate, import the key); the memory that a million units take; and a
// station killed a hundred times at its every step.

import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { birthRequest, createManufacturer, generateSigningKey, openStation, UNASSIGNED_HARDWARE } from '@birthmark/factory-line'
import { lineKillLoop } from '../test/support/line-kill-loop.ts'
import { createRawMeter } from './enroll-raw.ts'

const rounds = 11
const perRound = 400
const warmup = 2000
const inFlight = 32
const kills = 100

async function ofRaw(): Promise<{ ratio: number; raw: number; line: number; perSecond: number }> {
  const folder = mkdtempSync(join(tmpdir(), 'bm-line-'))
  const clock = { now: () => Math.floor(Date.now() / 1000) }
  const maker = await createManufacturer(folder, 'Example', clock)
  const profile = { organization: 'Example', commonName: true, hardwareType: UNASSIGNED_HARDWARE }
  const station = openStation({ folder, issuing: maker.issuing, manifestSigner: maker.manifest, profile, clock })
  const requests: { serial: string; csr: Uint8Array; groups: string[] }[] = []
  for (let i = 0; i < warmup + rounds * perRound; i++) {
    const serial = `GW2-${String(i).padStart(9, '0')}`
    requests.push({ serial, csr: await birthRequest(serial, generateSigningKey().key), groups: ['batch=2026-W41', 'model=gw-2'] })
  }
  const next = requests.values()
  const issue = async (count: number): Promise<number> => {
    const start = process.cpuUsage()
    let left = count
    const worker = async (): Promise<void> => {
      while (left-- > 0) {
        const request = next.next().value
        if (!request) throw new Error('no request left')
        if ((await station.issue(request)).again) throw new Error('a unit came twice')
      }
    }
    await Promise.all(Array.from({ length: inFlight }, worker))
    const { user, system } = process.cpuUsage(start)
    return (user + system) / count
  }
  const raw = createRawMeter()
  raw.measure(500)
  await issue(warmup)
  const seen: { ratio: number; raw: number; line: number }[] = []
  for (let round = 0; round < rounds; round++) {
    // Half before and half after: a neighbour on the machine that comes or goes meets both.
    const before = raw.measure(perRound / 2).answer
    const line = await issue(perRound)
    const limit = (before + raw.measure(perRound / 2).answer) / 2
    seen.push({ ratio: limit / line, raw: limit, line })
  }
  station.close()
  rmSync(folder, { recursive: true })
  const median = seen.sort((a, b) => a.ratio - b.ratio)[rounds >> 1]
  return { ...median, perSecond: 1e6 / median.line }
}

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  const speed = await ofRaw()
  process.stderr.write(`of raw ${speed.ratio.toFixed(3)}\n`)
  const program = fileURLToPath(new URL('line-million.ts', import.meta.url))
  const { stdout } = await promisify(execFile)(process.execPath, [
    // Without bounds of its own the collector takes what the machine has before it looks for garbage.
    '--max-semi-space-size=2',
    '--max-old-space-size=64',
    '--conditions=source',
    '--disable-warning=ExperimentalWarning',
    program,
  ])
  const million = JSON.parse(stdout) as {
    units: number
    unaccounted: number
    openSeconds: number
    journalMb: number
    rssMb: number
  }
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
