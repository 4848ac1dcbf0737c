// `birthmark devices label`: names for devices beside their groups, for selectors and for what a campaign says that it would hit. They are the
// registry's alone: no certificate holds them, so they may change at any time.

import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
import type { Administration, DevicePage } from '../administration.ts'
import { usageError } from '../command-error.ts'
import { printable, type Terminal } from '../terminal.ts'
import { leaf, readInput, stateOption } from './common.ts'

/** Of one request: with sixteen labels each it stays below the socket's 64 KB. */
const changesAtOnce = 50
/** A million devices with a few labels. */
const fileBytesMax = 256 * 1024 * 1024

interface Change {
  id: string
  set: { [name: string]: string }
  unset: string[]
}

export function defineLabel(command: Command, terminal: Terminal): void {
  stateOption(
    leaf(
      command
        .command('label')
        .argument('[words...]', 'a device (none with --select), then name=value to set and name- to take away')
        .description(
          'Label devices: one on the command line, those that a selector finds, or many by a CSV whose header names the labels. What is not known to ' +
            'the server, such as the firmware after an update, comes from here.',
        ),
      [
        ['birthmark devices label SN-0001 site=fra firmware=2.2.1', 'set two'],
        ['birthmark devices label SN-0001 owner-', 'take one away'],
        ["birthmark devices label --select 'model=gw-2,site=fra' firmware=2.3", 'all of them, after an update'],
        ['birthmark devices label --csv devices.csv', 'id,site,owner,firmware — an empty field takes the label away'],
        ['birthmark devices label --show', 'labels in use, and how many devices have each value'],
      ],
    ),
  )
    .option('--select <selector>', 'the devices that it finds now (docs/campaigns.md)')
    .option('--csv <file>', 'many devices: `id` in the first column, a label in each other')
    .option('--show', 'labels in use')
    .action(async (words: string[], options: { dir: string; select?: string; csv?: string; show?: boolean }) => {
      const administration = administrationOf(options.dir)
      if (options.show) {
        const { labels } = await administration.labels()
        for (const one of labels) terminal.result(one)
        if (terminal.json) return
        if (labels.length === 0) return terminal.line('No device has a label yet.')
        return terminal.table(
          ['label', 'value', 'devices'],
          labels.map(({ name, value, devices }) => [name, value, String(devices)]),
        )
      }
      const changes = await changesOf(words, options, administration)
      const total = { changed: 0, unchanged: 0, refused: 0 }
      for (let at = 0; at < changes.length; at += changesAtOnce) {
        const report = await administration.labelDevices({ changes: changes.slice(at, at + changesAtOnce) })
        total.changed += report.changed
        total.unchanged += report.unchanged
        total.refused += report.refused.length
        for (const { id, reason } of report.refused) terminal.bad(printable(id), reason, 'see what is known: birthmark devices')
        if (changes.length > changesAtOnce)
          terminal.progress(`${Math.min(at + changesAtOnce, changes.length)} of ${changes.length}`)
      }
      terminal.done(
        `${total.changed} ${total.changed === 1 ? 'device' : 'devices'} labelled`,
        `${total.unchanged} as they were, ${total.refused} refused`,
      )
      terminal.result(total)
    })
}

async function changesOf(
  words: string[],
  { select, csv }: { select?: string; csv?: string },
  administration: Administration,
): Promise<Change[]> {
  if (csv !== undefined && (select !== undefined || words.length > 0))
    throw usageError('the CSV says which devices and which labels', 'birthmark devices label --csv devices.csv')
  if (csv !== undefined) return rowsOf(readInput(csv, fileBytesMax).toString('utf8'))
  if (select === undefined) {
    const [id, ...labels] = words
    if (id === undefined || labels.length === 0)
      throw usageError('no device, or no label', 'birthmark devices label SN-0001 site=fra')
    return [{ id, ...labelsOf(labels) }]
  }
  if (words.length === 0) throw usageError('no label', "birthmark devices label --select 'model=gw-2' firmware=2.3")
  const labels = labelsOf(words)
  const changes: Change[] = []
  // All of them first: what is labelled may fall out of the selection, or into it.
  for (let after: string | null = ''; after !== null; ) {
    const page: DevicePage = await administration.selectDevices({ select, after, limit: 1000 })
    for (const { id } of page.devices) changes.push({ id, ...labels })
    after = page.next
  }
  return changes
}

function labelsOf(labels: string[]): Omit<Change, 'id'> {
  const change: Omit<Change, 'id'> = { set: {}, unset: [] }
  for (const label of labels) {
    const at = label.indexOf('=')
    if (at > 0) change.set[label.slice(0, at)] = label.slice(at + 1)
    else if (label.length > 1 && label.endsWith('-')) change.unset.push(label.slice(0, -1))
    else throw usageError(`'${label}' is neither name=value nor name-`, 'birthmark devices label SN-0001 site=fra owner-')
  }
  return change
}

/** No quotes: ids and labels need none. */
function rowsOf(text: string): Change[] {
  const [header, ...lines] = text.split(/\r?\n/).filter(line => line !== '')
  const [first, ...names] = (header ?? '').split(',')
  if (first !== 'id' || names.length === 0)
    throw usageError('the first line is not id,label,…', 'begin with a line such as id,site,owner')
  return lines.map((line, i) => {
    const [id, ...values] = line.split(',')
    if (values.length !== names.length)
      throw usageError(
        `line ${i + 2} has ${values.length + 1} fields, not ${names.length + 1}`,
        'mend that line; nothing was labelled',
      )
    const fields = names.map((name, at): [string, string] => [name, values[at]])
    return {
      id,
      set: Object.fromEntries(fields.filter(([, value]) => value !== '')),
      unset: fields.filter(([, value]) => value === '').map(([name]) => name),
    }
  })
}
