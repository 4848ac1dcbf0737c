// The list of everything an issuer has revoked, for consumers that want one file: some 40 MB for a million certificates, made and served without
// ever being in memory. Entries go to a file as they are read, which says how long they are; a second pass puts the list together around them,
// hashing what it writes. Only a finished list, on the medium under its own number, is recorded; what a crash leaves is thrown away at the next start.

import { createReadStream } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Bytes } from '@birthmark/device-sdk/core'
import { crlEnvelope, crlFrame, entriesBytes, writeEntries } from './ca/crl.ts'
import type { Issuer, PartSigner } from './ca/issuer-key.ts'
import { EstServerError } from './errors.ts'
import type { Clock } from './ports.ts'
import { type crlFailpoints, revokedRuns } from './revocation-lists.ts'
import type { RevocationRules } from './revocation-rules.ts'
import { issuerName, shardOf } from './status-urls.ts'
import type { CrlHead } from './store/crl.ts'
import type { Store } from './store/store.ts'

export interface FullList extends CrlHead {
  /** DER, whole. Replaced, never changed: who has it open goes on reading the list it opened. */
  path: string
  bytes: number
}

export interface FullListParts {
  store: Store
  lifetimeSeconds: number
  folder: string
  clock: Clock
  rulesOf(fleet: string, revocations: number): Promise<RevocationRules>
  requireForwardClock(now: number): Promise<void>
  pass(name: (typeof crlFailpoints)[number]): Promise<void>
  isYoung(head: CrlHead, now: number): boolean
  /** Certificates that ended before this are left out. */
  since(now: number): number
}

export type FullOutcome =
  | { kind: 'fresh'; list: FullList; signed: boolean }
  /** `standing`: the list before, when it knows of every revocation. */
  | { kind: 'failed'; error: unknown; standing: FullList | null }

/** Bytes gathered before they are written, and read at once: more than the entries of one read. */
const pieceBytes = 1 << 18
/** Held in memory for a key that must have all at once: a million and a half entries. */
const wholeBytesMax = 1 << 26
const attemptsMax = 3
/** Nobody takes an hour over a list. */
const abandonedAfterMs = 3_600_000

