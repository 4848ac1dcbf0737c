// The guarantee behind MQTT: the same signed objects over HTTPS, for whoever sees a gap or hears no heartbeat. Both ends: an answer for each
// path, to be mounted where the server listens, and what a relying party fetches. Nothing here is believed: the receiver verifies.

import { createHash } from 'node:crypto'
import { request as httpsRequest } from 'node:https'
import { type Bytes, concatBytes, parseSign1 } from '@birthmark/device-sdk/core'
import { RevocationError } from './errors.ts'
import { decodeNoticeBody, noticeBytesMax, ringSize } from './notice.ts'
import { decodeSnapshotBody, type Snapshots, snapshotBytesMax } from './snapshot.ts'

/** Of COSE_Sign1 (RFC 9052 2). */
const mediaType = 'application/cose; cose-type="cose-sign1"'

export function pullPath(fleet: string): string {
  return `/.well-known/fr/1/${fleet}/`
}

export interface PullAnswer {
  status: 200 | 304 | 404
  headers: { [name: string]: string }
  body: Bytes | null
}

export interface PullSource {
  fleet: string
  newest(): Promise<{ notice: Bytes } | null>
  notice(seq: number): Promise<{ notice: Bytes } | null>
  /** The newest notice's heartbeat of this moment; without it, who only pulls can't tell that nothing was held back. */
  heartbeat?(): Promise<Bytes | null>
  snapshots: Snapshots
}

/** Answers a GET or HEAD for `path`; null when it is none of `head`, `hb`, `n/{seq}`, `snap/{shard}` of this fleet. `ifNoneMatch`: that header. */
export function createPullHandler(source: PullSource): (path: string, ifNoneMatch?: string) => Promise<PullAnswer | null> {
  const prefix = pullPath(source.fleet)

  function answer(body: Bytes | null, cacheControl: string, ifNoneMatch: string | undefined): PullAnswer {
    if (!body) return { status: 404, headers: { 'cache-control': 'no-store' }, body: null }
    const etag = `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"`
    const headers = { 'content-type': mediaType, 'cache-control': cacheControl, etag }
    const held = (ifNoneMatch ?? '').split(',').some(tag => tag.trim().replace(/^W\//, '') === etag)
    return held ? { status: 304, headers, body: null } : { status: 200, headers, body }
  }

  return async (path, ifNoneMatch) => {
    if (!path.startsWith(prefix)) return null
    // No leading zeros and no more digits than a safe number has: one spelling each.
    const [, kind, digits] = /^(head|hb|n|snap)(?:\/(0|[1-9][0-9]{0,14}))?$/.exec(path.slice(prefix.length)) ?? []
    if (kind === undefined || (kind === 'head' || kind === 'hb') !== (digits === undefined)) return null
    if (kind === 'head') return answer((await source.newest())?.notice ?? null, 'no-cache', ifNoneMatch)
    // Not to be kept by anything in between: a heartbeat is worth its age.
    if (kind === 'hb') return answer((await source.heartbeat?.()) ?? null, 'no-store', undefined)
    // A number has one notice for ever.
    if (kind === 'n')
      return answer((await source.notice(Number(digits)))?.notice ?? null, 'public, max-age=31536000, immutable', ifNoneMatch)
    return answer((await source.snapshots.current())[Number(digits)] ?? null, 'no-cache', ifNoneMatch)
  }
}

export interface Pulled {
  /** Merged first. */
  snapshots: Bytes[]
  notices: Bytes[]
  /** After them. */
  heartbeat?: Bytes | null
}

/** GET of one object: null for 404. Rejects with `pull_failed` for anything else but 200 and at most `bytesMax` bytes. */
export type PullGet = (path: string, bytesMax: number) => Promise<Bytes | null>

// Two numbers and a link.
const heartbeatBytesMax = 64
// At most this many shards a pull: 64 MB, a hundred million certificates.
const shardsMax = 1024

function seqOf(notice: Bytes): number {
  const body = decodeNoticeBody(parseSign1(notice).payload)
  return typeof body === 'string' ? 0 : body.seq
}

/** For a relying party's `pull`: what came after `through`, by notices while the ring would do, else by snapshot and the notices after it. */
export function createPull(fleet: string, get: PullGet): (through: number) => Promise<Pulled> {
  const prefix = pullPath(fleet)
  return async through => {
    const out: Pulled = { snapshots: [], notices: [] }
    const head = await get(`${prefix}head`, noticeBytesMax)
    if (!head) return out
    // Not verified yet: it only says what to ask for, within bounds.
    const newest = seqOf(head)
    let from = through + 1
    if (newest - through > ringSize) {
      for (let shard = 0, shards = 1; shard < Math.min(shards, shardsMax); shard++) {
        const snapshot = await get(`${prefix}snap/${shard}`, snapshotBytesMax)
        if (!snapshot) break
        out.snapshots.push(snapshot)
        const body = decodeSnapshotBody(parseSign1(snapshot).payload)
        if (typeof body === 'string') break
        shards = body.shards
        if (shard === 0) from = body.seq + 1
      }
    }
    for (let seq = Math.max(from, newest - 2 * ringSize); seq < newest; seq++) {
      const notice = await get(`${prefix}n/${seq}`, noticeBytesMax)
      if (notice) out.notices.push(notice)
    }
    out.notices.push(head)
    out.heartbeat = await get(`${prefix}hb`, heartbeatBytesMax)
    return out
  }
}

export interface PullOptions {
  /** `https://host:port`; nothing of its path is used. */
  url: string
  /** PEM of the anchors for the server's certificate; and a client certificate where the server asks for one. */
  tls: { ca: string | string[]; cert?: string; key?: string }
  timeoutSeconds?: number
}

/** `PullGet` over HTTPS, one connection a request; no redirect is followed, no encoding accepted. */
export function httpsGet({ url, tls, timeoutSeconds = 10 }: PullOptions): PullGet {
  const { protocol, hostname, port } = new URL(url)
  if (protocol !== 'https:') throw new RevocationError('configuration_invalid', `not an https address: ${url}`)
  const failed = (path: string, why: string, cause?: unknown) => new RevocationError('pull_failed', `${path}: ${why}`, cause)
  return (path, bytesMax) =>
    new Promise((resolve, reject) => {
      const host = hostname.replace(/^\[|\]$/g, '')
      const asked = httpsRequest({ host, port: port || 443, path, method: 'GET', agent: false, ...tls }, response => {
        const { statusCode } = response
        if (statusCode === 404) {
          response.destroy()
          resolve(null)
          return
        }
        if (statusCode !== 200 || response.headers['content-encoding'] !== undefined) {
          response.destroy()
          reject(failed(path, `status ${statusCode}`))
          return
        }
        const parts: Buffer[] = []
        let length = 0
        response.on('data', (part: Buffer) => {
          length += part.length
          parts.push(part)
          if (length <= bytesMax) return
          // At once: what came may be all, and then the end is the next event.
          reject(failed(path, `more than ${bytesMax} bytes`))
          asked.destroy()
        })
        response.on('end', () => resolve(concatBytes(parts)))
        response.on('error', error => reject(failed(path, error.message, error)))
      })
      // For all of it: a server that drips is as one that is silent.
      const timer = setTimeout(() => asked.destroy(failed(path, 'too slow')), timeoutSeconds * 1000)
      timer.unref()
      asked.on('error', error => reject(error instanceof RevocationError ? error : failed(path, error.message, error)))
      asked.on('close', () => {
        clearTimeout(timer)
        reject(failed(path, 'the connection ended'))
      })
      asked.end()
    })
}
