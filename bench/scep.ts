// SCEP enrollments a server makes of its CPU time: against the raw RSA-2048 work, and against Debian's micromdm scepserver, once with keys as long as
// ours and once as its own `ca -init` makes it. Then what 32 clients lose when the server is killed under them and started anew, and what EST devices
// notice of SCEP flat out. Every repeat measures all sides in turns.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { decodePem, parseCertificate } from '@birthmark/device-sdk/core'
import type { FromScepClients, ToScepClients } from './scep-clients.ts'
import type { FromScepEst, ToScepEst } from './scep-est.ts'
import { createScepRaw } from './scep-raw.ts'
import type { FromScepServer, ToScepServer } from './scep-server.ts'
import { worker } from './worker.ts'

const repeats = 9
const perRepeat = 120
const warmUp = 2000
const preparedAtOnce = 250
const perMicro = 40
/** Of the one with its own keys, which takes its time: fewer, and a smaller depot to read, both in its favour. */
const perInstalled = 20
const installedWarmUp = 200
const clientsAtOnce = 32
/** Kills under load, each with so many enrollments under way or to come. */
const kills = 3
const perKill = 200
/** EST requests of one block, and blocks: idle and loaded by turns. */
const estRequests = 250
const estIntervalMs = 12
const estBlocks = 7
/** Connections that take turns: enough for a stall of three quarters of a second. */
const estDevices = 64
/** SCEP enrollments that are there for one block: what a flat-out server makes in that time, and some. */
const perBlock = 900
const limits = { ofRaw: 0.6, ofScepserver: 3, estP99Ratio: 2 }

const median = (values: number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]
const p99 = (values: number[]): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * 0.99))]
const names = (prefix: string, count: number): string[] => Array.from({ length: count }, (_, i) => `${prefix}-${i}`)

interface Scepserver {
  process: ChildProcess
  url: string
  ra: { issuer: Uint8Array; serial: Uint8Array; spki: Uint8Array }
  /** µs so far. */
  cpu(): number
  stop(): Promise<void>
}

async function freePort(): Promise<number> {
  return new Promise(resolve => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address() as { port: number }
      probe.close(() => resolve(port))
    })
  })
}

