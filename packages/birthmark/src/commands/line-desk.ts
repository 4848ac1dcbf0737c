// `birthmark line root | request | sign | accept`: how an issuing CA comes from a root that is kept offline. Files travel, keys do not.

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { encodePem } from '@birthmark/device-sdk/core'
import {
  acceptIssuing,
  createRoot,
  type IssuingRequest,
  type KeyType,
  keyTypes,
  quotaMax,
  readAuthority,
  readCertificate,
  readGrant,
  requestIssuing,
  signIssuing,
  writeDurably,
} from '@birthmark/factory-line'
import type { Command } from 'commander'
import { usageError } from '../command-error.ts'
import { systemClock, writeLineFile } from '../line-folder.ts'
import { type LineKey, lineKey, readTokenFile, tokenKey, writeTokenFile } from '../line-token.ts'
import type { Terminal } from '../terminal.ts'
import { leaf, quoted, readInput, wholeNumber } from './common.ts'
import { atLine, lineFolder } from './line-option.ts'

export function keyType(text: string): KeyType {
  const found = keyTypes.find(type => type.toLowerCase() === text.toLowerCase())
  if (!found) throw usageError(`no key type '${text}'`, `one of ${keyTypes.join(', ')}`)
  return found
}

export const TOKEN = 'the key is in a token (PKCS#11): a file that says which, and where its PIN is (docs/factory.md)'

interface RequestOptions {
  dir: string
  organization: string
  sku: string
  station: string
  key: string
  token?: string
  out: string
}

/** Makes something with a new software key, or with a token's whose place the folder then names. */
export async function withKey<T>(
  options: { dir: string; key: string; token?: string },
  name: string,
  work: (from: KeyType | { token: LineKey }) => Promise<T>,
): Promise<T> {
  if (!options.token) return work(keyType(options.key))
  const settings = await readTokenFile(options.token)
  mkdirSync(options.dir, { recursive: true, mode: 0o700 })
  const token = tokenKey(settings, options.dir)
  try {
    const made = await work({ token })
    writeTokenFile(options.dir, name, settings)
    return made
  } finally {
    token.close()
  }
}

export function day(text: string): number {
  const time = Date.parse(text)
  if (!/^\d{4}-\d\d-\d\d/.test(text) || Number.isNaN(time)) throw usageError(`'${text}' is no date`, 'write 2026-12-31')
  return Math.floor(time / 1000)
}

/** From when to when a CA may issue. A minute back, since the line's clock may be a little behind the desk's. */
export function windowOf(from: number | undefined, until: number): { from: number; until: number } {
  const now = systemClock.now()
  const begin = from ?? now - 60
  if (until <= now) throw usageError('the window is over already', 'give an --until that is to come')
  if (until <= begin) throw usageError('the window ends before it begins', 'give an --until after --from')
  return { from: begin, until }
}

