// A file that a broker elsewhere reads: written beside and put in place, so that a broker that reads in between reads the old one or the new
// one; the broker is told only of a change, and again until it could be told. What is in it is the caller's.

import { readFile } from 'node:fs/promises'
import { RevocationError } from '../errors.ts'
import { oneByOne } from '../one-by-one.ts'
import { replaceFile } from '../replaced-file.ts'

export interface BrokerFileOptions {
  path: string
  /** Of a file that is made. */
  mode: number
  /** What shall be in it now. `standing`: what is; empty before there is a file. */
  content(standing: string): Promise<string> | string
  /** Makes the broker read it again: `signalReload` for one on this machine. */
  reload(): Promise<void> | void
}

export interface BrokerFile {
  /**
   * True when the file has changed and the broker was told. Rejects when there is no content, the file can't be written (the old one stands) or
   * the broker not be told. One after the other: who asks while one is written gets one that began after the question.
   */
  refresh(): Promise<boolean>
}

/** Resolves when it is known what stands there. */
export async function createBrokerFile({ path, mode, content, reload }: BrokerFileOptions): Promise<BrokerFile> {
  let standing = await readFile(path, 'utf8').catch(() => '')
  // Who wrote it may have died before the broker was told.
  let told = false
  const inTurn = oneByOne()

  async function write(text: string): Promise<void> {
    await replaceFile(path, text, mode)
    standing = text
    told = false
  }

  async function renew(): Promise<boolean> {
    const text = await content(standing)
    if (text !== standing) await write(text)
    if (told) return false
    await reload()
    told = true
    return true
  }

  return {
    refresh: () => inTurn(renew),
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
