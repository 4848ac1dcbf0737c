// `birthmark restore`: puts a backup in the place of the store, or takes the store as it was put back, and lets it go on above every number
// that was given out since. Notices that were published since are taken in again, so that no revocation is forgotten.

import { closeSync, copyFileSync, existsSync, fsyncSync, openSync, readFileSync, renameSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Bytes } from '@birthmark/device-sdk/core'
import { countNumbers, restorePostgresStore, type Store, type StoreNumbers } from '@birthmark/est-server'
import { type NoticeBody, nodeVerify, noticeKeyId, noticeSha256, openNotice, systemClock } from '@birthmark/fleet-revocation'
import type { Command } from 'commander'
import { z } from 'zod'
import { administrationOf } from '../admin-client.ts'
import { CommandError, usageError } from '../command-error.ts'
import { readConfiguration, type Settings } from '../configuration.ts'
import { noticeSpki } from '../notice-signing.ts'
import { postgresAddress, storeName, storePath, withStore } from '../open-store.ts'
import { numbersOfMark, readMark, readNotices, writeMark } from '../published.ts'
import { partsOf } from '../recorded-rules.ts'
import type { Terminal } from '../terminal.ts'
import { backupFormat, sha256OfFile } from './backup.ts'
import { collect, leaf, readInput } from './common.ts'

/**
 * How far above the last mark the numbers go on. The mark is at most a second old, in which no server gives out a tenth of this; without a mark
 * there is only the backup's word, which may be months old.
 */
const above = { marked: { idx: 65_536, gid: 1024, crl: 4096 }, unmarked: { idx: 4_194_304, gid: 4096, crl: 1_048_576 } }

const Manifest = z.object({
  format: z.literal(backupFormat),
  fleet: z.string(),
  store: z.enum(['sqlite', 'postgres']),
  files: z.array(z.object({ name: z.enum(['fleet.db', 'fleet.dump']), bytes: z.int(), sha256: z.string() })).length(1),
  numbers: z.unknown(),
})