export function defineDesk(command: Command, terminal: Terminal): void {
  leaf(command.command('root').description('make a manufacturer root, at the desk where it is kept offline'), [
    ['birthmark line root --organization "Acme Gateways" --dir desk', 'once'],
  ])
    .option('--dir <folder>', 'folder of the root', 'desk')
    .requiredOption('--organization <name>', 'name of the manufacturer, at most 64 characters')
    .option('--key <type>', `kind of key: ${keyTypes.join(', ')}`, 'P-256')
    .option('--token <file>', TOKEN)
    .action(async (options: { dir: string; organization: string; key: string; token?: string }) => {
      await withKey(options, 'root', from => createRoot(options.dir, options.organization, from, systemClock))
      terminal.done('root made', options.dir)
      terminal.commands('Next, at the line:', [
        `birthmark line request --organization ${quoted(options.organization)} --sku gw-2 --station A3`,
      ])
      terminal.result({ dir: options.dir, root: join(options.dir, 'root.pem') })
    })

  leaf(command.command('request').description('make the keys of a station and ask the root’s desk for its issuing CA'), [
    ['birthmark line request --organization "Acme Gateways" --sku gw-2 --station A3', 'in ./factory'],
  ])
    .option('--dir <folder>', 'folder of the line', lineFolder)
    .requiredOption('--organization <name>', 'name of the manufacturer')
    .requiredOption('--sku <name>', 'what will be made')
    .requiredOption('--station <name>', 'who will make it')
    .option('--key <type>', `kind of the issuing key: ${keyTypes.join(', ')}`, 'P-256')
    .option('--token <file>', TOKEN)
    .option('--out <file>', 'the request to carry to the desk', 'issuing-request.json')
    .action(async (options: RequestOptions) => {
      const { organization, sku, station } = options
      const request = await withKey(options, 'issuing', from => requestIssuing(options.dir, { organization, sku, station }, from))
      writeLineFile(options.dir, organization)
      writeDurably(options.out, `${JSON.stringify(request, null, 2)}\n`, 0o644)
      terminal.done(`request for ${sku} at station ${station}`, options.out)
      terminal.commands('Next, at the root’s desk:', [
        `birthmark line sign ${quoted(options.out)} --dir desk --quota 10000 --from 2026-11-01 --until 2027-01-31 --out issuing-grant.pem`,
      ])
      terminal.result({ dir: options.dir, request: options.out })
    })

  leaf(
    command
      .command('sign')
      .argument('<requests...>', 'requests of stations that share one issuing key; mostly one')
      .description('at the root’s desk: sign an issuing CA with SKU, window, stations and quota in its certificate'),
    [['birthmark line sign issuing-request.json --quota 10000 --until 2027-01-31 --out issuing-grant.pem', 'from today']],
  )
    .option('--dir <folder>', 'folder of the root', 'desk')
    .requiredOption('--quota <units>', 'units that each station may begin', wholeNumber('--quota', 1, quotaMax - 1))
    .option('--from <date>', 'first day; today without it', day)
    .requiredOption('--until <date>', 'end of the window', day)
    .option('--out <file>', 'certificates to carry to the line', 'issuing-grant.pem')
    .action(async (files: string[], options: { dir: string; quota: number; from?: number; until: number; out: string }) => {
      const key = lineKey(options.dir, 'root')
      const root = readAuthority(options.dir, 'root', [], key)
      const requests = files.map(file => {
        try {
          return JSON.parse(readInput(file, 65_536).toString('utf8')) as IssuingRequest
        } catch (error) {
          if (error instanceof SyntaxError) throw usageError(`${file} is no request`, 'make it with: birthmark line request')
          throw error
        }
      })
      const { quota } = options
      const { from, until } = windowOf(options.from, options.until)
      const certificate = await signIssuing(root, requests, { quota, from, until }, systemClock).finally(() => key.close())
      writeDurably(options.out, [certificate, root.certificate].map(der => encodePem('CERTIFICATE', der)).join(''), 0o644)
      const stations = requests.map(({ station }) => station)
      terminal.done(`issuing CA for ${requests[0].sku}: ${quota} units at ${stations.join(', ')}`, options.out)
      terminal.commands('Next, at the line:', [`birthmark line accept ${quoted(options.out)}`])
      terminal.result({ file: options.out, sku: requests[0].sku, stations, quota, from, until })
    })

  leaf(command.command('accept').argument('<grant>', 'what the desk signed').description('take the issuing CA into the line'), [
    ['birthmark line accept issuing-grant.pem --root /media/usb/root.pem', 'checked against the root that you know'],
  ])
    .option('--dir <folder>', 'folder of the line', lineFolder)
    .option('--root <file>', 'the root’s certificate, come by another way than the grant')
    .action(async (file: string, options: { dir: string; root?: string }) => {
      const grant = readGrant(readInput(file, 65_536).toString('utf8'))
      const root = options.root ? readCertificate(options.root) : grant.root
      const [issuingKey, stationKey] = [lineKey(options.dir, 'issuing'), lineKey(options.dir, 'manifest')]
      const parts = { issuing: grant.issuing, root, issuingKey, stationKey }
      const { mandate, station } = await acceptIssuing(options.dir, parts, systemClock).finally(() => issuingKey.close())
      terminal.done(`station ${station} may issue ${mandate.sku}`, options.dir)
      if (!options.root) terminal.line('  the root came with the grant: compare it with the one you know, or give --root')
      terminal.commands('Next:', [
        `birthmark line run --station ${station} --csv units.csv --csr-folder requests --out units${atLine(options.dir)}`,
      ])
      terminal.result({ station, mandate })
    })
}