/** `key`: options of `ca -init` about it; none for its own choice, RSA-4096. Null where Debian's package `scep` is not installed. */
async function startScepserver(key: string[]): Promise<Scepserver | null> {
  const folder = mkdtempSync(join(tmpdir(), 'bench-scepserver-'))
  const depot = join(folder, 'depot')
  try {
    execFileSync('scepserver', ['ca', '-init', '-depot', depot, ...key], { stdio: 'ignore' })
  } catch (error) {
    rmSync(folder, { recursive: true })
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
  const port = await freePort()
  const child = spawn('scepserver', ['-depot', depot, '-port', String(port), '-allowrenew', '0'], { stdio: 'ignore' })
  const url = `http://127.0.0.1:${port}/scep`
  for (let i = 0; ; i++) {
    try {
      if ((await fetch(`${url}?operation=GetCACaps`)).ok) break
    } catch {
      if (i > 100) throw new Error('scepserver does not start')
    }
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  const { issuer, serial, spki } = parseCertificate(decodePem(readFileSync(join(depot, 'ca.pem')), 'CERTIFICATE', 1)[0])
  return {
    process: child,
    url,
    ra: { issuer, serial, spki },
    cpu() {
      // Fields 14 and 15 of proc(5), after the name in parentheses; in hundredths of a second.
      const fields = readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') ')[1].split(' ')
      return (Number(fields[11]) + Number(fields[12])) * 10_000
    },
    async stop() {
      const ended = new Promise(resolve => child.once('exit', resolve))
      child.kill()
      await ended
      rmSync(folder, { recursive: true })
    },
  }
}

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  const progress = (line: string) => process.stderr.write(`${line}\n`)
  const micro = await startScepserver(['-keySize', '2048'])
  const installed = await startScepserver([])
  const clients = worker<ToScepClients, FromScepClients>('scep-clients.ts')
  const est = worker<ToScepEst, FromScepEst>('scep-est.ts')
  let server = worker<ToScepServer, FromScepServer>('scep-server.ts', 'server')
  let folder = ''
  try {
    progress('devices are born')
    const blocks = estBlocks + 1
    const { root, manifest } = await est.ask({
      kind: 'bear',
      devices: estDevices,
      requests: Math.ceil((2 * blocks * estRequests) / estDevices) + 1,
    })
    let started = await server.ask({ kind: 'start', root, manifest, of: null })
    folder = started.state.folder
    const succeeded = new Map<string, string>()
    const all: string[] = []

    /** In parts, since making keys takes a slow machine its time. */
    const made = async (devices: string[], challenges: string[] | null, ra: typeof started.ra): Promise<void> => {
      for (let i = 0; i < devices.length; i += preparedAtOnce) {
        const to = i + preparedAtOnce
        await clients.ask({ kind: 'prepare', devices: devices.slice(i, to), challenges: challenges?.slice(i, to) ?? null, ra })
      }
    }
    const prepare = async (devices: string[]): Promise<void> => {
      const { challenges } = await server.ask({ kind: 'mint', devices })
      await made(devices, challenges, started.ra)
      all.push(...devices)
    }
    const load = async (devices: string[]) =>
      clients.ask({ kind: 'load', url: `${started.url}/scep`, devices, clients: clientsAtOnce })
    /** Keeps who succeeded; `lost` is who was told so and has another certificate, or none, in the store. */
    const open = async (devices: string[]): Promise<void> => {
      for (const [id, serial] of (await clients.ask({ kind: 'open', devices })).serials) succeeded.set(id, serial)
    }

    progress('requests are made')
    const warm = names('warm', warmUp)
    const measured = names('measured', repeats * perRepeat)
    // As many as ours gets: its depot is one file that it reads from the start for each request.
    const microWarm = names('micro-warm', warmUp)
    const microNames = names('micro', repeats * perMicro)
    await prepare([...warm, ...measured])
    if (micro) await made([...microWarm, ...microNames], null, micro.ra)
    const installedWarm = names('installed-warm', installedWarmUp)
    const installedNames = names('installed', repeats * perInstalled)
    if (installed) await made([...installedWarm, ...installedNames], null, installed.ra)

    progress('warming up')
    const raw = createScepRaw()
    raw(200)
    for (let i = 0; i < warmUp; i += 500) {
      const { failed } = await load(warm.slice(i, i + 500))
      if (failed.length > 0) throw new Error(`${failed.length} of 500 enrollments failed`)
    }
    for (let i = 0; micro && i < warmUp; i += 500)
      await clients.ask({ kind: 'load', url: micro.url, devices: microWarm.slice(i, i + 500), clients: 4 })
    if (installed) await clients.ask({ kind: 'load', url: installed.url, devices: installedWarm, clients: 4 })
    /** µs an enrollment of one of theirs. Four clients, since under 32 it loses answers and serials. */
    const each = async (theirs: Scepserver, devices: string[]): Promise<number> => {
      const before = theirs.cpu()
      const done = await clients.ask({ kind: 'load', url: theirs.url, devices, clients: 4 })
      return (theirs.cpu() - before) / Math.max(1, done.succeeded.length)
    }

    const ofRaw: number[] = []
    const ofScepserver: number[] = []
    const ofScepserverAsInstalled: number[] = []
    const seen = {
      raw: [] as number[],
      ours: [] as number[],
      micro: [] as number[],
      installed: [] as number[],
      perSecond: [] as number[],
    }
    for (let i = 0; i < repeats; i++) {
      progress(`repeat ${i + 1} of ${repeats}`)
      const r0 = raw(60)
      const before = await server.ask({ kind: 'cpu' })
      const done = await load(measured.slice(i * perRepeat, (i + 1) * perRepeat))
      const after = await server.ask({ kind: 'cpu' })
      const r1 = raw(60)
      if (done.failed.length > 0) throw new Error(`${done.failed.length} enrollments failed`)
      const cpu = (after.microseconds - before.microseconds) / perRepeat
      ofRaw.push((r0 + r1) / 2 / cpu)
      seen.raw.push((r0 + r1) / 2)
      seen.ours.push(cpu)
      seen.perSecond.push((perRepeat * 1000) / done.milliseconds)
      if (!micro || !installed) continue
      const equal = await each(micro, microNames.slice(i * perMicro, (i + 1) * perMicro))
      const asInstalled = await each(installed, installedNames.slice(i * perInstalled, (i + 1) * perInstalled))
      seen.micro.push(equal)
      seen.installed.push(asInstalled)
      ofScepserver.push(equal / cpu)
      ofScepserverAsInstalled.push(asInstalled / cpu)
    }
    await open([...warm, ...measured])

    progress('EST beside SCEP')
    await est.ask({ kind: 'connect', port: started.estPort, rootPem: started.rootPem })
    const measure = () => est.ask({ kind: 'measure', requests: estRequests, intervalMs: estIntervalMs })
    await measure()
    await measure()
    // Of all blocks: a block alone has two requests beyond its p99, and a pause of the machine is more than that.
    const latency: { idle: number[]; loaded: number[] } = { idle: [], loaded: [] }
    for (let i = 0; i < estBlocks; i++) {
      const devices = names(`beside-${i}`, perBlock)
      await prepare(devices)
      latency.idle.push(...(await measure()).latencies)
      // Goes on for as long as EST is measured: a block has more than can be done meanwhile, and the rest is done after it.
      const loading = load(devices)
      latency.loaded.push(...(await measure()).latencies)
      const done = await loading
      if (done.failed.length > 0) throw new Error(`${done.failed.length} enrollments failed beside EST`)
      if (done.milliseconds < estRequests * estIntervalMs * 0.9)
        progress(`the SCEP load ended after ${done.milliseconds.toFixed(0)} ms, before EST's measurement did`)
      await open(devices)
    }

    for (let i = 0; i < kills; i++) {
      progress(`kill ${i + 1} of ${kills}`)
      const devices = names(`killed-${i}`, perKill)
      await prepare(devices)
      const loading = load(devices)
      await new Promise(resolve => setTimeout(resolve, 80 + 40 * i))
      server.kill('SIGKILL')
      await server.exited
      const first = await loading
      // Whoever was told so has it, before anybody asks again.
      await open(first.succeeded)
      server = worker<ToScepServer, FromScepServer>('scep-server.ts', 'server')
      started = await server.ask({ kind: 'start', root, manifest: [], of: started.state })
      const second = await load(first.failed)
      if (second.failed.length > 0) throw new Error(`${second.failed.length} enrollments failed after a restart`)
      await open(second.succeeded)
      progress(`  ${first.succeeded.length} before, ${second.succeeded.length} after`)
    }

    const { serials, broken } = await server.ask({ kind: 'check' })
    if (broken.length > 0) throw new Error(`the store is not sound: ${broken.slice(0, 3).join('; ')}`)
    const recorded = new Map(serials)
    const lost = all.filter(id => succeeded.get(id) === undefined || recorded.get(id) !== succeeded.get(id)).length
    const duplicateSerials = succeeded.size - new Set(succeeded.values()).size
    const figures: Record<string, number> = {
      ofRaw: median(ofRaw),
      ...(micro ? { ofScepserver: median(ofScepserver), ofScepserverAsInstalled: median(ofScepserverAsInstalled) } : {}),
      lost,
      duplicateSerials,
      estP99Ratio: p99(latency.loaded) / p99(latency.idle),
    }
    const table = [
      `µs of CPU a SCEP enrollment (RSA-2048 throughout unless said), median of ${repeats} repeats`,
      `raw RSA work                ${median(seen.raw).toFixed(0).padStart(8)}`,
      `this server                 ${median(seen.ours).toFixed(0).padStart(8)}   ${figures.ofRaw.toFixed(3)} of raw   ≥ ${limits.ofRaw.toFixed(2)}   ${median(seen.perSecond).toFixed(0)} a second`,
      ...(micro
        ? [
            `micromdm scepserver         ${median(seen.micro).toFixed(0).padStart(8)}   ${figures.ofScepserver.toFixed(2)} times   ≥ ${limits.ofScepserver}, its CA's key RSA-2048 like ours`,
            `as its ca -init makes it    ${median(seen.installed).toFixed(0).padStart(8)}   ${figures.ofScepserverAsInstalled.toFixed(2)} times, its CA's key RSA-4096`,
          ]
        : ['micromdm scepserver         not installed (apt-get install scep)']),
      `${all.length} devices by ${clientsAtOnce} clients, ${kills} kills: ${lost} lost, ${duplicateSerials} serials twice`,
      `EST p99 beside SCEP flat out ${p99(latency.loaded).toFixed(1)} ms, alone ${p99(latency.idle).toFixed(1)} ms: ${figures.estP99Ratio.toFixed(2)} times   ≤ ${limits.estP99Ratio}`,
    ].join('\n')
    return { table, figures }
  } finally {
    clients.kill()
    est.kill()
    server.kill()
    await micro?.stop()
    await installed?.stop()
    if (folder) rmSync(folder, { recursive: true, force: true })
  }
}
