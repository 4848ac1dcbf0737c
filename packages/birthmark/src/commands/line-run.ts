// `birthmark line run`: works through an order. A unit that is done is passed over, so the same command resumes after anything.

import { createPrivateKey } from 'node:crypto'
import { createReadStream, createWriteStream, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Duplex, duplexPair } from 'node:stream'
import { codeOf, decodePem } from '@birthmark/device-sdk/core'
import {
  birthRequest,
  FactoryError,
  generateSigningKey,
  keyTypes,
  type Labels,
  type OrderUnit,
  openDeviceLink,
  openLabels,
  openOrder,
  type Readback,
  type Station,
  simulateDevice,
  softwareKey,
  type UnitFormat,
  unitFile,
  unitFormats,
  writeDurably,
} from '@birthmark/factory-line'
import type { Command } from 'commander'
import { CommandError, usageError } from '../command-error.ts'
import { csrOf, openLine } from '../line-folder.ts'
import { printable, type Terminal } from '../terminal.ts'
import { collect, counted, leaf, readInput } from './common.ts'
import { atLine, lineFolder } from './line-option.ts'
import { takeSignals } from './until-stopped.ts'

interface RunOptions {
  dir: string
  station?: string
  csv: string
  group: string[]
  out: string
  csrFolder?: string
  device?: string
  simulate?: string | true
  allowHostKeys?: boolean
  format: string
  espEncoding: string
}

/** Where a unit's request comes from, and where its certificate goes. */
interface Source {
  /** Units that may be worked on at once. */
  lanes: number
  /** Null: not there yet. */
  csr(serial: string): Promise<Uint8Array | null>
  hostKey?(serial: string): Uint8Array
  /** Null: nothing to compare yet; the unit stays issued. */
  readback(serial: string, certificates: Uint8Array[]): Promise<Readback | null>
}

export function defineRun(command: Command, terminal: Terminal): void {
  leaf(command.command('run').description('work through an order: a birth certificate for each unit, read back, journaled'), [
    [
      'birthmark line run --station A3 --csv units.csv --csr-folder requests --out units',
      'SERIAL.csr in, SERIAL.held.der to compare',
    ],
    ['birthmark line run --csv units.csv --device /dev/ttyUSB0 --out units', 'devices one after another on a serial port'],
    ['birthmark line run --csv units.csv --simulate --out units', 'without hardware'],
  ])
    .option('--dir <folder>', 'folder of the line', lineFolder)
    .option('--station <name>', 'the station that this has to be')
    .requiredOption('--csv <file>', 'the order: serial or mac, and sku, station, groups (name=value;…)')
    .option('--group <name=value>', 'group that every unit of this order is in, such as lot=42; repeat', collect, [])
    .option('--out <folder>', 'where the files of units go', 'units')
    .option('--csr-folder <folder>', 'SERIAL.csr (PEM or DER) from testers; SERIAL.held.der is what the device holds')
    .option('--device <path>', 'a serial port, set up with stty; the device speaks the protocol of docs/factory.md')
    .option('--simulate [key]', `simulated devices with keys of this type (${keyTypes.join(', ')})`)
    .option('--allow-host-keys', 'make the keys here: whoever reads the files is the device. Recorded in journal and manifest')
    .option('--format <names>', `files of a unit, apart by commas: ${unitFormats.join(', ')}`, 'pem')
    .option('--esp-encoding <pem|der>', 'certificates in esp_secure_cert', 'pem')
    .action((options: RunOptions) => run(options, terminal))
}

