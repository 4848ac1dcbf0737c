// What has left this server, kept outside the store: how far its numbers had gone, and every notice. Written before anything is published that
// it must cover, so that a store which was put back to an older state is noticed at start, and so that a restore knows what the world has seen.
//
//   published.json      how far the store was, at most a second ago, and never behind a notice of its own: atomically replaced
//   published-notices   a notice a line, base64: appended, each on the medium before it is published

import { closeSync, existsSync, fsyncSync, openSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type Bytes, equalBytes } from '@birthmark/device-sdk/core'
import type { Log, Store, StoreNumbers } from '@birthmark/est-server'
import { writeDurably } from '@birthmark/factory-line'
import { type Clock, noticeFacts, repeat, ringSize } from '@birthmark/fleet-revocation'
import { z } from 'zod'
import { CommandError } from './command-error.ts'
import type { Settings } from './configuration.ts'
import { unfit } from './published-notice.ts'

/** A store whose file was put back is noticed from a second after its last write on. */
const markSeconds = 1

const Hash = z.string().regex(/^[0-9a-f]{64}$/)
const Count = z.int().min(0)
const MarkFile = z.strictObject({
  version: z.literal(1),
  audit: z.strictObject({ n: Count, hash: Hash }),
  fleets: z.array(z.strictObject({ fleet: z.string(), idx: Count, gid: Count, seq: Count })).max(1024),
  crls: z.array(z.strictObject({ issuer: z.string().regex(/^([0-9a-f]{2})+$/), number: Count })).max(1024),
})

export const markText = ({ audit, fleets, crls }: StoreNumbers): string =>
  `${JSON.stringify({
    version: 1,
    audit: { n: audit.n, hash: Buffer.from(audit.hash).toString('hex') },
    fleets: fleets.map(({ fleet, idx, gid, seq }) => ({ fleet, idx, gid, seq })),
    crls: crls.map(({ issuer, number }) => ({ issuer: Buffer.from(issuer).toString('hex'), number })),
  })}\n`

export function numbersOfMark(text: string, name: string): StoreNumbers {
  try {
    const { audit, fleets, crls } = MarkFile.parse(JSON.parse(text))
    return {
      audit: { n: audit.n, hash: Buffer.from(audit.hash, 'hex') },
      fleets,
      crls: crls.map(({ issuer, number }) => ({ issuer: Buffer.from(issuer, 'hex'), number })),
    }
  } catch (error) {
    throw new CommandError('published_malformed', `${name} is damaged`, 'put back its copy; see docs/stores.md', 'failed', error)
  }
}

const markFile = (state: string) => join(state, 'published.json')
const noticeFile = (state: string) => join(state, 'published-notices')

const lineOf = (notice: Bytes): string => Buffer.from(notice).toString('base64')

/** Null where nothing was ever published. */
export function readMark(state: string): StoreNumbers | null {
  const file = markFile(state)
  return existsSync(file) ? numbersOfMark(readFileSync(file, 'utf8'), file) : null
}

export function writeMark(state: string, numbers: StoreNumbers): void {
  writeDurably(markFile(state), markText(numbers), 0o600)
}

/** Every notice that was about to be published, in order. A line that was cut off was not published. */
export function readNotices(state: string): Bytes[] {
  const file = noticeFile(state)
  if (!existsSync(file)) return []
  return readFileSync(file, 'latin1')
    .split('\n')
    .slice(0, -1)
    .map(line => new Uint8Array(Buffer.from(line, 'base64')))
}

/** Why the store cannot be the one that `mark` was written of, or null. */
export async function olderThan(store: Store, mark: StoreNumbers): Promise<string | null> {
  if (mark.audit.n === 0) return null
  const [record] = await store.audit(mark.audit.n - 1, 1)
  if (record === undefined) {
    const { audit } = await store.numbers([])
    return `it ends at audit record ${audit.n}, and record ${mark.audit.n} was written before: it is an older copy`
  }
  return equalBytes(record.hash, mark.audit.hash)
    ? null
    : `its audit record ${mark.audit.n} is not the one that was written here: it is a fork`
}

