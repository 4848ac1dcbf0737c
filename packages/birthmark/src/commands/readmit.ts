// `birthmark readmit`: lets a device that was revoked by itself ask for a certificate again. What was revoked stays so.

import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
import type { Terminal } from '../terminal.ts'
import { leaf, stateOption } from './common.ts'

export function define(command: Command, terminal: Terminal): void {
  stateOption(
    leaf(
      command
        .argument('<device>', 'id of the device')
        .description(
          'Let a revoked device enroll again, with its birth certificate, a secret or a token, and with a new key. Its old certificates stay ' +
            'revoked; one that was revoked with its group stays out.',
        ),
      [['birthmark readmit SN-0001 --reason "found and reflashed"', 'after looking at the device']],
      'The reason goes into the audit record.',
    ),
  )
    .requiredOption('--reason <text>', 'for the audit record')
    .action(async (device: string, { dir, reason }: { dir: string; reason: string }) => {
      await administrationOf(dir).readmitDevice({ device, reason })
      terminal.done(`${device} may enroll again`, 'its next certificate has a higher index than those that are revoked')
      terminal.result({ device, readmitted: true })
    })
}
