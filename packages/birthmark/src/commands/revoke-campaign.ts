// `birthmark revoke plan | submit | approve | undo | list | devices`: a campaign from what is asked for to what is in force. People say yes with
// keys of their own, which this command reads and the server never sees.

import { createPrivateKey, type KeyObject } from 'node:crypto'
import { userInfo } from 'node:os'
import { bytesOfHex } from '@birthmark/device-sdk/core'
import { readPlanFile, type Saying, signWord } from '@birthmark/est-server'
import { writeDurably } from '@birthmark/factory-line'
import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
import type { Administration } from '../administration.ts'
import type { CampaignView } from '../campaign-administration.ts'
import { CommandError, usageError } from '../command-error.ts'
import { secondsOf } from '../revocation-settings.ts'
import { printable, type Terminal } from '../terminal.ts'
import { counted, leaf, quoted, readInput, stateOption, wholeNumber, withDir } from './common.ts'
import { lastWord, planLines } from './revoke-lines.ts'

const planBytesMax = 1_048_576

export function defineCampaign(command: Command, terminal: Terminal): void {
  definePlan(command, terminal)
  defineSaying(command, terminal, 'submit', 'put a plan before a second person; one that needs none is in force at once')
  defineSaying(command, terminal, 'approve', 'agree to a plan that somebody else has submitted: from then on it is in force')
  defineUndo(command, terminal)
  defineList(command, terminal)
  defineDevices(command, terminal)
}

function definePlan(command: Command, terminal: Terminal): void {
  stateOption(
    leaf(
      command
        .command('plan')
        .description(
          'Freeze what a selector finds, and show what it stands for: groups, sites, owners, last gateways, who is online. Nothing is denied by it. ' +
            'Without --out the plan is kept by the server alone, under its id.',
        ),
      [
        [
          "birthmark revoke plan --select 'model=gw-2,batch in (2026-W41,2026-W42)' --reason 'keys leaked'",
          'see what it would take',
        ],
        [
          "birthmark revoke plan --select 'firmware<2.3,site=fra' --reason CVE-2026-1 --window 2h --out plan.json",
          'as a file to pass on',
        ],
        [
          "birthmark revoke plan --select 'id in (SN-1,SN-2)' --reason stolen --window 0s",
          'single devices, without a time to undo',
        ],
      ],
      'Selectors: docs/campaigns.md. Try one first: birthmark devices --select …',
    ),
  )
    .requiredOption('--select <selector>', "which devices, such as 'model=gw-2,firmware<2.3'; '' for all")
    .requiredOption('--reason <text>', 'why, for the record, at most 200 characters')
    .option('--window <time>', 'how long it can be undone once it is in force, such as 15m, 2h, 1d (default: the configuration)')
    .option('--out <file>', 'write the plan here')
    .action(async (options: { dir: string; select: string; reason: string; window?: string; out?: string }) => {
      if (options.window !== undefined && !/^\d{1,6}[smhd]$/.test(options.window))
        throw usageError(`'${options.window}' is no time`, 'write it like 0s, 15m, 2h or 1d')
      const view = await administrationOf(options.dir).planCampaign({
        ...{ select: options.select, reason: options.reason, by: userName() },
        windowSeconds: options.window === undefined ? null : secondsOf(options.window),
      })
      for (const line of planLines(view.plan)) terminal.line(line)
      terminal.line(`plan ${view.planSha256}`)
      if (options.out) {
        writeDurably(options.out, `${JSON.stringify({ plan: view.plan, sha256: view.planSha256 }, null, 2)}\n`, 0o644)
        terminal.done('plan written', options.out)
      }
      const named = options.out ? quoted(options.out) : view.id
      const key = view.plan.approvalNeeded ? ' --as NAME --key NAME.key' : ''
      terminal.commands('Next:', [`birthmark revoke submit ${named}${key} --yes${withDir(options.dir)}`])
      terminal.result(view)
    })
}

const idPattern = /^[0-9a-f]{16}$/

/** Of a campaign, or of the plan in a file. */
export function campaignNamed(named: string): string {
  return idPattern.test(named) ? named : readPlanFile(readInput(named, planBytesMax).toString('utf8')).id
}

/** What was named: a file, which is checked, or the id of a campaign, which the server is asked for. */
async function planNamed(administration: Administration, named: string) {
  if (idPattern.test(named)) {
    const view = await administration.campaign({ id: named })
    return { id: view.id, plan: view.plan, sha256: bytesOfHex(view.planSha256), hex: view.planSha256 }
  }
  const { id, plan, sha256 } = readPlanFile(readInput(named, planBytesMax).toString('utf8'))
  return { id, plan, sha256, hex: Buffer.from(sha256).toString('hex') }
}

function defineSaying(command: Command, terminal: Terminal, what: 'submit' | 'approve', about: string): void {
  signed(
    stateOption(
      leaf(
        command
          .command(what)
          .argument('<plan>', 'the file that birthmark revoke plan wrote, or the id of the campaign')
          .description(`${about[0].toUpperCase()}${about.slice(1)}. Without --yes it shows the plan and says nothing (exit 3).`),
        [
          [`birthmark revoke ${what} plan.json`, 'look at it'],
          [`birthmark revoke ${what} plan.json --as alice --key alice.key --yes`, 'say so, signed'],
        ],
      ),
    ),
  )
    .option('--yes', 'say so')
    .action(async (named: string, options: SignedOptions & { dir: string; yes?: boolean }) => {
      const administration = administrationOf(options.dir)
      const { id, plan, sha256, hex } = await planNamed(administration, named)
      for (const line of planLines(plan)) terminal.line(line)
      if (!options.yes) {
        terminal.result({ plan, sha256: hex })
        const needed = what === 'approve' || plan.approvalNeeded ? ' --as NAME --key NAME.key' : ''
        const again = `birthmark revoke ${what} ${quoted(named)}${typed(options) || needed} --yes${withDir(options.dir)}`
        throw new CommandError('confirmation_needed', 'nothing was said', again, 'refused')
      }
      const word = { id, planSha256: hex, ...sayingOf(what, plan.fleet, sha256, options) }
      const view = await (what === 'submit' ? administration.submitCampaign(word) : administration.approveCampaign(word))
      told(terminal, view, options.dir)
    })
}

