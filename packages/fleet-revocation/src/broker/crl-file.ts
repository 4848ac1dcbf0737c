// A file of certificate revocation lists for a broker's TLS layer, which refuses the handshake of whoever is on it. What is on the lists is the
// issuer's to say; a broker whose lists have run out refuses everybody, so they are looked at well before.

import { request } from 'node:http'
import { type Bytes, concatBytes, encodePem } from '@birthmark/device-sdk/core'
import { RevocationError } from '../errors.ts'
import type { Clock, Log } from '../ports.ts'
import { repeat } from '../repeat.ts'
import { createBrokerFile } from './broker-file.ts'

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
  const file = await createBrokerFile({
    ...{ path, mode: 0o644, reload },
    content: async () => (await lists()).map(der => encodePem('X509 CRL', der)).join(''),
  })

  async function refresh(): Promise<boolean> {
    const changed = await file.refresh()
    if (changed) log.info({ path }, 'the broker was given new revocation lists')
    return changed
  }

  await refresh()
  const close = repeat(clock, everySeconds, refresh, error =>
    log.error({ err: error, path }, 'revocation lists not renewed; the broker goes on with the old ones'),
  )
  return { refresh, close }
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
