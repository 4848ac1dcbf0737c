// `birthmark revoke --device …`, `--idx …`, `--range …`, `--below …`, `--issuer …`: what is no group. Two steps as for a group: first what would
// be taken back, and with --yes exactly that.

import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
import { CommandError, usageError } from '../command-error.ts'
import type { SingleRevocationReceipt, SingleRevocationRequest } from '../single-revocation.ts'
import type { Terminal } from '../terminal.ts'
import { collect, quoted, withDir } from './common.ts'

export interface SingleOptions {
  device?: string[]
  idx?: string[]
  range?: string
  below?: string
  issuer?: string
}

export const singleExamples: [string, string][] = [
  ['birthmark revoke --device SN-0001 --device SN-0002 --reason stolen --yes', 'two devices, with all their certificates'],
  ['birthmark revoke --range 1000-1999 --reason "bad entropy" --dry-run', 'certificates by index'],
]

export function singleOptions(command: Command): Command {
  return command
    .option('--device <id>', 'a device with all its certificates; again for more', collect)
    .option('--idx <index>', 'one certificate, by the index in it; again for more', collect)
    .option('--range <from-to>', 'certificates by index, both ends included')
    .option('--below <index>', 'every certificate of the fleet with a lower index')
    .option('--issuer <key id>', 'every certificate of an issuing CA that signs no more, by its key id in hex')
}

function indexOf(text: string): number {
  if (!/^[1-9]\d{0,9}$/.test(text)) throw usageError(`'${text}' is no index`, 'give a whole number from 1')
  return Number(text)
}

/** Null when a group is meant. */
export function singleOf({ device, idx, range, below, issuer }: SingleOptions): SingleRevocationRequest['what'] | null {
  const given = [device, idx, range, below, issuer].filter(value => value !== undefined)
  if (given.length === 0) return null
  if (given.length > 1)
    throw usageError('several kinds at once', 'give one of --device, --idx, --range, --below, --issuer; each may name several')
  if (device) return { kind: 'devices', devices: device }
  if (idx) return { kind: 'indices', indices: idx.map(indexOf) }
  if (below) return { kind: 'below', idx: indexOf(below) }
  if (issuer) return { kind: 'issuer', issuer: issuer.toLowerCase() }
  const [from, to] = (range ?? '').split('-')
  return { kind: 'range', from: indexOf(from), to: indexOf(to ?? '') }
}

export async function revokeSingle(
  terminal: Terminal,
  what: SingleRevocationRequest['what'],
  options: SingleOptions & { dir: string; reason: string; yes?: boolean; dryRun?: boolean },
): Promise<void> {
  const { dir, reason } = options
  const administration = administrationOf(dir)
  const carry = options.yes === true && !options.dryRun
  const receipt = await administration.revokeSingle({ what, reason, rehearse: !carry })
  for (const id of receipt.unknown) terminal.line(`${id}: not known here`)
  const named = sentenceOf(receipt)
  if (!carry) {
    terminal.line(named)
    terminal.result({ plan: receipt })
    const again = `birthmark revoke ${argumentsOf(options)} --reason ${quoted(reason)} --yes${withDir(dir)}`
    if (!options.dryRun) throw new CommandError('confirmation_needed', 'nothing was revoked', again, 'refused')
    terminal.commands('To carry it out:', [again])
    return
  }
  const { done } = receipt
  if (receipt.again) terminal.done('all of it was revoked before')
  else terminal.done(`revoked: ${named}`, `${done?.notices} notices to number ${done?.seq}, ${done?.noticeBytes} bytes`)
  if (typeof done?.sessionsCut === 'number') terminal.done(`${done.sessionsCut} live sessions cut`)
  terminal.result(receipt)
}

function sentenceOf({ devices, certificates }: SingleRevocationReceipt): string {
  if (certificates === null) return 'every certificate of the issuer'
  return devices === null ? `${certificates} certificates` : `${devices} devices with ${certificates} certificates`
}

function argumentsOf({ device = [], idx = [], range, below, issuer }: SingleOptions): string {
  return [
    ...device.map(id => `--device ${quoted(id)}`),
    ...idx.map(n => `--idx ${n}`),
    ...(range ? [`--range ${range}`] : []),
    ...(below ? [`--below ${below}`] : []),
    ...(issuer ? [`--issuer ${issuer}`] : []),
  ].join(' ')
}