function defineUndo(command: Command, terminal: Terminal): void {
  signed(
    stateOption(
      leaf(
        command
          .command('undo')
          .argument('<plan>', 'the file of the plan, or the id of the campaign')
          .description('Give a campaign up, and let its devices be: until its window has closed. What is revoked stays revoked.'),
        [["birthmark revoke undo 3f0c9a6d1b2e4f58 --reason 'the wrong batch'", 'before the window closes']],
      ),
    ),
  )
    .requiredOption('--reason <text>', 'why, for the record')
    .action(async (named: string, options: SignedOptions & { dir: string; reason: string }) => {
      const administration = administrationOf(options.dir)
      const { id, plan, sha256, hex } = await planNamed(administration, named)
      const word = { id, planSha256: hex, ...sayingOf('undo', plan.fleet, sha256, options), reason: options.reason }
      told(terminal, await administration.undoCampaign(word), options.dir)
    })
}

function defineList(command: Command, terminal: Terminal): void {
  stateOption(
    leaf(command.command('list').description('Campaigns, the newest first.'), [
      ['birthmark revoke list', 'what is under way, and what was'],
    ]),
  )
    .option('--limit <n>', 'at most this many', wholeNumber('--limit', 1, 100), 20)
    .action(async (options: { dir: string; limit: number }) => {
      const { campaigns } = await administrationOf(options.dir).campaigns({ limit: options.limit })
      for (const one of campaigns) terminal.result(one)
      if (terminal.json) return
      if (campaigns.length === 0) return terminal.line('None.')
      terminal.table(
        ['campaign', 'state', 'devices', 'select', 'reason', 'last said'],
        campaigns.map(one => [
          one.id,
          one.state,
          String(one.plan.devices.count),
          one.plan.select || '(all)',
          one.plan.reason,
          lastWord(one),
        ]),
      )
    })
}

function defineDevices(command: Command, terminal: Terminal): void {
  stateOption(
    leaf(
      command
        .command('devices')
        .argument('<plan>', 'the file of the plan, or the id of the campaign')
        .description(
          'The ids of the devices that a campaign has frozen, one a line in the order of their bytes: sha256sum of them is in the plan.',
        ),
      [['birthmark revoke devices plan.json | sha256sum', 'is devices.sha256 of the plan']],
    ),
  ).action(async (named: string, options: { dir: string }) => {
    const administration = administrationOf(options.dir)
    const id = campaignNamed(named)
    const ids: string[] = []
    for (let after: number | null = -1; after !== null; ) {
      const page: { ids: string[]; next: number | null } = await administration.campaignDevices({ id, after })
      for (const one of page.ids) ids.push(one)
      after = page.next
    }
    // Ids are ASCII: the order of code units is that of bytes.
    ids.sort()
    if (terminal.json) for (const device of ids) terminal.result({ device })
    else terminal.raw(ids.map(one => `${one}\n`).join(''))
  })
}

interface SignedOptions {
  as?: string
  key?: string
}

function signed(command: Command): Command {
  return command
    .option('--as <name>', 'who says so, as the configuration names them (default: the user who types)')
    .option('--key <file>', 'their private key (PEM), with which they sign')
}

const typed = ({ as, key }: SignedOptions) => `${as ? ` --as ${quoted(as)}` : ''}${key ? ` --key ${quoted(key)}` : ''}`

function userName(): string {
  return process.env.SUDO_USER ?? userInfo().username
}

function sayingOf(
  what: Saying,
  fleet: string,
  sha256: Uint8Array,
  { as, key }: SignedOptions,
): { by: string; signature: string | null } {
  const by = as ?? userName()
  if (!key) return { by, signature: null }
  let read: KeyObject
  try {
    read = createPrivateKey(readInput(key, 65_536))
  } catch (error) {
    if (error instanceof CommandError) throw error
    throw usageError(
      `${key} is no private key, or has a passphrase`,
      `name the file of ${by}’s private key, or make one: openssl genpkey -algorithm ed25519 -out ${by}.key`,
    )
  }
  return { by, signature: signWord(read, what, fleet, sha256, by) }
}

function told(terminal: Terminal, view: CampaignView, folder: string): void {
  const dir = withDir(folder)
  const { devices } = view.plan
  if (view.state === 'submitted') {
    terminal.done(`campaign ${view.id} waits for a second person`, counted(devices.count, 'device'))
    terminal.commands('Next, by somebody else:', [`birthmark revoke approve ${view.id} --as NAME --key NAME.key --yes${dir}`])
  } else if (view.state === 'undone') terminal.done(`campaign ${view.id} undone`, printable(view.undone ?? ''))
  else {
    const until = view.windowEndsAt === null ? '' : `can be undone until ${new Date(view.windowEndsAt * 1000).toISOString()}`
    terminal.done(`campaign ${view.id} is in force: ${counted(devices.count, 'device')} denied`, until)
    terminal.commands('Next:', [
      `birthmark revoke watch ${view.id}${dir}`,
      ...(view.state === 'quarantined' ? [`birthmark revoke undo ${view.id} --reason '…'${dir}`] : []),
    ])
  }
  terminal.result(view)
}