export function createFullLists(parts: FullListParts) {
  const { store, folder, clock, pass } = parts
  const under = new Map<string, Promise<FullOutcome>>()
  const at = () => Math.floor(clock.now())
  let closing = false
  let prepared: Promise<void> | null = null

  /** The folder, with nothing half-made in it. */
  function prepare(): Promise<void> {
    prepared ??= (async () => {
      await mkdir(folder, { recursive: true, mode: 0o700 })
      for (const name of await readdir(folder)) {
        if (!name.endsWith('.part')) continue
        const path = join(folder, name)
        // Another process of this folder may be at work on its own.
        const { mtimeMs } = await stat(path)
        if (name.endsWith(`.${process.pid}.part`) || Date.now() - mtimeMs > abandonedAfterMs) await rm(path, { force: true })
      }
    })()
    return prepared
  }

  const pathOf = (issuer: Issuer, number: number) => join(folder, `${issuerName(issuer.keyId)}-${number}.crl`)

  /** The recorded list, when its file is on this machine. */
  async function standing(issuer: Issuer): Promise<FullList | null> {
    const head = await store.crlHead(issuer.keyId, '')
    if (head === null) return null
    const path = pathOf(issuer, head.number)
    try {
      const file = await open(path, 'r')
      const { size } = await file.stat()
      await file.close()
      return { ...head, path, bytes: size }
    } catch {
      return null
    }
  }

  async function make(issuer: Issuer): Promise<FullOutcome> {
    let before: FullList | null = null
    try {
      await prepare()
      // Counted before anything is read: a revocation that comes while this is made is in the next.
      const revocations = await store.revocations(null)
      const found = await standing(issuer)
      before = found?.revocations === revocations ? found : null
      if (before && parts.isYoung(before, at())) return { kind: 'fresh', list: before, signed: false }
      return { kind: 'fresh', list: await build(issuer, revocations), signed: true }
    } catch (error) {
      return { kind: 'failed', error, standing: before }
    }
  }

  async function build(issuer: Issuer, revocations: number): Promise<FullList> {
    const now = at()
    await parts.requireForwardClock(now)
    const name = join(folder, `${issuerName(issuer.keyId)}`)
    const [entriesPath, listPath] = [`${name}-entries.${process.pid}.part`, `${name}-list.${process.pid}.part`]
    let entries: FileHandle | null = null
    let list: FileHandle | null = null
    try {
      entries = await open(entriesPath, 'w+', 0o600)
      const entriesBytes = await spoolEntries(issuer, entries, parts.since(now))
      await pass('crl-read')
      const number = await store.reserveCrlNumber(issuer.keyId, now)
      await pass('crl-numbered')
      const shape = { number, thisUpdate: now, nextUpdate: now + parts.lifetimeSeconds, distributionPoint: null }
      const frame = crlFrame(issuer, shape, entriesBytes)
      const tbsBytes = frame.before.length + entriesBytes + frame.after.length
      list = await open(listPath, 'w', 0o600)
      const bytes = await writeList(issuer, entries, list, frame, tbsBytes)
      await pass('crl-signed')
      await list.sync()
      await list.close()
      list = null
      const path = pathOf(issuer, number)
      await rename(listPath, path)
      const head = { number, revocations, thisUpdate: shape.thisUpdate, nextUpdate: shape.nextUpdate }
      const recorded = await store.recordCrl({ issuer: issuer.keyId, list: '', ...head, der: new Uint8Array() })
      await pass('crl-recorded')
      if (recorded === 'recorded') await removeOlder(issuer, number)
      return { ...head, path, bytes }
    } finally {
      await entries?.close()
      await list?.close()
      await rm(entriesPath, { force: true })
      await rm(listPath, { force: true })
    }
  }

  /** Shard by shard, with the event loop between them. Octets written. */
  async function spoolEntries(issuer: Issuer, file: FileHandle, since: number): Promise<number> {
    let written = 0
    // One buffer for all that is written.
    const piece = Buffer.allocUnsafe(pieceBytes)
    let size = 0
    const flush = async () => {
      await file.write(piece, 0, size, written)
      written += size
      size = 0
    }
    for (const fleet of await store.fleets()) {
      const rules = await parts.rulesOf(fleet, await store.revocations(fleet))
      // Nothing of a fleet without rules is revoked.
      const last = rules.revocations === 0 ? -1 : shardOf(await store.lastIdx(fleet))
      for (let shard = 0; shard <= last; shard++) {
        if (closing) throw new EstServerError('store_closed', 'the server is stopping')
        for await (const run of revokedRuns(store, issuer, fleet, shard, rules, since)) {
          if (size + entriesBytes(run) > pieceBytes) await flush()
          size = writeEntries(run, piece, size)
        }
        await nextTurn()
      }
    }
    await flush()
    return written
  }

  /** Octets of the whole list. */
  async function writeList(
    issuer: Issuer,
    entries: FileHandle,
    list: FileHandle,
    frame: { before: Bytes; after: Bytes },
    tbsBytes: number,
  ): Promise<number> {
    // The outer header says how long all is and comes before the signature that it counts. Its own length is known but for one case in thousands.
    let lead = crlEnvelope(issuer, new Uint8Array(72), tbsBytes).before.length
    for (let i = 0; i < attemptsMax; i++) {
      const signer = issuer.signParts?.() ?? wholeSigner(issuer, tbsBytes)
      let at = lead
      const put = async (part: Bytes) => {
        signer.update(part)
        await list.write(part, 0, part.length, at)
        at += part.length
      }
      await put(frame.before)
      const piece = Buffer.allocUnsafe(pieceBytes)
      for (let from = 0; ; ) {
        const { bytesRead } = await entries.read(piece, 0, pieceBytes, from)
        if (bytesRead === 0) break
        await put(piece.subarray(0, bytesRead))
        from += bytesRead
      }
      await put(frame.after)
      const signature = await signed(signer)
      const { before, after } = crlEnvelope(issuer, signature, tbsBytes)
      if (before.length === lead) {
        await list.write(before, 0, lead, 0)
        await list.write(after, 0, after.length, at)
        return at + after.length
      }
      lead = before.length
    }
    throw new EstServerError('issuer_failed', 'signatures of ever other lengths')
  }

  async function signed(signer: PartSigner): Promise<Bytes> {
    let signature: Bytes
    try {
      signature = await signer.sign()
    } catch (error) {
      throw new EstServerError('issuer_failed', 'the issuer key did not sign', error)
    }
    if (!signer.verify(signature))
      throw new EstServerError('signature_wrong', 'the issuer key gave a signature that does not verify')
    return signature
  }

  async function removeOlder(issuer: Issuer, number: number): Promise<void> {
    const mine = new RegExp(`^${issuerName(issuer.keyId)}-(\\d+)\\.crl$`)
    for (const name of await readdir(folder)) {
      const match = mine.exec(name)
      if (match && Number(match[1]) < number) await rm(join(folder, name), { force: true })
    }
  }

  return {
    /** The issuer's list, made when there is none that is young and knows of every revocation. One is made at a time; all who ask wait for it. */
    async get(issuer: Issuer): Promise<FullOutcome> {
      const id = issuerName(issuer.keyId)
      const joined = under.get(id)
      if (joined !== undefined) {
        // It may have begun before the revocation that this caller wants to see.
        await joined
        if (under.get(id) !== undefined) return under.get(id)!
      }
      const done = make(issuer)
      under.set(id, done)
      try {
        return await done
      } finally {
        if (under.get(id) === done) under.delete(id)
      }
    },

    async close(): Promise<void> {
      closing = true
      await Promise.allSettled(under.values())
    },
  }
}

/** For keys that take no parts. */
function wholeSigner(issuer: Issuer, bytes: number): PartSigner {
  if (bytes > wholeBytesMax)
    throw new EstServerError('issuer_unusable', `${issuer.algorithm} signs no list of ${bytes} bytes in parts`)
  const whole = Buffer.allocUnsafe(bytes)
  let at = 0
  return {
    update(part) {
      whole.set(part, at)
      at += part.length
    },
    sign: () => issuer.sign(whole),
    verify: signature => issuer.verify(whole, signature),
  }
}

/** The bytes of a list that was found; the file is opened at once, so that a newer list cannot take it away. */
export async function openFullList(list: FullList): Promise<NodeJS.ReadableStream & { destroy(): void }> {
  const file = await open(list.path, 'r')
  return createReadStream(list.path, { fd: file, highWaterMark: 65_536 })
}
