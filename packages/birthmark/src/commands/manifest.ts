// `birthmark manifest`: what the factory sends becomes what the server admits.

import { manifestBytesMax } from '@birthmark/factory-line'
import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
import { CommandError, usageError } from '../command-error.ts'
import { printable, type Terminal } from '../terminal.ts'
import { leaf, readInput, stateOption } from './common.ts'
import { defineOwnership, verifyOwnership } from './manifest-ownership.ts'

interface ImportOptions {
  dir: string
  owners?: string
  owner?: string
  root?: string
}

export function define(command: Command, terminal: Terminal): void {
  command.description(
    'Tell the server which units were born. Only a signature that leads to a configured manufacturer is believed.',
  )
  defineOwnership(command, terminal)

  stateOption(
    leaf(
      command
        .command('import')
        .argument('<file>', 'manifest of birthmark line')
        .description('verify a manifest and admit its units'),
      [
        ['birthmark manifest import manifest.jsonl', 'into the server of ./.birthmark/dev'],
        ['birthmark manifest import manifest.jsonl --dir /var/lib/birthmark', 'into another'],
        [
          'birthmark manifest import m.jsonl --owners owners.jsonl --owner us.pub --root root.pem',
          'only when they were handed to us',
        ],
      ],
    ),
  )
    .option('--owners <file>', 'the chain of hand-overs that came with it; needs --owner and --root')
    .option('--owner <file>', 'our public key or certificate: nothing is imported when the units are somebody else’s')
    .option('--root <file>', "the manufacturer's root certificate")
    .action(async (file: string, options: ImportOptions) => {
      const { root, owner, owners } = options
      if (owner !== undefined || owners !== undefined) {
        if (!root || !owner) throw usageError('--owners needs --owner and --root', 'give all three, or none')
        verifyOwnership(file, { root, owner, ...(owners === undefined ? {} : { owners }) })
        terminal.done('the units were handed over to us', owner)
      }
      const outcome = await administrationOf(options.dir).importManifest(readInput(file, manifestBytesMax))
      terminal.done(
        `${outcome.units} units: ${outcome.added} new, ${outcome.updated} completed, ${outcome.unchanged} known`,
        `sha256 ${outcome.digest.slice(0, 16)}…`,
      )
      for (const { serial, reason } of outcome.refused.slice(0, 20)) terminal.line(`✘ ${printable(serial)} — ${printable(reason)}`)
      if (outcome.refused.length > 20) terminal.line(`  and ${outcome.refused.length - 20} more: --json lists them`)
      terminal.result(outcome)
      if (outcome.refused.length)
        throw new CommandError(
          'units_refused',
          `${outcome.refused.length} of ${outcome.units} units were refused; the others are in`,
          'a known serial with another key is a second unit or a forgery: ask the line',
          'refused',
        )
    })
}
