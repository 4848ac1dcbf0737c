// `birthmark revoke parties`: who confirms a notice, and `--forget` for one that is retired.

import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
import { printable, type Terminal } from '../terminal.ts'
import { leaf, stateOption } from './common.ts'
import { iso } from './revoke-lines.ts'

export function defineParties(command: Command, terminal: Terminal): void {
  stateOption(
    leaf(
      command
        .command('parties')
        .description(
          'Relying parties that confirm a notice, which birthmark revoke watch waits for: those that the configuration names, and those that ever said so. ' +
            'One that is retired says nothing any more: --forget takes it off. If it lives after all, it is back with its next word.',
        ),
      [
        ['birthmark revoke parties', 'who they are, and which notice each has in force'],
        ['birthmark revoke parties --forget billing@acme', 'it is retired: wait for it no more'],
      ],
      'One that the configuration names is taken out of it there (mqtt.services). Who was forgotten is in the audit record.',
    ),
  )
    .option('--forget <name>', 'take it off those that are waited for, here and at the broker')
    .action(async ({ dir, forget }: { dir: string; forget?: string }) => {
      const administration = administrationOf(dir)
      if (forget !== undefined) {
        const { name } = await administration.forgetRelyingParty({ name: forget })
        terminal.done(`${printable(name)} is waited for no more`)
        return terminal.result({ name, forgotten: true })
      }
      const { newest, relyingParties } = await administration.relyingParties()
      for (const one of relyingParties) terminal.result({ ...one, newest })
      if (terminal.json) return
      if (relyingParties.length === 0) return terminal.line('None.')
      terminal.table(
        ['relying party', 'in force', 'since', 'named'],
        relyingParties.map(({ name, configured, seq, appliedAt }) => [
          name,
          seq === null ? 'said nothing' : `notice ${seq} of ${newest}`,
          appliedAt === null ? '' : iso(appliedAt),
          configured ? 'in the configuration' : 'by its word',
        ]),
      )
    })
}
