// `birthmark secret mint`: for a device without a birth certificate. The server keeps a hash; the secret is shown this once.

import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
import type { Terminal } from '../terminal.ts'
import { collect, leaf, stateOption, wholeNumber } from './common.ts'

export function define(command: Command, terminal: Terminal): void {
  command.description('One-time secrets: they admit one device, once, within a time.')
  stateOption(
    leaf(
      command
        .command('mint')
        .argument('<device>', 'id of the device')
        .description('make a one-time secret for a device; shown once'),
      [
        ['birthmark secret mint gateway-7 --group site=berlin', 'good for a day'],
        ['birthmark secret mint gateway-7 --minutes 30 --json | jq -r .secret', 'for a script'],
      ],
    ),
  )
    .option('--group <name=value>', 'group the device will belong to; repeat for up to 8', collect, [])
    .option('--minutes <n>', 'how long it is good for', wholeNumber('--minutes', 1, 10_080), 1440)
    .action(async (device: string, options: { dir: string; group: string[]; minutes: number }) => {
      const minted = await administrationOf(options.dir).mintSecret({ device, groups: options.group, minutes: options.minutes })
      const until = new Date(minted.expiresAt * 1000).toISOString()
      terminal.done(`one-time secret for ${minted.device}, good until ${until}`)
      terminal.line()
      if (!terminal.json) terminal.line(`  ${minted.secret}`)
      terminal.commands('It is shown only now. On the device:', [
        `birthmark enroll --server https://HOST:8443 --anchors server-ca.pem --device ${minted.device} --secret-file secret.txt`,
      ])
      terminal.result(minted)
    })
}