export function define(command: Command, terminal: Terminal): void {
  leaf(
    command
      .argument('[folder]', 'folder of birthmark backup')
      .description(
        'Put a backup in the place of the store. The server must be stopped. What stood there before is kept beside it.',
      ),
    [
      ['birthmark restore /backup/2026-11-22 --config birthmark.yaml', ''],
      ['birthmark restore --in-place --config birthmark.yaml', 'the store was put back by other means'],
      ['birthmark restore --in-place --config birthmark.yaml --notice head.bin', 'with a notice that a receiver still has'],
    ],
    'docs/stores.md says what is lost and what to do about it.',
  )
    .requiredOption('--config <file>', 'configuration of the server')
    .option('--in-place', 'take the store as it is')
    .option('--notice <file>', 'a published notice that this machine has lost, as it was received; repeat for several', collect, [])
    .action(async (folder: string | undefined, options: { config: string; inPlace?: boolean; notice: string[] }) => {
      if ((folder === undefined) !== (options.inPlace === true))
        throw usageError('a folder of a backup is expected, or --in-place', 'birthmark restore FOLDER --config FILE')
      const settings = readConfiguration(options.config)
      await requireStopped(settings)
      const given = options.notice.map(file => new Uint8Array(readInput(file, 65_536)))
      const saved = folder === undefined ? null : await putBack(folder, settings, terminal)
      const mark = readMark(settings.state)
      const outcome = await withStore(settings, store => goOn(store, settings, mark ?? saved, mark !== null, given))
      terminal.done(`the store goes on at index ${outcome.idx}, notice ${outcome.seq + 1}`, storeName(settings))
      if (outcome.adopted > 0) terminal.done(`${outcome.adopted} notices taken in that it had lost`)
      if (outcome.lost)
        terminal.line(
          `  Certificates with an index from ${outcome.lost.from} to ${outcome.lost.to} may be out there and are not in the store.`,
        )
      if (mark === null) terminal.line('  This machine had noted nothing of what was published; give later notices with --notice.')
      terminal.commands('Then:', ['birthmark fsck --config birthmark.yaml', 'birthmark serve --config birthmark.yaml'])
      terminal.result(outcome)
    })
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

/** The numbers of the backup's moment. */
async function putBack(folder: string, settings: Settings, terminal: Terminal): Promise<StoreNumbers> {
  const { store, state, fleet } = settings
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
  const stamp = Math.floor(systemClock.now())
  if (store.kind === 'postgres') {
    await restorePostgresStore(postgresAddress(store), file, `${store.schema}_before_${stamp}`.slice(0, 63))
    return numbers
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
  return numbers
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

interface Outcome {
  idx: number
  seq: number
  adopted: number
  lost: { from: number; to: number } | null
}

async function goOn(
  store: Store,
  settings: Settings,
  seen: StoreNumbers | null,
  isMarked: boolean,
  given: Bytes[],
): Promise<Outcome> {
  const { fleet, state } = settings
  const broken = await store.check()
  if (broken.length > 0)
    throw new CommandError('store_unsound', `the store is damaged: ${broken[0]}`, 'restore another backup', 'failed')
  const at = Math.max(Math.floor(systemClock.now()), await store.lastTime())
  const audit = (kind: 'notice_adopted' | 'store_restored', detail: string) => ({
    ...{ at, kind, requestId: '', fleet, device: '', by: 'birthmark restore', code: '', detail },
  })
  const found = await store.numbers([fleet])
  const [own] = found.fleets
  const last = seen?.fleets.find(f => f.fleet === fleet) ?? own
  const margin = isMarked ? above.marked : above.unmarked
  const isBehind = last.idx > own.idx || !isMarked || (seen !== null && seen.audit.n > found.audit.n)
  const idx = Math.max(own.idx, last.idx) + margin.idx
  // First of all: it permits the gap that a missing notice leaves.
  await store.raiseNumbers({
    fleets: [{ fleet, idx, gid: Math.max(own.gid, last.gid) + margin.gid }],
    crls: [...found.crls, ...(seen?.crls ?? [])].map(({ issuer, number }) => ({ issuer, number: number + margin.crl })),
    audit: audit(
      'store_restored',
      `the store ended at audit record ${found.audit.n}, index ${own.idx}, notice ${own.seq}; goes on at index ${idx}`,
    ),
  })
  let adopted = 0
  let seq = own.seq
  for (const { notice, body } of await published(settings, [...readNotices(state), ...given])) {
    const { rules, certificates, issuer } = partsOf(body.rules)
    const taken = await store.adoptNotice({
      ...{
        fleet,
        seq: body.seq,
        notice,
        sha256: noticeSha256(notice),
        previousSha256: body.previousSha256,
        at: body.issuedAt,
        rules,
        certificates,
        floor: body.floor,
        issuer,
      },
      audit: audit('notice_adopted', `notice ${body.seq}, ${rules.length} group rules, ${countNumbers(certificates)} certificates`),
    })
    if (taken === 'adopted') adopted++
    seq = Math.max(seq, body.seq)
  }
  const after = await store.numbers([fleet])
  // The last step: until it is done, the server does not start.
  writeMark(state, after)
  return { idx: after.fleets[0].idx, seq, adopted, lost: isBehind ? { from: own.idx, to: idx - 1 } : null }
}

/** All of them, verified under a notice key each, oldest first. */
async function published({ notices: { keys }, fleet }: Settings, notices: Bytes[]): Promise<{ notice: Bytes; body: NoticeBody }[]> {
  const signers = keys.map(noticeSpki).map(spki => ({ keyId: noticeKeyId(spki), algorithm: -7, spki }))
  const out: { notice: Bytes; body: NoticeBody }[] = []
  for (const notice of notices)
    await new Promise<void>((done, failed) =>
      openNotice(notice, fleet, signers, nodeVerify(), (problem, body) => {
        if (body === null)
          return failed(
            new CommandError('notice_refused', `a published notice does not verify (${problem})`, 'leave that file out', 'refused'),
          )
        out.push({ notice, body })
        done()
      }),
    )
  return out.sort((a, b) => a.body.seq - b.body.seq)
}
