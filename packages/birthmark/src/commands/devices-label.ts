// `birthmark devices label`: names for devices beside their groups, for selectors and for what a campaign says that it would hit. They are the
// registry's alone: no certificate holds them, so they may change at any time.

import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
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
        .argument('[words...]', 'a device, then name=value to set and name- to take away')
        .description('Label devices: one on the command line, or many by a CSV whose header names the labels.'),
      [
        ['birthmark devices label SN-0001 site=fra firmware=2.2.1', 'set two'],
        ['birthmark devices label SN-0001 owner-', 'take one away'],
        ['birthmark devices label --csv devices.csv', 'id,site,owner,firmware — an empty field takes the label away'],
        ['birthmark devices label --show', 'labels in use, and how many devices have each value'],
      ],
    ),
  )
    .option('--csv <file>', 'many devices: `id` in the first column, a label in each other')
    .option('--show', 'labels in use')
    .action(async (words: string[], options: { dir: string; csv?: string; show?: boolean }) => {
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
      const changes = options.csv === undefined ? [changeOf(words)] : rowsOf(readInput(options.csv, fileBytesMax).toString('utf8'))
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

function changeOf(words: string[]): Change {
  const [id, ...labels] = words
  if (id === undefined || labels.length === 0)
    throw usageError('no device, or no label', 'birthmark devices label SN-0001 site=fra')
  const change: Change = { id, set: {}, unset: [] }
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
