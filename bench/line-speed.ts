// What `line` measures per unit, in a process of its own that is run as a line is: the CPU time of units from CSR to recorded certificate, and of the raw
// cryptography between them.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { birthRequest, createManufacturer, generateSigningKey, openStation, UNASSIGNED_HARDWARE } from '@birthmark/factory-line'
import { createRawMeter } from './enroll-raw.ts'

/** `raw` and `line`: µs of CPU a unit. */
export interface LineSpeed {
  ratio: number
  raw: number
  line: number
  perSecond: number
}

const rounds = 11
const perRound = 400
// V8 compiles what a line does for good within some thousand units; an order has a hundred times as many.
const warmup = 5000
const inFlight = 32

async function ofRaw(): Promise<LineSpeed> {
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

process.stdout.write(`${JSON.stringify(await ofRaw())}\n`)
