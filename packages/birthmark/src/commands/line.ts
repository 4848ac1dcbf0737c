// `birthmark line`: a manufacturer's root and issuing CA, birth certificates, the signed manifest.

import { createPrivateKey, createPublicKey, generateKeyPairSync, sign } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { encodePem } from '@birthmark/device-sdk/core'
import { birthRequest, type DeviceKey, writeDurably, writeLinesDurably } from '@birthmark/factory-line'
import type { Command } from 'commander'
import { usageError } from '../command-error.ts'
import { csrOf, type Line, openLine } from '../line-folder.ts'
import type { Terminal } from '../terminal.ts'
import { collect, counted, leaf, quoted, readInput } from './common.ts'
import { defineClose } from './line-close.ts'
import { defineDesk } from './line-desk.ts'
import { defineInit } from './line-init.ts'
import { defineListen } from './line-listen.ts'
import { atLine, lineFolder } from './line-option.ts'
import { defineRun } from './line-run.ts'

const GROUPS = {
  'A line is made:': ['init', 'root', 'request', 'sign', 'accept'],
  'Units are made:': ['run', 'issue', 'tester', 'listen', 'confirm', 'scrap'],
  'What was made:': ['status', 'close', 'manifest', 'collect'],
}

const START = `
Start here:
  birthmark line init --organization "Acme Gateways"                     a trial: no limits, all keys in ./factory
  birthmark line init --organization "Acme Gateways" --sku gw-2 \\
      --station A3 --quota 10000 --until 2027-01-31                      an issuing CA for one SKU, its root in ./desk
  birthmark line run --csv units.csv --simulate --out units              an order, with simulated devices
  birthmark line close --out reports                                     the day's end

A line whose root is offline already: line root (once), request, sign, accept. Files travel, keys do not. More: docs/factory.md`

