// `birthmark revoke watch`: how far a campaign is, stage by stage. On a terminal the lines stay where they are and change; elsewhere they are
// printed when something has changed. It only looks: who stops looking, or loses the server, changes nothing.

import type { Command } from 'commander'
import { administrationOf } from '../admin-client.ts'
import type { Administration } from '../administration.ts'
import type { CampaignView } from '../campaign-administration.ts'
import { CommandError, Interrupted } from '../command-error.ts'
import { printable, type Terminal } from '../terminal.ts'
import { leaf, stateOption, wholeNumber, withDir } from './common.ts'
import { campaignNamed } from './revoke-campaign.ts'
import { retiringText, stageLines, unconfirmed } from './revoke-lines.ts'
import { takeSignals } from './until-stopped.ts'

const lookMs = 1000
/** A server that is started again is back by then, and its campaigns go on. */
const awaySecondsMax = 120
/** Notices, lists, answers and relying parties follow within seconds. A relying party that hears nothing for so long lets nobody new in by itself. */
const confirmedSeconds = 30

interface WatchOptions {
  dir: string
  once?: boolean
  wait: number
  for: number
}

export function defineWatch(command: Command, terminal: Terminal): void {
  stateOption(
    leaf(
      command
        .command('watch')
        .argument('<plan>', 'the id that birthmark revoke list shows, or the file of the plan')
        .description(
          'Show how far a campaign is, until it is carried out and confirmed (exit 0), undone or expired (exit 3). Carried out and not confirmed in time by relying parties, the broker, CRL and OCSP: exit 4. Devices are not waited for. Ctrl-C ends the watching and not the campaign (exit 130).',
        ),
      [
        ['birthmark revoke watch 3f0c9a6d1b2e4f58', 'until it is done'],
        ['birthmark revoke watch 3f0c9a6d1b2e4f58 --once --json', 'as it is now'],
        ['birthmark revoke watch 3f0c9a6d1b2e4f58 --for 60', 'a minute longer, to see who comes back and is told'],
      ],
    ),
  )
    .option('--once', 'look once')
    .option(
      '--wait <seconds>',
      'how long after it is carried out to wait for who has not confirmed',
      wholeNumber('--wait', 0, 86_400),
      confirmedSeconds,
    )
    .option('--for <seconds>', 'go on for so long after it is carried out', wholeNumber('--for', 0, 86_400), 0)
    .action(async (named: string, options: WatchOptions) => {
      const id = campaignNamed(named)
      const look = lookingAt(id, options, terminal)
      if (options.once) return void (await look())
      const stopped = { yes: false, wake: () => {} }
      const release = takeSignals(() => {
        stopped.yes = true
        stopped.wake()
      })
      try {
        while (!stopped.yes) {
          if (await look()) return
          await new Promise<void>(next => {
            const timer = setTimeout(next, lookMs)
            stopped.wake = () => {
              clearTimeout(timer)
              next()
            }
          })
        }
      } finally {
        release()
      }
      terminal.commands(`Campaign ${id} goes on. To see how far it is:`, [`birthmark revoke watch ${id}${withDir(options.dir)}`])
      throw new Interrupted()
    })
}

/** One look, shown. True: there is no more to see. Rejects when it came to nothing, or the server stays away. */
function lookingAt(id: string, options: WatchOptions, terminal: Terminal): () => Promise<boolean> {
  const administration = administrationOf(options.dir)
  const show = terminal.block()
  let [shown, text] = [[] as string[], '']
  let seenAt: number | null = null
  let doneAt: number | null = null

  function away(error: unknown, now: number): void {
    const gone = error instanceof CommandError && error.exit === 'unreachable'
    if (options.once || !gone || seenAt === null || now - seenAt > awaySecondsMax) throw error
    show([...shown, '! the server does not answer; the campaign waits for it, and so does this'])
  }

  return async () => {
    const now = Date.now() / 1000
    const view = await viewOf(administration, id).catch((error: unknown) => away(error, now))
    if (!view) return false
    seenAt = now
    shown = [`campaign ${id}: ${view.state}, ${printable(view.plan.reason)}`, ...stageLines(view, now, view.windowEndsAt)]
    show(shown)
    const before = text
    text = JSON.stringify({ ...view, plan: undefined })
    if (text !== before) terminal.result(view)
    if (options.once) return true
    cameToNothing(view)
    if (view.state === 'committed') doneAt ??= now
    if (doneAt === null || now - doneAt < options.for) return false
    const missing = unconfirmed(view)
    if (missing.length === 0) return true
    if (now - doneAt < options.wait) return false
    throw new CommandError(
      'not_confirmed',
      `campaign ${id} is carried out, and not confirmed: ${missing.join('; ')}`,
      `see to them, and look again: birthmark revoke watch ${id} --wait 600${withDir(options.dir)}${await retiring(view, administration, options.dir)}`,
      'unreachable',
    )
  }
}

/** Nothing where the server does not say which of them the configuration names. */
async function retiring({ stages }: CampaignView, administration: Administration, dir: string): Promise<string> {
  const missing = stages.relyingParties?.missing ?? []
  if (missing.length === 0) return ''
  const known = await administration.relyingParties().catch(() => null)
  const configured = known?.relyingParties.filter(one => one.configured).map(({ name }) => name)
  return configured ? retiringText(missing, configured, withDir(dir)) : ''
}

const viewOf = (administration: Administration, id: string): Promise<CampaignView | undefined> => administration.campaign({ id })

function cameToNothing({ id, state, undone }: CampaignView): void {
  if (state !== 'undone' && state !== 'expired') return
  const what = state === 'undone' ? `was undone: ${undone}` : 'has expired: nobody approved it in time'
  throw new CommandError('not_carried_out', `campaign ${id} ${what}`, 'plan it again: birthmark revoke plan --help', 'refused')
}
