// `birthmark manifest verify | handover`: what a manifest says and who holds its units, without a server and without holding the file in memory.

import { createPublicKey, X509Certificate } from 'node:crypto'
import { closeSync, existsSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { anchorOf, type Bytes, decodePem, equalBytes, parseCertificate } from '@birthmark/device-sdk/core'
import {
  type HandOver,
  handOver,
  manifestOnDisk,
  type OpenManifest,
  openManifest,
  ownersBytesMax,
  readOwners,
  readSigningKey,
  sha256Hex,
  writeDurably,
} from '@birthmark/factory-line'
import type { Command } from 'commander'
import { CommandError, usageError } from '../command-error.ts'
import { systemClock } from '../line-folder.ts'
import { printable, type Terminal } from '../terminal.ts'
import { counted, leaf, quoted, readInput } from './common.ts'
import { lineFolder } from './line-option.ts'

const ROOT = "the manufacturer's root certificate, or several"

/** Opens a manifest that leads to one of the roots, for as long as `work` takes. */
function withManifest<T>(file: string, root: string, work: (manifest: OpenManifest) => T): T {
  const roots = decodePem(readInput(root, 262_144).toString('latin1'), 'CERTIFICATE', 64)
  let fd: number
  try {
    fd = openSync(file, 'r')
  } catch (error) {
    throw new CommandError('file_unreadable', `cannot read ${file}`, 'check the path and its permissions', 'usage', error)
  }
  try {
    return work(
      openManifest(manifestOnDisk(fd), { anchors: roots.map(der => anchorOf(parseCertificate(der))), now: systemClock.now() }),
    )
  } finally {
    closeSync(fd)
  }
}

const chainOf = (file: string): string => readInput(file, ownersBytesMax).toString('utf8')

/** A public key in PEM, or the one in a certificate. */
function publicKeyIn(file: string): Bytes {
  const text = readInput(file, 65_536)
  try {
    const key = text.includes('-----BEGIN CERTIFICATE-----') ? new X509Certificate(text).publicKey : createPublicKey(text)
    return key.export({ type: 'spki', format: 'der' })
  } catch (error) {
    throw new CommandError(
      'usage',
      `${file} holds no public key`,
      'openssl pkey -in owner.key.pem -pubout -out owner.pub',
      'usage',
      error,
    )
  }
}

/**
 * Verifies manifest and chain, and that the units came to `owner`. For whoever is about to import them. Throws `handover_refused` when they are
 * somebody else's.
 */
export function verifyOwnership(file: string, options: { root: string; owners?: string; owner?: string }): HandOver[] {
  return withManifest(file, options.root, manifest => judgeOwners(manifest, options))
}

function judgeOwners(manifest: OpenManifest, options: { owners?: string; owner?: string }): HandOver[] {
  const owners = options.owners ? readOwners(chainOf(options.owners), manifest) : []
  if (options.owner && !equalBytes(publicKeyIn(options.owner), owners.at(-1)?.to.key ?? manifest.signerKey))
    throw new CommandError(
      'handover_refused',
      `the units belong to ${owners.length ? `'${printable(owners[owners.length - 1].to.name)}'` : 'their manufacturer'}, and not to the holder of ${options.owner}`,
      'ask them for: birthmark manifest handover',
      'refused',
    )
  return owners
}

export function defineOwnership(command: Command, terminal: Terminal): void {
  leaf(
    command
      .command('verify')
      .argument('<file>', 'manifest of birthmark line')
      .description('verify a manifest, and who holds its units, without a server'),
    [
      ['birthmark manifest verify manifest.jsonl --root root.pem', 'who signed, how many units, whose keys'],
      ['birthmark manifest verify manifest.jsonl --root root.pem --owners owners.jsonl --owner us.pub', 'and that they are ours'],
    ],
  )
    .requiredOption('--root <file>', ROOT)
    .option('--owners <file>', 'the chain of hand-overs that came with it')
    .option('--owner <file>', 'public key or certificate of who holds the units now; refused when the chain says somebody else')
    .action((file: string, options: { root: string; owners?: string; owner?: string }) =>
      withManifest(file, options.root, manifest => {
        const { made, digest, units } = manifest
        const owners = judgeOwners(manifest, options)
        let hostKeys = 0
        for (const { keyOrigin } of manifest.entries()) if (keyOrigin === 'host') hostKeys++
        terminal.done(`${counted(units, 'unit')}, signed ${minute(made)}`, `sha256 ${digest.slice(0, 16)}…`)
        if (hostKeys) terminal.line(`! ${hostKeys} of their keys were made by the line and not in the device`)
        for (const { to, made: when } of owners)
          terminal.line(`  ${minute(when)} handed over to ${printable(to.name)}  key ${sha256Hex(to.key).slice(0, 16)}…`)
        terminal.result({
          ...{ units, made, digest, hostKeys },
          owners: owners.map(({ to, made: when }) => ({ name: to.name, keySha256: sha256Hex(to.key), made: when })),
        })
      }),
    )

  leaf(
    command
      .command('handover')
      .argument('<file>', 'manifest of birthmark line')
      .description('hand the units of a manifest over to a new holder; signed by the one who holds them'),
    [
      ['birthmark manifest handover m.jsonl --root root.pem --to acme.pub --name "Acme Fleet"', 'the line to its first customer'],
      ['birthmark manifest handover m.jsonl --root root.pem --key acme.key.pem --to bolt.pub --name Bolt', 'and from there on'],
    ],
    'The chain of hand-overs is a file of lines. Give it to the new holder beside the manifest; verify refuses a line that was changed, left out or moved.',
  )
    .requiredOption('--root <file>', ROOT)
    .requiredOption('--to <file>', 'public key or certificate of the new holder')
    .requiredOption('--name <text>', 'who that is')
    .option('--key <file>', 'private key of the holder; without it the line of --dir hands over')
    .option('--dir <folder>', 'folder of the line', lineFolder)
    .option('--owners <file>', 'the chain so far, and where it is continued', 'owners.jsonl')
    .action(async (file: string, options: HandoverOptions) => {
      const { digest, signerKey } = withManifest(file, options.root, manifest => manifest)
      const chain = existsSync(options.owners) ? chainOf(options.owners) : ''
      if (options.key && chain === '')
        throw usageError(`there is no ${options.owners}`, 'give the chain that came with the manifest: --owners FILE')
      const key = readSigningKey(options.key ?? join(options.dir, 'manifest.key.pem'))
      const to = { name: options.name, key: publicKeyIn(options.to) }
      const continued = await handOver(chain, { digest, signerKey }, to, key, systemClock.now())
      writeDurably(options.owners, continued, 0o644)
      terminal.done(`handed over to ${printable(to.name)}`, options.owners)
      terminal.commands('They see it with:', [
        `birthmark manifest verify ${quoted(file)} --root ${quoted(options.root)} --owners ${quoted(options.owners)} --owner ${quoted(options.to)}`,
      ])
      terminal.result({ manifest: digest, to: to.name, keySha256: sha256Hex(to.key), owners: options.owners })
    })
}

interface HandoverOptions {
  root: string
  to: string
  name: string
  key?: string
  dir: string
  owners: string
}

function minute(seconds: number): string {
  return new Date(seconds * 1000).toISOString().slice(0, 16)
}