async function run(options: RunOptions, terminal: Terminal): Promise<void> {
  const formats = options.format.split(',').map(name => {
    if (!unitFormats.includes(name as UnitFormat)) throw usageError(`no format '${name}'`, `of ${unitFormats.join(', ')}`)
    return name as UnitFormat
  })
  // The scripts for a token or a TPM write the file that lies beside them.
  if (formats.some(name => name === 'pkcs11' || name === 'tpm') && !formats.includes('der')) formats.push('der')
  const esp = { encoding: options.espEncoding === 'der' ? ('der' as const) : ('pem' as const), efuse: null }
  const source = sourceOf(options)
  const order = openOrder(options.csv)
  const line = openLine(options.dir)
  const { station } = line
  let labels: Labels | null = null
  let stopping = false
  const release = takeSignals(() => {
    stopping = true
    terminal.line('stopping after the units in hand; once more stops at once')
  })
  try {
    if (options.station && station.mandate && station.name !== options.station)
      throw new CommandError(
        'wrong_station',
        `${options.dir} is station ${station.name}, not ${options.station}`,
        `name the folder of ${options.station} with --dir`,
        'refused',
      )
    const here = options.station ?? station.name
    mkdirSync(options.out, { recursive: true })
    labels = openLabels(join(options.out, 'labels.csv'))
    if (options.allowHostKeys) {
      terminal.line('! KEYS ARE MADE ON THIS HOST AND NOT IN THE DEVICES: whoever reads these files can pose as them')
      await station.note('host-keys', `allowed for the order ${options.csv.slice(-200)}`)
    }
    const counts = { good: 0, issued: 0, passed: 0, waiting: 0, elsewhere: 0, failed: 0 }
    const causes: Causes = new Map()
    // What is not about one unit ends the order, after the units in hand.
    let fault: unknown = null
    const began = Date.now()
    let shown = 0
    const show = (): void => {
      // Ten times a second is as much as anybody sees.
      if (Date.now() - shown < 100) return
      shown = Date.now()
      const done = counts.good + counts.issued + counts.passed + counts.failed + counts.waiting + counts.elsewhere
      const bar = '█'.repeat(Math.floor((20 * done) / order.count)).padEnd(20, '░')
      const rate = (counts.good + counts.issued) / Math.max(0.001, (Date.now() - began) / 1000)
      const judged = counts.good + counts.failed
      const failures = [...causes].map(([cause, { count }]) => `${cause} ${count}`).join(', ')
      terminal.progress(
        `${bar} ${done}/${order.count}  ${rate.toFixed(1)}/s  yield ${judged ? ((100 * counts.good) / judged).toFixed(1) : '–'} %${failures ? `  ✘ ${failures}` : ''}`,
      )
    }
    const work = order.units()[Symbol.iterator]()
    const lane = async (): Promise<void> => {
      while (!stopping) {
        const next = work.next()
        if (next.done) return
        const unit = next.value
        if (unit.station && unit.station !== here) counts.elsewhere++
        else
          try {
            counts[await one(unit)]++
          } catch (error) {
            fault ??= error
            stopping = true
            return
          }
        show()
      }
    }
    const one = async (unit: OrderUnit): Promise<'good' | 'issued' | 'passed' | 'waiting' | 'failed'> => {
      const { serial } = unit
      const known = station.unit(serial)
      // A run that was cut off may have left a label out.
      if (known?.certificate && known.state !== 'scrapped') labels?.add(serial, unit.sku, known.spkiSha256)
      if (known?.state === 'good' || known?.state === 'scrapped') return 'passed'
      let step = 'csr'
      try {
        const csr = await source.csr(serial)
        if (!csr) return 'waiting'
        step = 'issue'
        const groups = [...new Set([...unit.groups, ...options.group])]
        const birth = await station.issue({ ...unit, groups, csr, keyOrigin: source.hostKey ? 'host' : 'device' })
        step = 'write'
        const identity = { ...birth, hostKey: source.hostKey?.(serial) ?? null }
        for (const format of formats) {
          const file = unitFile(format, identity, esp)
          writeDurably(join(options.out, file.name), file.content, file.secret ? 0o600 : 0o644)
        }
        const spkiSha256 = station.unit(serial)?.spkiSha256
        if (spkiSha256) labels?.add(serial, unit.sku, spkiSha256)
        const held = await source.readback(serial, [birth.certificate, ...birth.chain])
        if (!held) return 'issued'
        step = 'readback'
        await station.confirm(serial, held)
        return 'good'
      } catch (error) {
        // What is not about the unit is about the line (its token, its disk): going on would fail a million units alike.
        const code = unitFault(error)
        if (code === null) throw error
        const cause = `${step}: ${code}`
        const alike = causes.get(cause) ?? { count: 0, first: [] }
        alike.count++
        if (alike.first.length < namedMax) alike.first.push({ serial, why: (error as Error).message })
        causes.set(cause, alike)
        // A mismatch at read-back is in the journal already.
        if (code !== 'readback_mismatch') await station.fail(serial, step, code)
        return 'failed'
      }
    }
    await Promise.all(Array.from({ length: source.lanes }, lane))
    shown = 0
    show()
    finish(terminal, station, counts, causes, options, fault === null)
    if (fault !== null) throw fault
    if (stopping)
      throw new CommandError('interrupted', 'stopped before the end of the order', 'run the same command again: it resumes')
  } finally {
    release()
    labels?.close()
    station.close()
    order.close()
  }
}

/** What is wrong with this one unit; null when it is something else. */
function unitFault(error: unknown): string | null {
  if (error instanceof FactoryError) return STOPS.has(error.code) ? null : error.code
  // What the unit's own files hold, or that one of them cannot be read.
  const code = codeOf(error)
  return code !== null && /^(der|base64|csr|certificate|file)_/.test(code) ? code : null
}

const STOPS = new Set([
  'quota_spent',
  'window_closed',
  'clock_back',
  'journal_write',
  'journal_corrupt',
  'signature_bad',
  'image_too_large',
])