/**
 * The same by the last notices that were noted: each is in the store before it is noted here. Not by the last one alone: what a broker showed is noted
 * while this server may be noting its own.
 */
const olderThanNotices = (store: Store, fleet: string, notices: Bytes[]): Promise<string | null> =>
  unfit(
    store,
    fleet,
    notices.slice(-ringSize).map(notice => ({ notice, body: noticeFacts(notice) })),
  )

export async function refuseOlderStore({ state, fleet }: Pick<Settings, 'state' | 'fleet'>, store: Store): Promise<void> {
  const mark = readMark(state)
  const why = (mark && (await olderThan(store, mark))) || (await olderThanNotices(store, fleet, readNotices(state)))
  if (why)
    throw new CommandError(
      'store_older',
      `the store was put back: ${why}`,
      'birthmark restore --in-place --config FILE makes it go on above every number that was given out; docs/stores.md says what is lost',
      'refused',
    )
}

export interface Published {
  /** To be awaited before these leave, which the store has recorded. */
  before(notices: { notice: Bytes }[]): Promise<void>
  /** One that somebody else shows and the store does not have, so that no later start overlooks it. Throws where the disk does not take it. */
  note(notice: Bytes): void
  close(): Promise<void>
}

export interface PublishedOptions {
  state: string
  store: Pick<Store, 'numbers'>
  fleets: string[]
  clock: Clock
  log: Log
  /** What left could no longer be told: end the process. */
  onFatal(error: Error): void
}

export async function keepPublished({ state, store, fleets, clock, log, onFatal }: PublishedOptions): Promise<Published> {
  const file = noticeFile(state)
  const known = prepareNotices(file)
  let written = ''
  let marking: Promise<void> = Promise.resolve()
  let broken: Error | null = null
  async function writeNumbers(): Promise<void> {
    const numbers = await store.numbers(fleets)
    const text = markText(numbers)
    if (text === written) return
    writeDurably(markFile(state), text, 0o600)
    written = text
  }
  /** One after the other, so that none takes the mark back. */
  function mark(): Promise<void> {
    marking = marking.then(writeNumbers, writeNumbers)
    return marking
  }
  function append(notices: Bytes[]): void {
    if (broken) throw broken
    const lines = notices.map(lineOf).filter(line => !known.has(line))
    if (lines.length === 0) return
    const fd = openSync(file, 'a', 0o600)
    try {
      writeFileSync(fd, lines.map(line => `${line}\n`).join(''))
      fsyncSync(fd)
    } catch (error) {
      failed(error)
      throw error
    } finally {
      closeSync(fd)
    }
    for (const line of lines) known.add(line)
  }
  /** The store says by itself when it is away; a disk that takes no more is the end. What it took half of is cut off at the next start. */
  function failed(error: unknown): void {
    log.error({ err: error }, 'what was published could not be noted')
    if (broken || typeof (error as NodeJS.ErrnoException).errno !== 'number') return
    broken = error as Error
    onFatal(broken)
  }
  await mark()
  const endMarking = repeat(clock, markSeconds, mark, failed)
  return {
    async before(notices) {
      if (notices.every(({ notice }) => known.has(lineOf(notice)))) return
      // First: so a notice beyond the mark is none of this store, or the mark was put back.
      await mark()
      append(notices.map(({ notice }) => notice))
    },
    note: notice => append([notice]),
    async close() {
      endMarking()
      // A stop in order leaves a mark that is exact.
      await mark().catch(error => log.warn({ err: error }, 'the last mark could not be written'))
    },
  }
}

/** Makes the file, durably, and cuts off what a crash left of a last line. */
function prepareNotices(file: string): Set<string> {
  closeSync(openSync(file, 'a', 0o600))
  const folder = openSync(dirname(file), 'r')
  fsyncSync(folder)
  closeSync(folder)
  const text = readFileSync(file, 'latin1')
  const whole = text.lastIndexOf('\n') + 1
  if (whole < text.length) truncateSync(file, whole)
  return new Set(
    text
      .slice(0, whole)
      .split('\n')
      .filter(line => line !== ''),
  )
}
