// `birthmark restore`: puts a backup in the place of the store, or takes the store as it was put back, and lets it go on above every number
// that was given out since. Notices that were published since are taken in again, so that no revocation is forgotten.

import { closeSync, copyFileSync, existsSync, fsyncSync, openSync, readFileSync, renameSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { restorePostgresStore, type StoreNumbers } from '@birthmark/est-server'
import { systemClock } from '@birthmark/fleet-revocation'
import type { Command } from 'commander'
import { z } from 'zod'
import { administrationOf } from '../admin-client.ts'
import { CommandError, usageError } from '../command-error.ts'
import { readConfiguration, type Settings } from '../configuration.ts'
import { readDoubled } from '../doubled-notices.ts'
import { postgresAddress, storeName, storePath, withStore } from '../open-store.ts'
import { numbersOfMark, readMark, readNotices } from '../published.ts'
import { type Held, heldByBroker, heldByServer } from '../published-elsewhere.ts'
import { inOrder, verifiedNotices } from '../restored-notices.ts'
import { goOn, type Known, listFacts } from '../restored-numbers.ts'
import type { Terminal } from '../terminal.ts'
import { backupFormat, sha256OfFile } from './backup.ts'
import { collect, leaf, readInput, wholeNumber } from './common.ts'

const Manifest = z.object({
  format: z.literal(backupFormat),
  fleet: z.string(),
  store: z.enum(['sqlite', 'postgres']),
  files: z.array(z.object({ name: z.enum(['fleet.db', 'fleet.dump']), bytes: z.int(), sha256: z.string() })).length(1),
  numbers: z.unknown(),
})

interface Options {
  config: string
  inPlace?: boolean
  notice: string[]
  crl: string[]
  from?: string
  above?: number
}

export function define(command: Command, terminal: Terminal): void {
  leaf(
    command
      .argument('[folder]', 'folder of birthmark backup')
      .description(
        'Put a backup in the place of the store. The server must be stopped. What stood there before is kept beside it. The broker outside that the configuration names is asked what was published since.',
      ),
    [
      ['birthmark restore /backup/2026-11-22 --config birthmark.yaml', ''],
      ['birthmark restore --in-place --config birthmark.yaml', 'the store was put back by other means'],
      ['birthmark restore --in-place --config birthmark.yaml --notice head.bin', 'with a notice that a receiver still has'],
      ['birthmark restore --in-place --config birthmark.yaml --from https://est-2:8443', 'with those of another server'],
    ],
    'docs/stores.md says what is lost and what to do about it.',
  )
    .requiredOption('--config <file>', 'configuration of the server')
    .option('--in-place', 'take the store as it is')
    .option('--notice <file>', 'a published notice that this machine has lost, as it was received; repeat for several', collect, [])
    .option('--crl <file>', 'a published revocation list, DER, for its number; repeat for several', collect, [])
    .option('--from <url>', 'another server of the fleet, to be asked for its notices')
    .option(
      '--above <n>',
      'nothing published has an index, notice or CRL number above this one',
      wholeNumber('--above', 0, 999_999_999),
    )
    .action(async (folder: string | undefined, options: Options) => {
      if ((folder === undefined) !== (options.inPlace === true))
        throw usageError('a folder of a backup is expected, or --in-place', 'birthmark restore FOLDER --config FILE')
      const settings = readConfiguration(options.config)
      await requireStopped(settings)
      const backup = folder === undefined ? null : await checkedBackup(folder, settings, terminal)
      // Before anything is moved: what cannot be learnt now is not learnt later.
      const known = await learn(settings, backup?.numbers ?? null, options, terminal)
      if (backup !== null) await putBack(backup.file, settings)
      const outcome = await withStore(settings, store => goOn(store, settings, known))
      terminal.done(`the store goes on at index ${outcome.idx}, notice ${outcome.seq + 1}`, storeName(settings))
      if (outcome.adopted > 0) terminal.done(`${outcome.adopted} notices taken in that it had lost`)
      const { missing, taken } = outcome
      if (taken.length > 0)
        terminal.line(
          `  Published as notice ${taken.join(', ')}, and without a place here any more: what they revoke is in the store, and signed again where it was not.`,
        )
      if (missing)
        terminal.line(
          `  Notices ${missing.from} to ${missing.to} were published and are not here: revoke again what only they revoked.`,
        )
      if (outcome.lost)
        terminal.line(
          `  Certificates with an index from ${outcome.lost.from} to ${outcome.lost.to} may be out there and are not in the store.`,
        )
      if (outcome.isForked)
        terminal.line(
          '  This machine was put back before and went on: numbers were given out twice, and a certificate may be out there whose index is another’s here.',
        )
      if (!outcome.isMarked) terminal.line('  This machine had not noted all that was published; give later notices with --notice.')
      terminal.commands('Then:', ['birthmark fsck --config birthmark.yaml', 'birthmark serve --config birthmark.yaml'])
      terminal.result(outcome)
    })
}

/** What was published, from everybody who can be asked. Rejects with `published_unasked` or `published_unknown` rather than guess. */
async function learn(settings: Settings, backup: StoreNumbers | null, options: Options, terminal: Terminal): Promise<Known> {
  const { state, mqtt, fleet, serverAnchors } = settings
  const mark = readMark(state)
  const above = options.above ?? null
  const own = await verifiedNotices(settings, readNotices(state))
  const given = await verifiedNotices(
    settings,
    options.notice.map(file => new Uint8Array(readInput(file, 65_536))),
  )
  if (own.others + given.others > 0)
    throw new CommandError(
      'notice_refused',
      'a published notice does not verify under a notice key',
      'leave that file out',
      'refused',
    )
  const held: Held[] = []
  const ask = async (whom: Promise<Held>): Promise<void> => {
    try {
      held.push(await whom)
    } catch (error) {
      // The operator's word stands for the answer.
      if (above === null) throw error
      terminal.line(`  ${(error as Error).message}`)
    }
  }
  terminal.progress('asking what was published')
  if (mqtt.kind === 'external') await ask(heldByBroker(mqtt, fleet))
  if (options.from !== undefined) await ask(heldByServer(options.from, serverAnchors, fleet))
  const elsewhere = [...given.verified]
  for (const { where, notices } of held) {
    const { verified, others } = await verifiedNotices(settings, notices)
    elsewhere.push(...verified)
    if (others > 0) terminal.line(`  ${others} of the notices at ${where} do not verify under a notice key of the configuration.`)
    terminal.done(verified.length > 0 ? `newest notice ${verified.at(-1)?.body.seq}` : 'no notice of this fleet', where)
  }
  const notices = inOrder([...elsewhere, ...own.verified])
  const marked = mark?.fleets.find(noted => noted.fleet === fleet)?.seq ?? 0
  if (mark === null && above === null && notices.length === 0)
    throw new CommandError(
      'published_unknown',
      `nothing tells what was published since the backup: ${join(state, 'published.json')} is gone, and nobody was found who has a notice`,
      'give --notice FILE or --from URL; or --above N, where nothing published has an index, notice or CRL number above N',
      'refused',
    )
  const lists = options.crl.map(file => {
    const facts = listFacts(settings, new Uint8Array(readInput(file, 268_435_456)))
    if (facts === null)
      throw new CommandError(
        'list_refused',
        `${file} is no list of a configured issuer, in DER`,
        'leave it out, or name the right file',
        'refused',
      )
    return facts
  })
  // A mark that a notice is ahead of went back itself, as with a whole machine that was put back, whoever has the notice: none of its own is noted
  // here before the mark covers it, and one that a broker shows is.
  return {
    seen: mark ?? backup,
    isMarked: mark !== null && notices.every(({ body }) => body.seq <= marked),
    notices,
    doubled: readDoubled(state),
    lists,
    above,
  }
}

async function requireStopped({ state }: Settings): Promise<void> {
  let running = true
  try {
    await administrationOf(state).status()
  } catch (error) {
    running = !(error instanceof CommandError && error.code === 'not_running')
  }
  if (running) throw new CommandError('server_running', `a server runs with ${state}`, 'stop it first', 'refused')
}

/** The file of the store, and the numbers of the backup's moment. */
async function checkedBackup(
  folder: string,
  { store, fleet }: Settings,
  terminal: Terminal,
): Promise<{ file: string; numbers: StoreNumbers }> {
  const parsed = Manifest.safeParse(jsonOf(join(folder, 'manifest.json')))
  if (!parsed.success)
    throw usageError(`${folder} is no backup: its manifest is missing or damaged`, 'name a folder of birthmark backup')
  const manifest = parsed.data
  const numbers = numbersOfMark(JSON.stringify(manifest.numbers), join(folder, 'manifest.json'))
  if (manifest.fleet !== fleet || manifest.store !== store.kind)
    throw usageError(
      `the backup is of fleet ${manifest.fleet} in ${manifest.store}, the configuration of fleet ${fleet} in ${store.kind}`,
      'name the configuration that belongs to it',
    )
  const [{ name, sha256 }] = manifest.files
  const file = join(folder, name)
  terminal.progress('checking')
  if (!existsSync(file) || (await sha256OfFile(file)) !== sha256)
    throw new CommandError('backup_damaged', `${file} is not what the manifest says`, 'use another backup', 'refused')
  return { file, numbers }
}

async function putBack(file: string, { store, state }: Settings): Promise<void> {
  const stamp = Math.floor(systemClock.now())
  if (store.kind === 'postgres') {
    await restorePostgresStore(postgresAddress(store), file, `${store.schema}_before_${stamp}`.slice(0, 63))
    return
  }
  const path = storePath(state)
  const fresh = `${path}.restoring`
  copyFileSync(file, fresh)
  sync(fresh)
  // The log and its index belong to the file beside them and to no other. A crash in between leaves no store, and the same command goes on.
  for (const suffix of ['-wal', '-shm', ''])
    if (existsSync(path + suffix)) renameSync(path + suffix, `${path}.before-${stamp}${suffix}`)
  renameSync(fresh, path)
  sync(dirname(path))
}

function jsonOf(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch {
    return null
  }
}

function sync(path: string): void {
  const fd = openSync(path, 'r')
  fsyncSync(fd)
  closeSync(fd)
}