/** How often a step failed in a way, and the first units with which it did. */
type Causes = Map<string, { count: number; first: { serial: string; why: string }[] }>
// Enough to see what they have in common; the journal has all.
const namedMax = 5

function finish(
  terminal: Terminal,
  station: Station,
  counts: Record<string, number>,
  causes: Causes,
  options: RunOptions,
  whole: boolean,
): void {
  const { good, issued, passed, waiting, elsewhere, failed } = counts
  terminal.done(
    `${good} good, ${issued} issued and to be read back, ${passed} done before, ${waiting} without a request, ${failed} failed${elsewhere ? `, ${elsewhere} of other stations` : ''}`,
    options.out,
  )
  for (const [cause, { count, first }] of causes) {
    terminal.line(`  ✘ ${count} × ${cause}`)
    for (const { serial, why } of first) terminal.line(`      ${why.startsWith(serial) ? '' : `${serial}: `}${printable(why)}`)
    if (count > first.length) terminal.line(`      and ${count - first.length} more`)
  }
  const failures = Object.fromEntries([...causes].map(([cause, { count }]) => [cause, count]))
  terminal.result({ station: station.name, ...counts, failures, head: station.head() })
  if (!whole) return
  terminal.commands('Next:', [
    `birthmark line close --out reports${atLine(options.dir)}`,
    `birthmark line manifest --out manifest.jsonl${atLine(options.dir)}`,
  ])
  if (failed)
    throw new CommandError(
      'units_failed',
      `${counted(failed, 'unit')} failed`,
      `mend what they failed for and run the same command again: it resumes. What cannot be mended: birthmark line scrap SERIAL --step issue --cause WHY${atLine(options.dir)}`,
      'refused',
    )
}

function sourceOf(options: RunOptions): Source {
  const given = [options.csrFolder, options.device, options.simulate, options.allowHostKeys].filter(Boolean).length
  if (given !== 1)
    throw usageError('give one of --csr-folder, --device, --simulate, --allow-host-keys', 'birthmark line run --help')
  if (options.csrFolder) return folderSource(options.csrFolder)
  if (options.allowHostKeys) return hostSource(options.out)
  return linkSource(options)
}

function folderSource(folder: string): Source {
  return {
    lanes: 32,
    async csr(serial) {
      const file = ['csr', 'pem', 'der'].map(end => join(folder, `${serial}.${end}`)).find(existsSync)
      return file ? csrOf(readInput(file, 65_536)) : null
    },
    async readback(serial) {
      const file = ['der', 'pem'].map(end => join(folder, `${serial}.held.${end}`)).find(existsSync)
      if (!file) return null
      const content = readInput(file, 65_536)
      const certificate = file.endsWith('.pem') ? decodePem(content.toString('latin1'), 'CERTIFICATE', 8)[0] : content
      return { certificate, proof: null }
    },
  }
}

/** Keys made here, kept beside the certificates until they are in their devices. A run that was cut off finds them again. */
function hostSource(out: string): Source {
  const fileOf = (serial: string): string => join(out, `${serial.replaceAll(':', '_')}.key.pem`)
  const keyOf = (serial: string) => {
    const file = fileOf(serial)
    if (!existsSync(file)) writeDurably(file, generateSigningKey().pem, 0o600)
    return createPrivateKey(readFileSync(file))
  }
  return {
    lanes: 8,
    csr: serial => birthRequest(serial, softwareKey(keyOf(serial))),
    hostKey: serial => keyOf(serial).export({ type: 'pkcs8', format: 'der' }),
    readback: async () => null,
  }
}

function linkSource({ device, simulate }: RunOptions): Source {
  const type = keyTypes.find(each => each === simulate) ?? 'P-256'
  if (typeof simulate === 'string' && type !== simulate) throw usageError(`no key type '${simulate}'`, keyTypes.join(', '))
  const links = new Map<string, ReturnType<typeof openDeviceLink>>()
  const connect = (): Duplex => {
    if (device) return Duplex.from({ readable: createReadStream(device), writable: createWriteStream(device) })
    const [near, far] = duplexPair()
    simulateDevice(far, () => generateSigningKey(type).key, { bootLog: 'ESP-ROM:esp32c3\r\nboot: BM factory firmware\r\n' })
    return near
  }
  return {
    lanes: device ? 1 : 8,
    async csr(serial) {
      const link = openDeviceLink(connect())
      links.set(serial, link)
      const said = await link.hello()
      if (said && said !== serial)
        throw new FactoryError('not_in_order', `the device says that it is ${said}, and it is ${serial}'s turn`)
      return link.request(serial)
    },
    async readback(serial, certificates) {
      const link = links.get(serial)
      if (!link) return null
      try {
        await link.write(certificates)
        return await link.readback()
      } finally {
        link.close()
        links.delete(serial)
      }
    },
  }
}
