// What committing together is worth: 32 enrollments in flight, each with its two writes, on a disk whose fsync takes 2 ms. Once as the store
// does it, and once with a transaction for each write. The delay stands where the fsync does: between the commit and its answers.

import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type AuditEntry, openSqliteStore, type SqliteStoreOptions, type Store, spawnWriterThread } from '@birthmark/est-server'

const inFlight = 32
const fsyncMs = 2
const fleet = 'bench'
/** Of one measurement: half a second of the slow way. */
const enrollments = { together: 1000, alone: 100 }
const repeats = 9

type Spawn = NonNullable<SqliteStoreOptions['spawnWriter']>
type Thread = ReturnType<Spawn>
type Message = Parameters<Parameters<Thread['onMessage']>[0]>[0]

const sleep = (ms: number) => new Promise(done => setTimeout(done, ms))

/** The real writer thread, each of its commits 2 ms longer; `alone`: one job a commit. */
function slowDisk(alone: boolean): Spawn {
  return options => {
    const real = spawnWriterThread(options)
    const listeners: ((message: Message) => void)[] = []
    let answered: (message: Message) => void = message => {
      for (const listener of listeners) listener(message)
    }
    real.onMessage(message => answered(message))
    const commit = (jobs: Exclude<Parameters<Thread['post']>[0], 'close'>): Promise<Message> =>
      new Promise(done => {
        answered = done
        real.post(jobs)
      })
    return {
      ...real,
      onMessage: listener => listeners.push(listener),
      post(message) {
        if (message === 'close') return real.post(message)
        void (async () => {
          const answers: Message[] = []
          for (const jobs of alone ? message.map(job => [job]) : [message]) {
            answers.push(await commit(jobs))
            // What only asks leaves nothing to be synced.
            if (jobs.some(job => job.name !== 'enrollmentFacts')) await sleep(fsyncMs)
          }
          const all = answers.flatMap(each => (each.kind === 'answers' ? each.answers : []))
          for (const listener of listeners) listener({ kind: 'answers', answers: all })
        })()
      },
    }
  }
}

const note = (kind: AuditEntry['kind'], device: string): AuditEntry => ({
  ...{ at: 1000, kind, requestId: '', fleet, device, by: 'bench', code: '', detail: '' },
})

async function enroll(store: Store, id: string): Promise<void> {
  const [issuer, serial, spkiSha256] = [new Uint8Array(20), new Uint8Array(randomBytes(16)), new Uint8Array(randomBytes(32))]
  const { device } = await store.enrollmentFacts(fleet, id, spkiSha256, spkiSha256)
  if (!device) throw new Error('a device is unknown')
  const idx = await store.reserveIdx(fleet)
  const { key, version: deviceVersion, gids } = device
  const times = { epoch: 0, notBefore: 0, notAfter: 2000, at: 1000 }
  const hashes = { issuer, serial, spkiSha256, contentSha256: spkiSha256, secret: null, tbs: new Uint8Array(450) }
  const intent = await store.recordIntent({ fleet, device: key, deviceVersion, idx, gids, requestId: '', ...hashes, ...times })
  if (intent.kind !== 'recorded') throw new Error(`conflict: ${intent.on}`)
  const der = new Uint8Array(530)
  const audit = note('certificate_issued', id)
  const written = { issuer, serial, der, idxFloor: 0, supersedes: 0, supersedesSince: 0, at: 1000, audit }
  if ((await store.recordCertificate(written)) !== 'recorded') throw new Error('not recorded')
}

/** Enrollments a second. */
async function measure(alone: boolean): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'birthmark-group-commit-'))
  const count = enrollments[alone ? 'alone' : 'together']
  const store = await openSqliteStore({ path: join(folder, 'store.db'), spawnWriter: slowDisk(alone) })
  try {
    const spki = () => randomBytes(32).toString('hex')
    const entries = Array.from({ length: count }, (_, i) => ({ serial: `unit-${i}`, spkiSha256: spki(), groups: ['model=gw-2'] }))
    await store.importManifest(
      fleet,
      entries.map(entry => ({ ...entry, keyOrigin: 'device' as const })),
      note('manifest_imported', ''),
    )
    let next = 0
    const start = performance.now()
    const work = async () => {
      while (next < count) await enroll(store, `unit-${next++}`)
    }
    await Promise.all(Array.from({ length: inFlight }, work))
    return (count * 1000) / (performance.now() - start)
  } finally {
    await store.close()
    rmSync(folder, { recursive: true, force: true })
  }
}

const median = (values: number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  await measure(false)
  const rates = { together: [] as number[], alone: [] as number[] }
  for (let i = 0; i < repeats; i++) {
    rates.together.push(await measure(false))
    rates.alone.push(await measure(true))
  }
  const groupCommitGain = median(rates.together.map((rate, i) => rate / rates.alone[i]))
  const line = (name: string, value: string) => `${name.padEnd(62)}${value.padStart(10)}`
  const table = [
    line(`enrollments recorded a second, ${inFlight} in flight, fsync of ${fsyncMs} ms, median of ${repeats}`, ''),
    line('a transaction for each write', median(rates.alone).toFixed(0)),
    line('as the store does it', median(rates.together).toFixed(0)),
    line('groupCommitGain', groupCommitGain.toFixed(1)),
  ].join('\n')
  return { table, figures: { groupCommitGain } }
}

if (import.meta.main) console.log((await run()).table)
