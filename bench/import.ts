// `import`: a manifest of a million births into an empty SQLite store, beside parsing the same lines and doing nothing with them. Both read the
// same file in the same process, which does nothing else, so that its peak of memory is the import's.

import { fork } from 'node:child_process'
import { createHash } from 'node:crypto'
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface ImportMeasured {
  lines: number
  parseSeconds: number
  importSeconds: number
  rssMb: number
  broken: string[]
}

const limits = { ofParse: 4, rssMb: 256 }

const births = Number(process.env.BENCH_IMPORT_LINES ?? 1_000_000)

function writeLines(file: string): void {
  const fd = openSync(file, 'w', 0o600)
  let chunk = ''
  for (let i = 0; i < births; i++) {
    const spkiSha256 = createHash('sha256').update(`birth key ${i}`).digest('hex')
    const birthCertificateSha256 = createHash('sha256').update(`birth certificate ${i}`).digest('hex')
    const groups = [`batch=2026-W${String(Math.floor(i / 20_000)).padStart(2, '0')}`, 'model=gw-2']
    chunk += `${JSON.stringify({ serial: `GW2-${String(i).padStart(8, '0')}`, birthCertificateSha256, spkiSha256, groups, keyOrigin: 'device' })}\n`
    if (i % 1000 === 999 || i === births - 1) {
      writeSync(fd, chunk)
      chunk = ''
    }
  }
  closeSync(fd)
}

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  const folder = mkdtempSync(join(tmpdir(), 'bm-import-'))
  writeLines(join(folder, 'births'))
  const measured = await new Promise<ImportMeasured>((resolve, reject) => {
    const child = fork(join(import.meta.dirname, 'import-server.ts'), [folder, String(births)], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    child.once('message', message => resolve(message as ImportMeasured))
    child.once('exit', code => reject(new Error(`the importing process ended with ${code}`)))
  }).finally(() => rmSync(folder, { recursive: true, force: true }))
  if (measured.broken.length > 0) throw new Error(`the store is not sound: ${measured.broken.slice(0, 3).join('; ')}`)
  const { lines, parseSeconds, importSeconds, rssMb } = measured
  const ofParse = importSeconds / parseSeconds
  const table = [
    `${lines} births: parsed in ${parseSeconds.toFixed(1)} s, durable in the store in ${importSeconds.toFixed(1)} s`,
    `${ofParse.toFixed(2)} times parsing (≤ ${limits.ofParse}), at most ${rssMb.toFixed(0)} MB (≤ ${limits.rssMb})`,
  ].join('\n')
  return { table, figures: { ofParse, rssMb, linesPerSecond: lines / importSeconds } }
}
