// `birthmark ca`: the roll-over from one issuing CA to the next, step by step. Each step takes effect in every process of the server, and is in
// the audit record.

import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
import type { IssuerMove, IssuerView } from '../administration.ts'
import { CommandError, usageError } from '../command-error.ts'
import { printable, type Terminal } from '../terminal.ts'
import { defineRa } from './ca-ra.ts'
import { leaf, stateOption, withDir } from './common.ts'

interface MoveOptions {
  dir: string
  yes?: boolean
  force?: boolean
}

const steps: { step: IssuerMove['step']; summary: string; effect: string; example: string }[] = [
  {
    step: 'prepare',
    summary: 'make the issuer of issuer.next known: devices and brokers learn its chain, the old one goes on signing',
    effect: 'cacerts will offer both chains; the present issuer goes on signing',
    example: 'after issuer.next is in the configuration and the server was restarted',
  },
  {
    step: 'switch',
    summary: 'let the prepared issuer sign; certificates of the old one hold and renew',
    effect: 'the prepared issuer will sign every certificate from now on',
    example: 'when relying parties have the new chain',
  },
  {
    step: 'undo',
    summary: 'take the last step back; after a switch only while the new issuer has signed nothing',
    effect: 'the last step will be taken back',
    example: 'right after a step',
  },
  {
    step: 'retire',
    summary: 'stop admitting certificates of the previous issuer, once its last device has renewed',
    effect: 'certificates of the previous issuer will no longer be admitted, nor renew',
    example: 'when ca status counts no device on it',
  },
]

export function define(command: Command, terminal: Terminal): void {
  command.description('Issuing CAs: which one signs, and the roll-over to the next.')
  stateOption(
    leaf(command.command('status').description('which issuer signs, which ones did or will, and how many devices each holds'), [
      ['birthmark ca status', 'and how many devices are on each'],
      ['birthmark ca status --json', 'for a script'],
    ]),
  ).action(async ({ dir }: { dir: string }) => {
    const { issuers } = await administrationOf(dir).issuers()
    show(terminal, issuers)
    terminal.result({ issuers })
  })
  defineRa(command, terminal)
  for (const { step, summary, effect, example } of steps) {
    const made = stateOption(
      leaf(command.command(step).description(summary), [
        [`birthmark ca ${step}`, 'what would happen (exit 3)'],
        [`birthmark ca ${step} --yes`, example],
      ]),
    ).option('--yes', 'carry it out')
    if (step === 'retire')
      made.argument('[issuer]', 'key id, where several are left').option('--force', 'although devices still hold its certificates')
    made.action(async (...given: unknown[]) => {
      const issuer = step === 'retire' ? (given[0] as string | undefined) : undefined
      const options = given[step === 'retire' ? 1 : 0] as MoveOptions
      if (issuer !== undefined && !/^([0-9a-f]{2}){1,64}$/.test(issuer))
        throw usageError(`'${issuer}' is no key id`, 'take it from birthmark ca status')
      const administration = administrationOf(options.dir)
      const move = { step, force: options.force ?? false, ...(issuer ? { issuer } : {}) }
      if (!options.yes) {
        const { moved: would, issuers } = await administration.moveIssuers({ ...move, rehearse: true })
        show(terminal, issuers)
        terminal.line(effect)
        terminal.line(`to be recorded: ${would}`)
        terminal.result({ issuers, would })
        const again = `birthmark ca ${step}${issuer ? ` ${issuer}` : ''} --yes${options.force ? ' --force' : ''}${withDir(options.dir)}`
        throw new CommandError('confirmation_needed', 'nothing was changed', again, 'refused')
      }
      const done = await administration.moveIssuers({ ...move, rehearse: false })
      terminal.done(done.moved)
      show(terminal, done.issuers)
      terminal.result(done)
    })
  }
}

const day = (seconds: number) => new Date(seconds * 1000).toISOString().slice(0, 10)

function show(terminal: Terminal, issuers: IssuerView[]): void {
  for (const { issuer, state, since, devices, certificate } of issuers) {
    const what = certificate
      ? `${printable(certificate.subject)}, ${certificate.keyAlgorithm}, until ${day(certificate.notAfter)}`
      : 'not in the configuration'
    terminal.line(`  ${state.padEnd(8)} since ${day(since)}  ${String(devices).padStart(8)} devices  ${issuer}  ${what}`)
  }
}
