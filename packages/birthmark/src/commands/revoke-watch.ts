// `birthmark revoke watch`: how far a campaign is, stage by stage. On a terminal the lines stay where they are and change; elsewhere they are
// printed when something has changed.

import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
import { printable, type Terminal } from '../terminal.ts'
import { leaf, stateOption, wholeNumber } from './common.ts'
import { stageLines } from './revoke-lines.ts'

const lookMs = 1000

export function defineWatch(command: Command, terminal: Terminal): void {
  stateOption(
    leaf(
      command
        .command('watch')
        .argument('<id>', 'the id that birthmark revoke list shows')
        .description('Show how far a campaign is, until it is carried out, undone or expired.'),
      [
        ['birthmark revoke watch 3f0c9a6d1b2e4f58', 'until it is done'],
        ['birthmark revoke watch 3f0c9a6d1b2e4f58 --once --json', 'as it is now'],
        ['birthmark revoke watch 3f0c9a6d1b2e4f58 --for 60', 'a minute longer, to see who comes back and is told'],
      ],
    ),
  )
    .option('--once', 'look once')
    .option('--for <seconds>', 'go on for so long after it is carried out', wholeNumber('--for', 0, 86_400), 0)
    .action(async (id: string, options: { dir: string; once?: boolean; for: number }) => {
      const administration = administrationOf(options.dir)
      const show = terminal.block()
      let doneAt: number | null = null
      let shown = ''
      for (;;) {
        const view = await administration.campaign({ id })
        const now = Date.now() / 1000
        const lines = stageLines(view, now, view.windowEndsAt)
        show([`campaign ${id}: ${view.state}, ${printable(view.plan.reason)}`, ...lines])
        const text = JSON.stringify({ ...view, plan: undefined })
        if (text !== shown) terminal.result(view)
        shown = text
        if (['committed', 'undone', 'expired'].includes(view.state)) doneAt ??= now
        if (options.once || (doneAt !== null && now - doneAt >= options.for)) return
        await new Promise(next => setTimeout(next, lookMs))
      }
    })
}
