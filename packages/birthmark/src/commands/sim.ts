// `birthmark sim`: devices that are only missing their hardware. They are born on the line of `birthmark dev` (or bring a birth
// certificate), enroll with the real SDK, connect over real MQTT and send telemetry.

import { randomBytes } from 'node:crypto'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { manifestInMemory } from '@birthmark/factory-line'
import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
import { CommandError, usageError } from '../command-error.ts'
import { type DeviceFolder, readDeviceFolder } from '../device-folder.ts'
import { openLine } from '../line-folder.ts'
import { type BornDevice, bearDevice } from '../sim/birth.ts'
import { createSimFleet } from '../sim/fleet.ts'
import { printable, type Terminal } from '../terminal.ts'
import { collect, leaf, quoted, stateOption, wholeNumber, withDir } from './common.ts'
import { bornFromFiles } from './identity-folder.ts'
import { untilStopped } from './until-stopped.ts'

interface SimOptions {
  dir: string
  line?: string
  device?: string
  est?: string
  mqtt?: string
  group: string[]
  interval: number
  seconds?: number
}

// Each simulated device is a TLS session and a few timers: 5,000 of them are some 500 MB.
const devicesMax = 5000
// Batches are named by letters.
const batchesMax = 26
// Failures told one by one; the counts say the rest.
const shownMax = 5

export function define(command: Command, terminal: Terminal): void {
  command.description('Simulated devices that run the real SDK over real TLS and MQTT, against birthmark dev or any server.')

  common(
    leaf(command.command('fleet').description('a fleet, in batches that can be revoked one by one'), [
      ['birthmark sim fleet --count 100', 'two batches: batch=sim-a, batch=sim-b'],
      ['birthmark sim fleet --count 30 --groups 3 --seconds 10 --json', 'three, for ten seconds'],
      ['birthmark sim fleet --units units/ --device device/', 'units of a line: SERIAL.pem and SERIAL.key.pem'],
    ]),
  )
    .option('--count <n>', 'how many devices', wholeNumber('--count', 1, devicesMax), 20)
    .option('--groups <n>', 'into how many batches they fall', wholeNumber('--groups', 1, batchesMax), 2)
    .option('--units <folder>', 'use units that were born already')
    .action(async (options: SimOptions & { count: number; groups: number; units?: string }) => {
      if (options.units) return withScratch(scratch => run(unitsIn(options.units ?? '', scratch), options))
      const prefix = `sim-${randomBytes(3).toString('hex')}`
      const serials = Array.from({ length: options.count }, (_, i) => `${prefix}-${String(i + 1).padStart(4, '0')}`)
      const batches = await openBatches(options.dir, options.groups)
      await run(await bear(options, serials, at => [batches[at % batches.length], ...options.group]), options)
    })

  common(
    leaf(command.command('device').description('one device'), [
      ['birthmark sim device --group site=berlin', 'born on the line of birthmark dev'],
      ['birthmark sim device --birth SN-0001.pem --birth-key SN-0001.key.pem', 'a unit of birthmark line issue --make-key'],
    ]),
  )
    .option('--serial <serial>', 'its serial number (default: one that is new)')
    .option('--birth <file>', 'birth certificate and chain, PEM')
    .option('--birth-key <file>', 'its private key, PKCS#8 PEM')
    .action(async (options: SimOptions & { serial?: string; birth?: string; birthKey?: string }) => {
      const { birth, birthKey } = options
      if (!birth !== !birthKey) throw usageError('--birth and --birth-key belong together', 'give both, or neither')
      if (birth && birthKey) return withScratch(scratch => run([bornFromFiles(birth, birthKey, scratch)], options))
      const serial = options.serial ?? `sim-${randomBytes(3).toString('hex')}`
      const groups = options.group.length ? options.group : await openBatches(options.dir, 1)
      await run(await bear(options, [serial], () => groups), options)
    })

  function common(sub: Command): Command {
    return stateOption(sub)
      .option('--line <folder>', 'line that gives birth (default: factory in the state folder)')
      .option('--device <folder>', 'what devices need to know (default: device in the state folder)')
      .option('--est <url>', 'another EST server, https://host:port')
      .option('--mqtt <url>', 'another broker, mqtts://host:port')
      .option('--group <name=value>', 'group of every device; repeat for several', collect, [])
      .option('--interval <ms>', 'milliseconds between two measurements', wholeNumber('--interval', 20, 3_600_000), 1000)
      .option('--seconds <n>', 'stop after this long; without it, at Ctrl-C', wholeNumber('--seconds', 1, 1_000_000))
  }

  /** Born on the line, and made known to the server by its operator, who is us. */
  async function bear(options: SimOptions, serials: string[], groupsOf: (at: number) => string[]): Promise<BornDevice[]> {
    const line = openLine(options.line ?? join(options.dir, 'factory'))
    try {
      const born: BornDevice[] = []
      for (const [at, serial] of serials.entries()) {
        born.push(await bearDevice(line.station, serial, groupsOf(at)))
        terminal.progress(`born ${born.length}/${serials.length}`)
      }
      terminal.done(`${born.length} born`, `birth certificates of ${line.organization}`)
      const outcome = await administrationOf(options.dir).importManifest(manifestInMemory(await line.station.manifest(serials)))
      terminal.done(`${outcome.added} known to the server`, 'signed manifest imported')
      return born
    } finally {
      line.station.close()
    }
  }

  async function run(born: BornDevice[], options: SimOptions): Promise<void> {
    const target = targetOf(options)
    let [refused, shown, missing] = [0, 0, 0]
    await untilStopped(async stop => {
      const progress = (): void => {
        const now = fleet.counts()
        const parts = [`enrolled ${now.enrolled}/${now.devices}`, `connected ${now.connected}`, `telemetry ${now.telemetry}`]
        if (now.cut) parts.push(`cut ${now.cut}`)
        if (now.revoked) parts.push(`revoked ${now.revoked}`)
        terminal.progress(parts.join(' · '))
      }
      const fleet = createSimFleet({
        born,
        target,
        intervalMs: options.interval,
        onProgress: progress,
        onEvent: event => {
          terminal.result(event)
          if (event.event !== 'refused' && event.event !== 'failed') return
          if (event.event === 'refused') refused++
          const again = event.event === 'failed' ? '; it tries again' : ''
          if (++shown <= shownMax) terminal.line(`✘ ${event.device} — ${event.code}: ${printable(event.message)}${again}`)
        },
      })
      const { enrollSeconds } = await fleet.start()
      const { enrolled, connected } = fleet.counts()
      const rate = Math.round(enrolled / Math.max(enrollSeconds, 0.001))
      const groups = [...new Set(born.flatMap(one => one.groups))]
      if (enrolled > 0) {
        terminal.done(`${enrolled} enrolled over EST`, `${target.est}, ${rate}/s`)
        terminal.done(`${connected} connected over MQTT, sending telemetry`, target.mqtt)
        const dir = withDir(options.dir)
        terminal.commands('Now, in another terminal:', [
          `birthmark devices${dir}`,
          ...groups.slice(0, 1).map(group => `birthmark revoke ${quoted(group)} --reason "lost in transit" --yes${dir}`),
        ])
        terminal.line()
      } else stop(new CommandError('none_enrolled', 'no device could enroll', 'birthmark doctor tells more', 'refused'))
      const serials = born.map(one => one.serial)
      terminal.result({ event: 'ready', ...fleet.counts(), enrollmentsPerSecond: rate, groups, serials })
      const pulse = setInterval(progress, 500)
      const end = options.seconds ? setTimeout(() => stop(), options.seconds * 1000) : undefined
      return async () => {
        clearInterval(pulse)
        clearTimeout(end)
        const last = fleet.counts()
        missing = last.devices - last.enrolled
        await fleet.close()
        terminal.done(`stopped: ${last.telemetry} measurements, ${last.cut} sessions cut, ${last.revoked} devices revoked`)
        terminal.result({ event: 'done', ...last })
      }
    })
    if (refused)
      throw new CommandError(
        'some_refused',
        `${refused} refusals, see above`,
        'birthmark devices shows what the server knows',
        'refused',
      )
    if (missing)
      throw new CommandError(
        'some_not_enrolled',
        `${missing} of ${born.length} did not enroll`,
        'birthmark doctor tells more',
        'unreachable',
      )
  }
}

