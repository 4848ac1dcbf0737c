// `birthmark challenge mint`: SCEP challenges for one device or for a provisioning run. The server keeps hashes; the tokens are shown, or written
// to a file of their own, this once.

import { existsSync } from 'node:fs'
import { writeDurably } from '@birthmark/factory-line'
import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
import type { MintedChallenges } from '../administration.ts'
import { CommandError, usageError } from '../command-error.ts'
import type { Terminal } from '../terminal.ts'
import { collect, leaf, readInput, stateOption, wholeNumber } from './common.ts'

/** A million units of the shortest form. */
const csvBytesMax = 64 * 1024 * 1024
/** As many as one request to the server takes. */
const rowsAtOnce = 500

interface Options {
  dir: string
  csv?: string
  out?: string
  profile?: string
  group: string[]
  days: number
}

export function define(command: Command, terminal: Terminal): void {
  command.description('SCEP challenges: each admits one device under one profile, once, within a time.')
  stateOption(
    leaf(
      command.command('mint').argument('[device]', 'id of the device').description('make challenges; shown once'),
      [
        ['birthmark challenge mint router-7', 'good for a week'],
        ['birthmark challenge mint --csv units.csv --out challenges.csv --days 30', 'one a row, for a provisioning run'],
        ['birthmark challenge mint printer-3 --profile printers --json | jq -r .challenge', 'for a script'],
      ],
      'The CSV has a header: device, and if you like groups (separated by spaces). The output has device, challenge and expires, mode 0600.',
    ),
  )
    .option('--csv <file>', 'devices, one a row')
    .option('--out <file>', 'where the challenges of --csv go; must not exist')
    .option('--profile <label>', 'profile (path label) that they are good for; without, the one that has none')
    .option('--group <name=value>', 'group a new device will belong to; repeat for up to 8', collect, [])
    .option('--days <n>', 'how long they are good for', wholeNumber('--days', 1, 92), 7)
    .action(async (device: string | undefined, options: Options) => {
      if ((device === undefined) === (options.csv === undefined))
        throw usageError(
          'name either a device or a --csv file',
          'birthmark challenge mint DEVICE, or --csv units.csv --out challenges.csv',
        )
      const mint = (rows: Row[]): Promise<MintedChallenges> =>
        administrationOf(options.dir).mintChallenges({ label: options.profile ?? null, rows, minutes: options.days * 1440 })
      if (device !== undefined) {
        const { minted, refused } = await mint([{ device, groups: options.group }])
        if (minted.length === 0)
          throw new CommandError(
            'challenge_refused',
            `no challenge for ${device}: ${refused[0]?.reason}`,
            'correct the device or its groups',
            'refused',
          )
        const [one] = minted
        terminal.done(`challenge for ${one.device}, good until ${iso(one.expiresAt)}`)
        terminal.line()
        if (!terminal.json) terminal.line(`  ${one.challenge}`)
        terminal.result(one)
        return
      }
      const rows = parseRows(readInput(options.csv as string, csvBytesMax).toString('utf8'), options.group)
      const { out } = options
      if (out === undefined) throw usageError('--csv needs --out', 'say where the challenges go: --out challenges.csv')
      // They cannot be shown again, and must not be lost under another run's.
      if (existsSync(out)) throw usageError(`${out} is there already`, 'name a new file')
      const lines: string[] = []
      const refused: MintedChallenges['refused'] = []
      for (let at = 0; at < rows.length; at += rowsAtOnce) {
        const some = await mint(rows.slice(at, at + rowsAtOnce))
        for (const one of some.minted) lines.push(`${one.device},${one.challenge},${iso(one.expiresAt)}`)
        refused.push(...some.refused)
        // After each part, so that what is minted is in hand when a later part fails.
        writeDurably(out, `device,challenge,expires\n${lines.map(line => `${line}\n`).join('')}`, 0o600)
      }
      terminal.done(`${lines.length} challenges, good for ${options.days} days`, out)
      for (const { device: id, reason } of refused.slice(0, 20))
        terminal.line(`  no challenge for ${JSON.stringify(id)}: ${reason}`)
      if (refused.length > 20) terminal.line(`  and ${refused.length - 20} more`)
      terminal.result({ minted: lines.length, out, refused })
      if (refused.length > 0)
        throw new CommandError(
          'challenge_refused',
          `${refused.length} of ${rows.length} rows got no challenge`,
          'correct those rows and mint them by themselves',
          'refused',
        )
    })
}

interface Row {
  device: string
  groups: string[]
}

const iso = (seconds: number): string => new Date(seconds * 1000).toISOString()

/** Device ids and groups have neither commas nor quotes, so that a row is what stands between commas. */
function parseRows(text: string, groups: string[]): Row[] {
  const [header = '', ...lines] = text.replace(/^\ufeff/, '').split(/\r?\n/)
  const columns = header.split(',').map(name => name.trim().toLowerCase())
  const deviceAt = columns.indexOf('device')
  const groupsAt = columns.indexOf('groups')
  if (deviceAt < 0) throw usageError("the CSV's first line has no column 'device'", 'start it with: device,groups')
  const rows: Row[] = []
  const seen = new Set<string>()
  for (const [i, line] of lines.entries()) {
    if (line.trim() === '') continue
    const fields = line.split(',').map(field => field.trim().replace(/^"(.*)"$/, '$1'))
    const device = fields[deviceAt] ?? ''
    if (device === '') throw usageError(`line ${i + 2} names no device`, 'give each row a device id')
    if (seen.has(device)) throw usageError(`line ${i + 2} names ${device} again`, 'one row a device')
    seen.add(device)
    const own = groupsAt < 0 ? [] : (fields[groupsAt] ?? '').split(/\s+/).filter(name => name !== '')
    rows.push({ device, groups: [...groups, ...own] })
  }
  return rows
}
