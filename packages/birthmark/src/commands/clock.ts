// `birthmark clock`: the server's clock against its records. Issuance halts when the clock stands before the last record; when that record,
// not the clock, is wrong, an operator says so here.

import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
import { CommandError } from '../command-error.ts'
import type { Terminal } from '../terminal.ts'
import { leaf, stateOption, withDir } from './common.ts'

const iso = (seconds: number) => new Date(seconds * 1000).toISOString()

export function define(command: Command, terminal: Terminal): void {
  command.description("The server's clock against its records: a clock that stands before the last record halts issuance.")
  stateOption(
    leaf(command.command('status').description('what the clock says and what the last record says'), [
      ['birthmark clock status', 'exit 1 while issuance is halted'],
    ]),
  ).action(async ({ dir }: { dir: string }) => {
    const clock = await administrationOf(dir).clock()
    const last = clock.lastRecord < 0 ? 'none' : iso(clock.lastRecord)
    terminal.done(`clock ${iso(clock.now)}`, `last record ${last}`)
    terminal.result(clock)
    if (clock.halted)
      throw new CommandError(
        'clock_regressed',
        `the clock stands before the last record (${last}), so nothing is issued`,
        `set the clock; or, when the record is what is wrong: birthmark clock accept --reason "…" --yes${withDir(dir)}`,
        'failed',
      )
  })
  stateOption(
    leaf(
      command.command('accept').description('take the present time as right although records of a later one exist'),
      [
        ['birthmark clock accept --reason "the clock was a year ahead on Monday"', 'what would happen (exit 3)'],
        ['birthmark clock accept --reason "the clock was a year ahead on Monday" --yes', 'after the clock is right again'],
      ],
      'Certificates made under the wrong time keep their dates. In the audit record.',
    ),
  )
    .requiredOption('--reason <text>', 'for the audit record')
    .option('--yes', 'do it')
    .action(async ({ dir, reason, yes }: { dir: string; reason: string; yes?: boolean }) => {
      const administration = administrationOf(dir)
      const before = await administration.clock()
      if (!yes)
        throw new CommandError(
          'not_confirmed',
          `records up to ${iso(before.lastRecord)} exist; ${iso(before.now)} would be taken as the present`,
          'if this clock is right, the same with --yes',
          'refused',
        )
      const clock = await administration.acceptClock({ reason })
      terminal.done(`${iso(clock.now)} is the present`, 'issuance goes on')
      terminal.result(clock)
    })
}