/** Names of batches of which nobody was taken back: one that was revoked stays closed. */
async function openBatches(state: string, count: number): Promise<string[]> {
  const administration = administrationOf(state)
  const open: string[] = []
  for (let i = 0; i < 26 * batchesMax && open.length < count; i++) {
    const letters = (i >= 26 ? String.fromCharCode(96 + Math.floor(i / 26)) : '') + String.fromCharCode(97 + (i % 26))
    const group = `batch=sim-${letters}`
    const { devices } = await administration.devices({ group, state: 'revoked', limit: 1 })
    if (devices.length === 0) open.push(group)
  }
  if (open.length < count)
    throw new CommandError('batches_spent', 'every batch name was revoked', 'delete the state folder and start over', 'refused')
  return open
}

function targetOf(options: SimOptions): DeviceFolder {
  const target = readDeviceFolder(options.device ?? join(options.dir, 'device'))
  return { ...target, ...(options.est ? { est: options.est } : {}), ...(options.mqtt ? { mqtt: options.mqtt } : {}) }
}

/** A folder for identities that end with the simulation. */
async function withScratch(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'birthmark-sim-'))
  try {
    await work(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function unitsIn(folder: string, scratch: string): BornDevice[] {
  const serials = readdirSync(folder)
    .filter(name => name.endsWith('.key.pem'))
    .map(name => name.slice(0, -'.key.pem'.length))
  if (serials.length === 0)
    throw usageError(`${folder} holds no SERIAL.key.pem`, 'make some: birthmark line issue SERIAL --make-key --out FOLDER')
  if (serials.length > devicesMax)
    throw usageError(`${folder} holds ${serials.length} units; at most ${devicesMax}`, 'split the folder')
  return serials.map(serial =>
    bornFromFiles(join(folder, `${serial}.pem`), join(folder, `${serial}.key.pem`), join(scratch, serial)),
  )
}
