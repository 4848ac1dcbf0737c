// `birthmark devices`: what is out there, in which state, and what it is called.

import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
import type { DeviceFilter, DeviceView } from '../administration.ts'
import { usageError } from '../command-error.ts'
import type { Terminal } from '../terminal.ts'
import { leaf, quoted, stateOption, wholeNumber, withDir } from './common.ts'
import { defineLabel } from './devices-label.ts'

const STATES = ['known', 'enrolled', 'revoked'] as const

export function define(command: Command, terminal: Terminal): void {
  command
    .description(
      'What is out there: list it (birthmark devices, or birthmark devices list), find it, and label it. Each takes --json.',
    )
    .addHelpText(
      'after',
      `
Examples:
  birthmark devices                                          the first hundred
  birthmark devices batch=2026-W41 enrolled                  those of a group that are enrolled
  birthmark devices --select 'model=gw-2,firmware<2.3'       by what they are called (docs/campaigns.md)
  birthmark devices label SN-0001 site=fra firmware=2.2.1    call them so`,
    )
  defineLabel(command, terminal)
  stateOption(
    leaf(
      command
        .command('list', { isDefault: true })
        .argument('[query...]', 'a group (name=value), a state (known, enrolled, revoked), or a device id')
        .description(
          'List devices. known: may enroll and has not; enrolled: has a certificate; revoked: one of its groups was revoked.',
        ),
      [
        ['birthmark devices', 'the first hundred'],
        ['birthmark devices batch=2026-W41 enrolled', 'those of a group that are enrolled'],
        ['birthmark devices SN-0001 --json', 'one of them, as JSON'],
        ["birthmark devices --select 'model=gw-2,firmware<2.3'", 'by groups and labels'],
      ],
    ),
  )
    .option('--limit <n>', 'at most this many', wholeNumber('--limit', 1, 1_000_000), 100)
    .option('--after <id>', 'go on after this device')
    .option('--select <selector>', "by groups and labels, such as 'model=gw-2,batch in (2026-W41,2026-W42),firmware<2.3'")
    .action(async (query: string[], options: { dir: string; limit: number; after?: string; select?: string }) => {
      if (options.select !== undefined && query.length > 0)
        throw usageError('a selector and a query at once', 'put the group or the id into the selector: model=gw-2, id=SN-0001')
      const filter = filterOf(query)
      const dir = withDir(options.dir)
      if (options.after) filter.after = options.after
      const administration = administrationOf(options.dir)
      const rows: DeviceView[] = []
      let next: string | null = options.after ?? null
      do {
        const limit = Math.min(1000, options.limit - rows.length)
        const page =
          options.select === undefined
            ? await administration.devices({ ...filter, ...(next ? { after: next } : {}), limit })
            : await administration.selectDevices({ select: options.select, after: next ?? '', limit })
        rows.push(...page.devices)
        next = page.next
      } while (next && rows.length < options.limit)
      for (const row of rows) terminal.result(row)
      if (terminal.json) return
      if (rows.length === 0) {
        const asked = query.length > 0 || options.select !== undefined
        terminal.line(asked ? 'No device matches.' : 'No device is known yet.')
        if (!asked)
          terminal.commands('Next:', [`birthmark sim fleet --count 20${dir}`, `birthmark manifest import manifest.jsonl${dir}`])
        return
      }
      terminal.table(
        ['device', 'state', 'groups and labels', 'certificate until', 'key made by'],
        rows.map(row => [
          row.id,
          row.quarantinedBy ? `${row.state}, quarantined` : row.state,
          calledOf(row),
          until(row),
          row.keyOrigin,
        ]),
      )
      const counts = STATES.map(state => [state, rows.filter(row => row.state === state).length] as const).filter(([, n]) => n > 0)
      terminal.line(`${rows.length} shown: ${counts.map(([state, n]) => `${n} ${state}`).join(', ')}`)
      if (next)
        terminal.commands('More:', [
          `${['birthmark devices', ...query.map(quoted), ...(options.select === undefined ? [] : ['--select', quoted(options.select)]), '--after', quoted(next)].join(' ')}${dir}`,
        ])
    })
}

function calledOf({ groups, labels }: DeviceView): string {
  return [...groups, ...Object.entries(labels).map(([name, value]) => `${name}=${value}`)].join(' ')
}

function until(row: DeviceView): string {
  return row.certificate ? new Date(row.certificate.notAfter * 1000).toISOString().slice(0, 16).replace('T', ' ') : '-'
}

function filterOf(query: string[]): Partial<DeviceFilter> {
  const filter: Partial<DeviceFilter> = {}
  const set = <K extends 'id' | 'group' | 'state'>(name: K, value: NonNullable<DeviceFilter[K]>): void => {
    if (filter[name] !== undefined)
      throw usageError(`two of a kind: '${filter[name]}' and '${value}'`, 'give one group, one state, one id')
    filter[name] = value
  }
  for (const word of query) {
    const state = STATES.find(known => known === word)
    if (state) set('state', state)
    else if (word.includes('=')) set('group', word)
    else if (/^[A-Za-z0-9._:-]{1,64}$/.test(word)) set('id', word)
    else throw usageError(`'${word}' is no group (name=value), state or device id`, 'birthmark devices --help')
  }
  return filter
}
