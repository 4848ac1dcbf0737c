// `birthmark manifest`: what the factory sends becomes what the server admits.

import { anchorOf, decodePem, parseCertificate } from '@birthmark/device-sdk/core'
import { manifestBytesMax, verifyManifest } from '@birthmark/factory-line'
import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
import { CommandError } from '../command-error.ts'
import { systemClock } from '../line-folder.ts'
import { printable, type Terminal } from '../terminal.ts'
import { leaf, readInput, stateOption } from './common.ts'

export function define(command: Command, terminal: Terminal): void {
  command.description(
    'Tell the server which units were born. Only a signature that leads to a configured manufacturer is believed.',
  )
  leaf(
    command.command('verify').argument('<file>', 'manifest of birthmark line').description('verify a manifest without a server'),
    [['birthmark manifest verify manifest.jsonl --root root.pem', 'who signed, how many units, whose keys']],
  )
    .requiredOption('--root <file>', "the manufacturer's root certificate, or several")
    .action((file: string, options: { root: string }) => {
      const roots = decodePem(readInput(options.root, 262_144).toString('latin1'), 'CERTIFICATE', 64)
      const anchors = roots.map(der => anchorOf(parseCertificate(der)))
      const { entries, made, digest } = verifyManifest(readInput(file, manifestBytesMax), { anchors, now: systemClock.now() })
      const hostKeys = entries.filter(({ keyOrigin }) => keyOrigin === 'host').length
      terminal.done(
        `${entries.length} units, signed ${new Date(made * 1000).toISOString().slice(0, 16)}`,
        `sha256 ${digest.slice(0, 16)}…`,
      )
      if (hostKeys) terminal.line(`! ${hostKeys} of their keys were made by the line and not in the device`)
      terminal.result({ units: entries.length, made, digest, hostKeys })
    })

  stateOption(
    leaf(
      command
        .command('import')
        .argument('<file>', 'manifest of birthmark line')
        .description('verify a manifest and admit its units'),
      [
        ['birthmark manifest import manifest.jsonl', 'into the server of ./.birthmark/dev'],
        ['birthmark manifest import manifest.jsonl --dir /var/lib/birthmark', 'into another'],
      ],
    ),
  ).action(async (file: string, options: { dir: string }) => {
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
