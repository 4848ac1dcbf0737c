// `birthmark line init`: a line on this machine in one go. A trial has no limits; with --sku it is a line as it will be, its root in a folder
// of its own that is then taken offline. Where the root is offline already, the same is done in steps (line-desk.ts).

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import {
  acceptIssuing,
  createRoot,
  keyTypes,
  type Mandate,
  quotaMax,
  readAuthority,
  requestIssuing,
  signIssuing,
} from '@birthmark/factory-line'
import type { Command } from 'commander'
import { usageError } from '../command-error.ts'
import { createLine, systemClock, writeLineFile } from '../line-folder.ts'
import { lineKey } from '../line-token.ts'
import type { Terminal } from '../terminal.ts'
import { leaf, quoted, wholeNumber } from './common.ts'
import { day, keyType, TOKEN, windowOf, withKey } from './line-desk.ts'
import { atLine, lineFolder } from './line-option.ts'

interface InitOptions {
  dir: string
  organization: string
  sku?: string
  station?: string
  quota?: number
  from?: number
  until?: number
  desk: string
  key: string
  token?: string
}

export function defineInit(command: Command, terminal: Terminal): void {
  leaf(
    command
      .command('init')
      .description(
        'make a line: manufacturer root, issuing CA and station key. A trial without limits; with --sku an issuing CA for that SKU, ' +
          'with a quota, a time window and its station in the certificate, and the root apart, to be kept offline',
      ),
    [
      ['birthmark line init --organization "Acme Gateways"', 'a trial in ./factory'],
      [
        'birthmark line init --organization "Acme Gateways" --sku gw-2 --station A3 --quota 10000 --until 2027-01-31',
        'root in ./desk',
      ],
    ],
    'Where the root is offline already, files travel and keys do not: birthmark line root, request, sign, accept (docs/factory.md).',
  )
    .option('--dir <folder>', 'folder of the line', lineFolder)
    .requiredOption('--organization <name>', 'name of the manufacturer, at most 64 characters')
    .option('--sku <name>', 'what will be made')
    .option('--station <name>', 'who will make it')
    .option('--quota <units>', 'units that the station may begin', wholeNumber('--quota', 1, quotaMax - 1))
    .option('--from <date>', 'first day; today without it', day)
    .option('--until <date>', 'end of the window', day)
    .option('--desk <folder>', 'folder of the root; made when it has none, used for the next SKU when it has', 'desk')
    .option('--key <type>', `kind of new keys of root and issuing CA: ${keyTypes.join(', ')}`, 'P-256')
    .option('--token <file>', TOKEN)
    .action(async (options: InitOptions) => {
      if (options.organization.length > 64) throw usageError('the name has more than 64 characters', 'shorten --organization')
      if (options.sku === undefined) await makeTrial(options, terminal)
      else await makeLine(options, options.sku, terminal)
    })
}

async function makeTrial(options: InitOptions, terminal: Terminal): Promise<void> {
  const { dir, organization, station, quota, from, until, token } = options
  if ([station, quota, from, until, token].some(each => each !== undefined))
    throw usageError('--station, --quota, --from, --until and --token go with --sku', 'birthmark line init --help')
  await createLine(dir, organization)
  const at = atLine(dir)
  terminal.done('root, issuing CA and manifest signer made: a trial without limits', dir)
  terminal.line(`  the root's key (${join(dir, 'root.key.pem')}) is not needed to issue: take it offline`)
  terminal.commands('Next:', [
    `birthmark line issue SN-0001 --csr device.csr --group batch=2026-W41${at}`,
    `cp ${quoted(join(dir, 'root.pem'))} /etc/birthmark/birth-anchors.pem   # at the server`,
  ])
  terminal.result({ dir, root: join(dir, 'root.pem'), organization })
}

async function makeLine(options: InitOptions, sku: string, terminal: Terminal): Promise<void> {
  const { dir, organization, station, quota, until, desk } = options
  if (station === undefined || quota === undefined || until === undefined)
    throw usageError('--sku needs --station, --quota and --until', 'birthmark line init --help')
  const permission = { quota, ...windowOf(options.from, until) }
  const request = await withKey(options, 'issuing', key => requestIssuing(dir, { organization, sku, station }, key))
  writeLineFile(dir, organization)
  const known = existsSync(join(desk, 'root.pem'))
  if (!known) await createRoot(desk, organization, keyType(options.key), systemClock)
  const keys = { root: lineKey(desk, 'root'), issuing: lineKey(dir, 'issuing') }
  let mandate: Mandate
  try {
    const root = readAuthority(desk, 'root', [], keys.root)
    const issuing = await signIssuing(root, [request], permission, systemClock)
    const parts = { issuing, root: root.certificate, issuingKey: keys.issuing, stationKey: lineKey(dir, 'manifest') }
    mandate = (await acceptIssuing(dir, parts, systemClock)).mandate
  } finally {
    keys.root.close()
    keys.issuing.close()
  }
  terminal.done(known ? 'root that was there' : 'root made: take this folder offline, nothing here needs it', desk)
  terminal.done(`issuing CA for ${sku}: station ${station}, ${quota} units`, dir)
  const at = atLine(dir)
  terminal.commands('Next:', [
    `birthmark line run --station ${station} --csv units.csv --csr-folder requests --out units${at}`,
    `cp ${quoted(join(dir, 'root.pem'))} /etc/birthmark/birth-anchors.pem   # at the server`,
  ])
  terminal.result({ dir, desk, root: join(dir, 'root.pem'), organization, station, mandate })
}
