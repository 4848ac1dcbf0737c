// The process of `import`: imports a manifest as `birthmark manifest import` does, parses its lines alone, and says what it took.

import { openSync } from 'node:fs'
import { join } from 'node:path'
import { createRegistry, openSqliteStore } from '@birthmark/est-server'
import { manifestEntries, manifestOnDisk } from '@birthmark/factory-line'
import type { ImportMeasured } from './import.ts'

const repeats = 3
const [folder, lines] = [process.argv[2], Number(process.argv[3])]
const file = manifestOnDisk(openSync(join(folder, 'births'), 'r'))
/** What any importer has to do: every line read, parsed by JSON.parse, its fields looked at. */
const entries = () => manifestEntries(file, 0, file.size)

const seconds = async (work: () => Promise<unknown> | undefined): Promise<number> => {
  const from = performance.now()
  await work()
  return (performance.now() - from) / 1000
}
const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1]

const parse = () => {
  let n = 0
  for (const entry of entries()) n += entry.groups.length
  if (n !== 2 * lines) throw new Error('lines are missing')
  return undefined
}
const store = await openSqliteStore({ path: join(folder, 'store.db') })
const clock = { now: () => Date.now() / 1000 }
const registry = createRegistry({ store, fleet: 'bench', clock, random: n => new Uint8Array(n) })
// First, while the process is as small as a server's.
let rss = 0
const watch = setInterval(() => {
  rss = Math.max(rss, process.memoryUsage.rss())
}, 20)
const importSeconds = await seconds(async () => {
  const report = await registry.importManifest(entries(), 'bench')
  if (report.added !== lines) throw new Error(`${report.added} of ${lines} were added`)
})
clearInterval(watch)
const parsed: number[] = []
for (let i = 0; i < repeats; i++) parsed.push(await seconds(parse))
const broken = await store.check()
await store.close()
const measured: ImportMeasured = { lines, parseSeconds: median(parsed), importSeconds, rssMb: rss / 1_048_576, broken }
process.send?.(measured, () => process.disconnect())
