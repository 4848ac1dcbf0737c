// `birthmark revoke`: one group at once, or many devices as a campaign. Nothing asks back: a script and a person get the same behaviour, and
// nothing happens without --yes.

import type { Command } from 'commander'
import type { Terminal } from '../terminal.ts'
import { defineCampaign } from './revoke-campaign.ts'
import { defineGroup } from './revoke-group.ts'
import { defineParties } from './revoke-parties.ts'
import { defineReceipt } from './revoke-receipt.ts'
import { defineWatch } from './revoke-watch.ts'

export function define(command: Command, terminal: Terminal): void {
  command
    .description(
      'Take devices back, live sessions included. A group at once: birthmark revoke GROUP (revoke group --help). Any selection, with a look at ' +
        'what it stands for, a second person where it is large, and time to undo it: plan, submit, approve, watch, receipt. Each takes --json.',
    )
    .addHelpText(
      'after',
      `
Examples:
  birthmark revoke batch=2026-W41 --reason "keys leaked" --dry-run      one group: what would happen
  birthmark revoke plan --select 'model=gw-2,firmware<2.3' --reason "CVE-2026-1" --window 1h --out plan.json
  birthmark revoke submit plan.json --as alice --key alice.key --yes    put it before a second person, or into force
  birthmark revoke approve plan.json --as bob --key bob.key --yes       in force: denied, and undone until the window closes
  birthmark revoke watch 3f0c9a6d1b2e4f58                               how far it is
  birthmark revoke receipt 3f0c9a6d1b2e4f58 --out receipt.json          the signed record of it`,
    )
  defineGroup(command, terminal)
  defineCampaign(command, terminal)
  defineWatch(command, terminal)
  defineParties(command, terminal)
  defineReceipt(command, terminal)
}
