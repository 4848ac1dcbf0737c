// Kills a station at every step, again and again, and counts afterwards: every certificate that left it against what its journal has.

import { spawn } from 'node:child_process'
import { randomInt, X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import {
  birthRequest,
  createManufacturer,
  generateSigningKey,
  openManufacturer,
  openStation,
  sha256Hex,
  UNASSIGNED_HARDWARE,
  yieldReport,
} from '../../packages/factory-line/src/index.ts'
import type { LineKillPlan } from './line-kill-child.ts'

export interface LineKillReport {
  kills: number
  units: number
  /** Units that are neither good nor scrapped in the end, and certificates that left and that the journal does not have. */
  unaccounted: number
  /** Units that were seen with two certificates, and certificate serial numbers on two units. */
  duplicateSerials: number
  /** Steps at which a station died. */
  steps: string[]
}

export const lineFailpoints = ['before-write', 'before-sync', 'after-sync', 'signed', 'release']
const perRun = 8
const program = fileURLToPath(new URL('line-kill-child.ts', import.meta.url))

export async function lineKillLoop(kills: number, progress: (line: string) => void = () => {}): Promise<LineKillReport> {
  const folder = mkdtempSync(join(tmpdir(), 'bm-line-kill-'))
  try {
    const clock = { now: () => Math.floor(Date.now() / 1000) }
    const maker = await createManufacturer(folder, 'Example', clock)
    const pem = (name: string): string => readFileSync(join(folder, `${name}.key.pem`), 'utf8')
    const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')
    const plan: LineKillPlan = {
      folder,
      issuing: { certificate: base64(maker.issuing.certificate), root: base64(maker.root.certificate), key: pem('issuing') },
      signer: { certificate: base64(maker.manifest.certificate), key: pem('manifest') },
      units: [],
      kill: null,
    }
    const released = new Map<string, Set<string>>()
    const settled = new Set<string>()
    const all: LineKillPlan['units'] = []
    const steps = new Set<string>()
    let died = 0

    const run = async (kill: LineKillPlan['kill']): Promise<boolean> => {
      const open = all.filter(({ serial }) => !settled.has(serial))
      const fresh = kill ? Math.max(0, perRun - open.length) + 2 : 0
      for (let i = 0; i < fresh; i++) {
        const serial = `K-${all.length}`
        const unit = { serial, csr: base64(await birthRequest(serial, generateSigningKey().key)), scrap: all.length % 7 === 0 }
        all.push(unit)
        open.push(unit)
      }
      const file = join(folder, 'plan.json')
      writeFileSync(file, JSON.stringify({ ...plan, units: open, kill } satisfies LineKillPlan))
      const child = spawn(process.execPath, ['--conditions=source', '--disable-warning=ExperimentalWarning', program, file], {
        stdio: ['ignore', 'pipe', 'pipe'],
      })
      let said = ''
      let errors = ''
      child.stdout.setEncoding('utf8').on('data', text => (said += text))
      child.stderr.setEncoding('utf8').on('data', text => (errors += text))
      const signal = await new Promise<string | null>(resolve => child.on('close', (_code, how) => resolve(how)))
      if (signal !== 'SIGKILL' && child.exitCode !== 0) throw new Error(`the station failed: ${errors.slice(0, 2000)}`)
      for (const line of said.split('\n').slice(0, -1)) {
        const { serial, certificate, settled: done } = JSON.parse(line)
        if (certificate) released.set(serial, (released.get(serial) ?? new Set()).add(certificate))
        if (done) settled.add(serial)
      }
      return signal === 'SIGKILL'
    }

    for (let i = 0; died < kills; i++) {
      if (i > 2 * kills + 10) throw new Error('the station is not killed')
      const failpoint = lineFailpoints[i % lineFailpoints.length]
      if (await run({ failpoint, hit: randomInt(1, 7) })) {
        died++
        steps.add(failpoint)
        if (died % 20 === 0) progress(`${died} of ${kills} kills, ${all.length} units`)
      }
    }
    await run(null)

    const { issuing, manifest } = openManufacturer(folder)
    const report = yieldReport(join(folder, 'journal.jsonl'), manifest.key.spki, manifest.key.algorithm)
    const profile = { organization: 'Example', commonName: true, hardwareType: UNASSIGNED_HARDWARE }
    const station = openStation({ folder, issuing, manifestSigner: manifest, profile, clock })
    let lost = 0
    let duplicates = 0
    const numbers = new Set<string>()
    for (const { serial } of all) {
      const unit = station.unit(serial)
      const seen = released.get(serial) ?? new Set()
      if (!unit?.certificate || !seen.has(sha256Hex(unit.certificate))) lost++
      if (seen.size > 1) duplicates++
      if (unit?.certificate) {
        const { serialNumber } = new X509Certificate(unit.certificate)
        if (numbers.has(serialNumber)) duplicates++
        numbers.add(serialNumber)
      }
    }
    if ([...station.units()].length !== all.length) duplicates++
    station.close()
    return {
      kills: died,
      units: all.length,
      unaccounted: report.unaccounted + lost,
      duplicateSerials: duplicates,
      steps: [...steps].sort(),
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
}
