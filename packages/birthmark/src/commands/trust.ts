// `birthmark trust`: lifts the suspicion that two holders share a device's identity, after somebody looked at the device.

import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
import type { Terminal } from '../terminal.ts'
import { leaf, stateOption } from './common.ts'

export function define(command: Command, terminal: Terminal): void {
  stateOption(
    leaf(
      command
        .argument('<device>', 'id of the device')
        .description('Lift a suspicion (clone_suspected): the device enrolls and renews again, and its count starts anew.'),
      [['birthmark trust SN-0001 --reason "bench unit, reset every day"', 'after looking at the device']],
      'The reason goes into the audit record.',
    ),
  )
    .requiredOption('--reason <text>', 'for the audit record')
    .action(async (device: string, { dir, reason }: { dir: string; reason: string }) => {
      await administrationOf(dir).trustDevice({ device, reason })
      terminal.done(`${device} is no longer suspected`, 'it may enroll and renew')
      terminal.result({ device, trusted: true })
    })
}
