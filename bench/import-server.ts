// The process of `import`: imports the lines of a file, parses them alone, and says what it took.

import { createReadStream } from 'node:fs'
import { join } from 'node:path'
import { createRegistry, type ManifestEntry, openSqliteStore } from '@birthmark/est-server'
import type { ImportMeasured } from './import.ts'

const repeats = 3
const [folder, lines] = [process.argv[2], Number(process.argv[3])]
const file = join(folder, 'births')

/** A line at a time, however the file is cut into chunks. */
async function* births(): AsyncGenerator<ManifestEntry[]> {
  let rest = ''
  for await (const chunk of createReadStream(file, { encoding: 'latin1', highWaterMark: 262_144 })) {
    const all = (rest + chunk).split('\n')
    rest = all.pop() ?? ''
    yield all.map(line => JSON.parse(line) as ManifestEntry)
  }
}
async function* oneByOne(): AsyncGenerator<ManifestEntry> {
  for await (const some of births()) yield* some
}

const seconds = async (work: () => Promise<unknown>): Promise<number> => {
  const from = performance.now()
  await work()
  return (performance.now() - from) / 1000
}
const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1]

const parse = async () => {
  let n = 0
  for await (const entry of oneByOne()) n += entry.groups.length
  if (n !== 2 * lines) throw new Error('lines are missing')
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
  const report = await registry.importManifest(oneByOne(), 'bench')
  if (report.added !== lines) throw new Error(`${report.added} of ${lines} were added`)
})
clearInterval(watch)
const parsed: number[] = []
for (let i = 0; i < repeats; i++) parsed.push(await seconds(parse))
const broken = await store.check()
await store.close()
const measured: ImportMeasured = { lines, parseSeconds: median(parsed), importSeconds, rssMb: rss / 1_048_576, broken }
process.send?.(measured, () => process.disconnect())
