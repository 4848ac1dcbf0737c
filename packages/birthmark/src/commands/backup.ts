// `birthmark backup`: one moment of the store in a folder, with a manifest of hashes. The server goes on meanwhile.

import { createHash } from 'node:crypto'
import { createReadStream, existsSync, mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { copySqliteStore, dumpPostgresStore } from '@birthmark/est-server'
import { writeDurably } from '@birthmark/factory-line'
import { systemClock } from '@birthmark/fleet-revocation'
import type { Command } from 'commander'
import { usageError } from '../command-error.ts'
import { readConfiguration } from '../configuration.ts'
import { postgresAddress, storePath, withStore } from '../open-store.ts'
import { markText } from '../published.ts'
import type { Terminal } from '../terminal.ts'
import { leaf, quoted } from './common.ts'

export const backupFormat = 'birthmark-backup/1'

export async function sha256OfFile(file: string): Promise<string> {
  const digest = createHash('sha256')
  for await (const chunk of createReadStream(file)) digest.update(chunk)
  return digest.digest('hex')
}

export function define(command: Command, terminal: Terminal): void {
  leaf(
    command.description(
      'Copy the store, as it is at one moment, into a new folder. Keys and certificates of the configuration are not in it.',
    ),
    [['birthmark backup --config birthmark.yaml --to /backup/2026-11-22', 'the server may run meanwhile']],
    'Put it back with birthmark restore. docs/stores.md says what else to keep.',
  )
    .requiredOption('--config <file>', 'configuration of the server')
    .requiredOption('--to <folder>', 'folder to make; it must not exist')
    .action(async (options: { config: string; to: string }) => {
      const settings = readConfiguration(options.config)
      if (existsSync(options.to)) throw usageError(`${options.to} exists`, 'choose another name; a backup is not overwritten')
      const { store } = settings
      // Before the copy: what the copy has beyond these numbers does no harm, the reverse would.
      const numbers = await withStore(settings, opened => opened.numbers([settings.fleet]))
      mkdirSync(options.to, { mode: 0o700 })
      const name = store.kind === 'sqlite' ? 'fleet.db' : 'fleet.dump'
      const file = join(options.to, name)
      terminal.progress('copying')
      if (store.kind === 'sqlite') copySqliteStore(storePath(settings.state), file)
      else await dumpPostgresStore(postgresAddress(store), file)
      const { size } = statSync(file)
      const manifest = {
        ...{ format: backupFormat, at: Math.floor(systemClock.now()), fleet: settings.fleet, store: store.kind },
        ...{ files: [{ name, bytes: size, sha256: await sha256OfFile(file) }], numbers: JSON.parse(markText(numbers)) as object },
      }
      // Last: a folder without a manifest is no backup.
      writeDurably(join(options.to, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`, 0o600)
      terminal.done(`audit record ${numbers.audit.n}, ${size} bytes`, options.to)
      terminal.commands('To put it back:', [`birthmark restore ${quoted(options.to)} --config ${quoted(options.config)}`])
      terminal.result({ folder: options.to, ...manifest })
    })
}
