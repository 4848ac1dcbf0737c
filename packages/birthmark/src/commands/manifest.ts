// `birthmark manifest`: what the factory sends becomes what the server admits.

import { manifestBytesMax, manifestOnDisk } from '@birthmark/factory-line'
import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
import { CommandError, usageError } from '../command-error.ts'
import type { ManifestProgress } from '../manifest-upload.ts'
import { printable, type Terminal } from '../terminal.ts'
import { leaf, stateOption, withInput } from './common.ts'
import { defineOwnership, verifyOwnership } from './manifest-ownership.ts'

/** Nobody wants to read how far something is that takes no second. */
const isLong = ({ stage, of }: ManifestProgress): boolean => of > (stage === 'sent' ? 8_388_608 : 20_000)

const megabytes = (bytes: number): string => (bytes / 1_048_576).toFixed(0)

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
      const told = ({ stage, done, of }: ManifestProgress) =>
        terminal.progress(stage === 'sent' ? `sent ${megabytes(done)} of ${megabytes(of)} MB` : `${done} of ${of} units taken in`)
      const outcome = await withInput(file, manifestBytesMax, fd =>
        administrationOf(options.dir).importManifest(manifestOnDisk(fd), of => {
          if (isLong(of)) told(of)
        }),
      )
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
