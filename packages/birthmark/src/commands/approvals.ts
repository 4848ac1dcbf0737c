// `birthmark approvals`: the requests that wait for a person, and what is said to them.

import { userInfo } from 'node:os'
import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
import { usageError } from '../command-error.ts'
import type { ApprovalView } from '../profile-administration.ts'
import { labelName } from '../profile-view.ts'
import { printable, type Terminal } from '../terminal.ts'
import { leaf, stateOption, wholeNumber, withDir } from './common.ts'

const STATES = ['waiting', 'approved', 'denied', 'all'] as const

export function define(command: Command, terminal: Terminal): void {
  command.description(
    'Requests that wait for a person, under profiles that say `approval: first` or `approval: every`. A waiting device is answered 202 and ' +
      'asks again by itself; an approval serves the key that was shown, once.',
  )
  stateOption(
    leaf(command.command('list').description('what waits'), [
      ['birthmark approvals list', 'what waits, the oldest first'],
      ['birthmark approvals list --state denied --json', 'what was denied, as JSON'],
    ]),
  )
    .option('--state <state>', STATES.join(', '), 'waiting')
    .option('--limit <n>', 'at most this many', wholeNumber('--limit', 1, 1000), 100)
    .option('--after <id>', 'go on after this request', wholeNumber('--after', 0, 999_999_999))
    .action(async (options: { dir: string; state: string; limit: number; after?: number }) => {
      const state = STATES.find(known => known === options.state)
      if (!state) throw usageError(`no state '${options.state}'`, `choose one of ${STATES.join(', ')}`)
      const { approvals } = await administrationOf(options.dir).approvals({
        ...(state === 'all' ? {} : { state }),
        ...(options.after === undefined ? {} : { after: options.after }),
        limit: options.limit,
      })
      for (const one of approvals) terminal.result(one)
      if (terminal.json) return
      if (approvals.length === 0) return terminal.line(state === 'waiting' ? 'Nothing waits.' : 'None.')
      terminal.table(
        ['id', 'device', 'label', 'asks to', 'certificate', 'key', 'from', 'since', state === 'waiting' ? '' : 'said'],
        approvals.map(a => [
          ...[String(a.id), a.device, labelName(a.label), a.operation, a.summary, a.key.slice(0, 16), a.from, minute(a.askedAt)],
          state === 'waiting' ? '' : said(a),
        ]),
      )
      const first = approvals.find(a => a.state === 'waiting')
      const dir = withDir(options.dir)
      if (first)
        terminal.commands('Next:', [
          `birthmark approvals approve ${first.id}${dir}`,
          `birthmark approvals deny ${first.id} --reason '…'${dir}`,
        ])
      const last = approvals.at(-1)
      if (approvals.length === options.limit && last)
        terminal.commands('More:', [`birthmark approvals list --state ${state} --after ${last.id}${dir}`])
    })
  decision(command, terminal, 'approve', 'let the device have its certificate when it asks again', false)
  decision(command, terminal, 'deny', 'refuse it; the device is told the reason', true)
}

function decision(command: Command, terminal: Terminal, verb: 'approve' | 'deny', what: string, reasonNeeded: boolean): void {
  const inner = stateOption(
    leaf(command.command(verb).argument('<id...>', 'ids that birthmark approvals list shows').description(what), [
      [`birthmark approvals ${verb} 17${reasonNeeded ? " --reason 'not ours'" : ''}`, 'one'],
      [
        `birthmark approvals ${verb} 17 18 19 --by alice${reasonNeeded ? " --reason 'not ours'" : ''}`,
        'several, in the name of somebody',
      ],
    ]),
  ).option('--by <name>', 'who says so, for the record (default: the user who types)')
  if (reasonNeeded) inner.requiredOption('--reason <text>', 'why, for the record and the device, at most 200 characters')
  else inner.option('--reason <text>', 'why, for the record', '')
  inner.action(async (ids: string[], options: { dir: string; by?: string; reason: string }) => {
    const numbers = ids.map(wholeNumber('an id', 1, 999_999_999))
    const by = options.by ?? process.env.SUDO_USER ?? userInfo().username
    const administration = administrationOf(options.dir)
    for (const id of numbers) {
      const decided = await administration.decideApproval({ id, approve: verb === 'approve', by, reason: options.reason })
      terminal.done(`${decided.state} ${id}: ${printable(decided.device)}`, printable(decided.summary))
      terminal.result(decided)
    }
  })
}

const minute = (seconds: number) => new Date(seconds * 1000).toISOString().slice(0, 16).replace('T', ' ')

function said(a: ApprovalView): string {
  if (a.state === 'waiting') return 'waiting'
  return `${a.state} by ${a.decidedBy} ${a.decidedAt === null ? '' : minute(a.decidedAt)}${a.reason ? `: ${a.reason}` : ''}`
}
