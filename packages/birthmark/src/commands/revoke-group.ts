// `birthmark revoke GROUP`: one group at once, or single devices, in two phases. First what would be taken back, with a digest; then exactly that. No question is asked: a script and a
// person get the same behaviour, and nothing happens without --yes.

import { type Command, Option } from 'commander'
import { administrationOf } from '../admin-client.ts'
import { CommandError, usageError } from '../command-error.ts'
import { type RevocationReason, reasonNames } from '../revocation-reason.ts'
import { printable, type Terminal } from '../terminal.ts'
import { leaf, quoted, stateOption, withDir } from './common.ts'
import { revokeSingle, type SingleOptions, singleExamples, singleOf, singleOptions } from './revoke-single.ts'

/** The command that is meant when none is named. */
export function defineGroup(command: Command, terminal: Terminal): void {
  singleOptions(
    stateOption(
      leaf(
        command
          .command('group', { isDefault: true })
          .argument('[group...]', 'group to take back, such as batch=2026-W41; `lot 42` is the group lot=42')
          .description(
            'Revoke a group for good: one signed notice, live sessions cut, reconnecting and re-enrolling refused. Without --yes it says ' +
              'what would be taken back and changes nothing (exit 3; with --dry-run exit 0).',
          ),
        [
          ['birthmark revoke batch=2026-W41 --reason "keys leaked" --dry-run', 'what would happen'],
          ['birthmark revoke batch=2026-W41 --reason "keys leaked" --yes', 'do it'],
          ['birthmark revoke lot 42 --reason "bad flash" --dry-run', 'the lot that the order gave its units as lot=42'],
          ['birthmark revoke batch=2026-W41 --reason "keys leaked" --yes --plan 3f0c…', 'do it if nothing has changed since'],
          ...singleExamples,
        ],
        'Revocation has no undo: a certificate issued later has a higher index and is judged anew.',
      ),
    ),
  )
    .option('--reason <text>', 'why, for the audit record, at most 200 characters (required)')
    .addOption(new Option('--code <reason>', 'for CRLs and OCSP (RFC 5280 5.3.1), of a group').choices(reasonNames))
    .option('--yes', 'carry it out')
    .option('--dry-run', 'only say what would be taken back')
    .option('--plan <digest>', 'carry out only the plan with this digest')
    .action(
      async (
        words: string[],
        given: Omit<SingleOptions, 'reason'> & {
          dir: string
          reason?: string
          code?: RevocationReason
          yes?: boolean
          dryRun?: boolean
          plan?: string
        },
      ) => {
        const { reason } = given
        if (reason === undefined) throw reasonMissing(words, command)
        const options = { ...given, reason }
        const what = singleOf(options)
        if (what) {
          if (options.code) throw usageError('--code is of a group', 'leave it out')
          if (words.length > 0) throw usageError('a group and single devices at once', 'revoke them one after the other')
          return revokeSingle(terminal, what, options)
        }
        const group = groupOf(words)
        const administration = administrationOf(options.dir)
        const plan = await administration.planRevocation(group)
        terminal.line(`${printable(plan.group)}: ${plan.devices} devices${plan.closed ? ', revoked before' : ''}`)
        terminal.line(`plan ${plan.digest}`)
        if (options.dryRun || !options.yes) {
          const again = `birthmark revoke ${quoted(group)} --reason ${quoted(options.reason)}${options.code ? ` --code ${options.code}` : ''} --yes --plan ${plan.digest}${withDir(options.dir)}`
          terminal.result({ plan })
          if (!options.dryRun) throw new CommandError('confirmation_needed', 'nothing was revoked', again, 'refused')
          terminal.commands('To carry it out:', [again])
          return
        }
        if (options.plan && options.plan !== plan.digest)
          throw new CommandError(
            'plan_changed',
            `nothing was revoked: the plan is now ${plan.digest}`,
            'look at it with --dry-run, then give that digest',
            'refused',
          )
        const receipt = await administration.revoke({ group, digest: plan.digest, reason: options.reason, code: options.code })
        terminal.done(
          `${printable(receipt.group)} revoked: ${receipt.devices} devices`,
          `notice ${receipt.seq}, ${receipt.noticeBytes} bytes`,
        )
        if (receipt.sessionsCut !== null) terminal.done(`${receipt.sessionsCut} live sessions cut`)
        else terminal.line('  the external broker was told; sessions are cut there')
        terminal.commands('See:', [`birthmark devices ${quoted(group)}${withDir(options.dir)}`])
        terminal.result(receipt)
      },
    )
}

/** Nothing was named, or a group without a reason, which may be a command that was misspelt. */
function reasonMissing(words: string[], parent: Command): CommandError {
  const commands = parent.commands.map(one => one.name()).filter(name => name !== 'group')
  if (words.length === 0) return usageError(`name a group, or one of: ${commands.join(', ')}`, 'birthmark revoke --help')
  const named = words.map(printable).join(' ')
  return usageError(
    `to revoke the group '${named}' takes --reason; no command is called so: ${commands.join(', ')}`,
    'birthmark revoke --help',
  )
}

/** One group, or `lot NUMBER` as people on a line say it. */
function groupOf(words: string[]): string {
  if (words.length === 1) return words[0]
  if (words.length === 2 && words[0] === 'lot') return `lot=${words[1]}`
  throw usageError(`'${words.join(' ')}' is no group`, 'birthmark revoke name=value, or birthmark revoke lot 42')
}