export function define(command: Command, terminal: Terminal): void {
  command.description(
    'The factory line. A unit gets a birth certificate (IDevID, IEEE 802.1AR) for the key it made; the signed manifest then tells the ' +
      'server which units exist. Issuing twice for one unit gives the same certificate; a serial or key that is taken is refused.',
  )
  defineInit(command, terminal)

  leaf(
    command
      .command('issue')
      .argument('<serial>', 'serial number of the unit: its id everywhere')
      .description('give a unit its birth certificate'),
    [
      ['birthmark line issue SN-0001 --csr device.csr --group batch=2026-W41', 'the device made its key'],
      ['birthmark line issue SN-0002 --make-key --out units/', 'the line makes it (recorded as such)'],
    ],
  )
    .option('--dir <folder>', 'folder of the line', lineFolder)
    .option('--csr <file>', 'PKCS#10 request from the device, PEM or DER')
    .option('--make-key', 'make the key here instead; whoever reads the file is the device')
    .option('--group <name=value>', 'group the unit belongs to; repeat for up to 8', collect, [])
    .option('--out <folder>', 'where SERIAL.pem (and SERIAL.key.pem) go', '.')
    .action(issue)

  leaf(
    command
      .command('manifest')
      .argument('[serials...]', 'units to list; all when none is named')
      .description('write the signed manifest'),
    [
      ['birthmark line manifest --out manifest.jsonl', 'every unit so far'],
      ['birthmark line manifest SN-0001 SN-0002', 'two of them, to stdout'],
    ],
  )
    .option('--dir <folder>', 'folder of the line', lineFolder)
    .option('--out <file>', 'file to write; stdout without it')
    .action(async (serials: string[], options: { dir: string; out?: string }) =>
      withLine(options.dir, async line => {
        const lines = line.station.manifestLines(serials.length ? serials : undefined)
        const named = (units: number): void => {
          if (serials.length && units !== new Set(serials).size)
            throw usageError(
              `only ${units} of the ${serials.length} named units were issued`,
              'see them all with: birthmark line manifest',
            )
        }
        if (!options.out) {
          let text = ''
          for await (const each of lines) text += each
          const units = text.split('\n').length - 3
          named(units)
          if (terminal.json) terminal.result({ units, manifest: text })
          else terminal.raw(text)
          return
        }
        const units = (await writeLinesDurably(options.out, lines, count => named(count - 2))) - 2
        terminal.done(`manifest of ${counted(units, 'unit')}`, options.out)
        terminal.commands('Next:', [`birthmark manifest import ${quoted(options.out)}`])
        terminal.result({ units, file: options.out })
      }),
    )

  defineRun(command, terminal)
  defineDesk(command, terminal)
  defineClose(command, terminal)
  defineListen(command, terminal)

  leaf(command.command('status').description('count what was issued'), [['birthmark line status', 'of ./factory']])
    .option('--dir <folder>', 'folder of the line', lineFolder)
    .action((options: { dir: string }) =>
      withLine(options.dir, async line => {
        const { issued, reserved } = line.station.count()
        const { good, scrapped } = line.station.tally()
        const { mandate, name } = line.station
        terminal.line(
          `${line.organization}: ${issued} issued, ${reserved} begun and not finished; ${good} good, ${scrapped} scrapped`,
        )
        const own = mandate?.stations.find(station => station.name === name)
        if (mandate && own)
          terminal.line(
            `  station ${name}: ${mandate.sku}, ${own.quota} units, ${[mandate.from, mandate.until].map(s => new Date(s * 1000).toISOString().slice(0, 10)).join(' to ')}`,
          )
        terminal.result({ organization: line.organization, issued, reserved, good, scrapped, station: name, mandate })
      }),
    )

  for (const [heading, names] of Object.entries(GROUPS))
    for (const each of command.commands) if (names.includes(each.name())) each.helpGroup(heading)
  command.addHelpText('after', START)

  interface IssueOptions {
    dir: string
    csr?: string
    makeKey?: boolean
    group: string[]
    out: string
  }

  async function issue(serial: string, options: IssueOptions): Promise<void> {
    if (!options.csr === !options.makeKey) throw usageError('give either --csr FILE or --make-key', 'birthmark line issue --help')
    await withLine(options.dir, async line => {
      // The serial names files below; the station judges its form, so it is asked before anything is written.
      const files = { certificate: join(options.out, `${serial}.pem`), key: join(options.out, `${serial}.key.pem`) }
      const made = options.makeKey && /^[A-Za-z0-9._:-]{1,64}$/.test(serial) ? hostKey(options.out, files.key) : null
      const csr = options.csr ? csrOf(readInput(options.csr, 65_536)) : made ? await birthRequest(serial, made) : new Uint8Array()
      const birth = await line.station.issue({ serial, csr, groups: options.group, keyOrigin: made ? 'host' : 'device' })
      mkdirSync(options.out, { recursive: true })
      writeDurably(files.certificate, [birth.certificate, ...birth.chain].map(der => encodePem('CERTIFICATE', der)).join(''), 0o644)
      if (made) {
        terminal.done('private key, made here and not in the device', files.key)
        terminal.line('  the manifest records it as host-made; move it into the device and delete it here')
      }
      terminal.done(
        `${serial} ${birth.again ? 'was issued before: its certificate once more' : 'has its birth certificate'}`,
        files.certificate,
      )
      terminal.commands('Next:', [`birthmark line manifest --out manifest.jsonl${atLine(options.dir)}`])
      terminal.result({
        serial,
        again: birth.again,
        certificate: files.certificate,
        ...(made ? { key: files.key } : {}),
        groups: options.group,
      })
    })
  }
}

async function withLine(folder: string, work: (line: Line) => Promise<void>): Promise<void> {
  const line = openLine(folder)
  try {
    await work(line)
  } finally {
    line.station.close()
  }
}

/** Written before anything is signed for it; found again when an earlier run was cut off. */
function hostKey(folder: string, file: string): DeviceKey {
  mkdirSync(folder, { recursive: true })
  if (!existsSync(file)) {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    writeDurably(file, privateKey.export({ type: 'pkcs8', format: 'pem' }) as string, 0o600)
  }
  const privateKey = createPrivateKey(readFileSync(file))
  return {
    spki: createPublicKey(privateKey).export({ type: 'spki', format: 'der' }),
    algorithm: 'ecdsa-sha256',
    sign: async message => sign('sha256', message, privateKey),
  }
}
