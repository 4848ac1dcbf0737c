// A file of certificate revocation lists for a broker's TLS layer, which refuses the handshake of whoever is on it. Written beside and put in
// place, so that a broker that reads in between reads the old lists or the new ones; the broker is told only of a change. What is on the lists
// is the issuer's to say; a broker whose lists have run out refuses everybody, so they are looked at well before.

import { open, readFile, rename } from 'node:fs/promises'
import { request } from 'node:http'
import { type Bytes, concatBytes, encodePem } from '@birthmark/device-sdk/core'
import { RevocationError } from '../errors.ts'
import type { Clock, Log } from '../ports.ts'

export interface CrlFileOptions {
  path: string
  /** DER, one for every issuer (or every shard of it) whose certificates the broker meets. */
  lists(): Promise<Bytes[]>
  /** Makes the broker read the file again: `signalReload` for one on this machine. */
  reload(): Promise<void> | void
  /** Between two looks without being asked: well below the lists' lifetime. */
  everySeconds?: number
  clock: Clock
  log: Log
}

export interface CrlFile {
  /** True when the file has changed and the broker was told. Rejects when lists can't be had or the file not written: the old one stands. */
  refresh(): Promise<boolean>
  close(): void
}

/** Resolves when the file is there for the first time. */
export async function createCrlFile({ path, lists, reload, everySeconds = 300, clock, log }: CrlFileOptions): Promise<CrlFile> {
  let standing = await readFile(path, 'utf8').catch(() => '')
  let last: Promise<unknown> = Promise.resolve()
  let closed = false
  let cancel = () => {}

  async function write(): Promise<boolean> {
    const text = (await lists()).map(der => encodePem('X509 CRL', der)).join('')
    if (text === standing) return false
    const fresh = `${path}.new`
    const file = await open(fresh, 'w', 0o644)
    try {
      await file.writeFile(text)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(fresh, path)
    standing = text
    await reload()
    log.info({ path, bytes: text.length }, 'the broker was given new revocation lists')
    return true
  }

  /** One after the other; who asks while one is written gets one that began after the question. */
  function refresh(): Promise<boolean> {
    const turn = last.then(write)
    last = turn.catch(() => {})
    return turn
  }

  function lookLater(): void {
    if (closed) return
    cancel = clock.setTimer(everySeconds, () => {
      refresh()
        .catch((error: unknown) =>
          log.error({ err: error, path }, 'revocation lists not renewed; the broker goes on with the old ones'),
        )
        .finally(lookLater)
    })
  }

  await refresh()
  lookLater()
  return {
    refresh,
    close: () => {
      closed = true
      cancel()
    },
  }
}

/** SIGHUP to the process that `pidFile` names: mosquitto and nats-server read their files again. Rejects with `enforcement_refused`. */
export function signalReload(pidFile: string): () => Promise<void> {
  return async () => {
    const pid = Number((await readFile(pidFile, 'utf8').catch(() => '')).trim())
    try {
      if (!Number.isInteger(pid) || pid <= 1) throw new Error(`${pidFile} names no process`)
      process.kill(pid, 'SIGHUP')
    } catch (error) {
      throw new RevocationError('enforcement_refused', 'the broker could not be told to read its files again', error)
    }
  }
}

// A list of a million entries.
const listBytesMax = 64 << 20

/** A list from its distribution point, which is plain http: it is signed, and the broker verifies it (RFC 5280 8). Rejects with `pull_failed`. */
export function fetchCrl(url: string, timeoutSeconds = 30): Promise<Bytes> {
  return new Promise((resolve, reject) => {
    const failed = (why: string, cause?: unknown) => reject(new RevocationError('pull_failed', `${url}: ${why}`, cause))
    const asked = request(url, { agent: false }, response => {
      if (response.statusCode !== 200) {
        response.destroy()
        return failed(`status ${response.statusCode}`)
      }
      const parts: Buffer[] = []
      let length = 0
      response.on('data', (part: Buffer) => {
        length += part.length
        parts.push(part)
        if (length > listBytesMax) asked.destroy(new Error('too long'))
      })
      response.on('end', () => resolve(concatBytes(parts)))
    })
    const timer = setTimeout(() => asked.destroy(new Error('too slow')), timeoutSeconds * 1000)
    asked.on('error', error => failed(error.message, error))
    asked.on('close', () => clearTimeout(timer))
    asked.end()
  })
}
