// A thread for reads that take seconds: what a campaign selects among a million devices. It opens the file for itself, answers one question and
// ends, so that whoever asked goes on serving and gets the memory back.

import { DatabaseSync } from 'node:sqlite'
import { parentPort, Worker, workerData } from 'node:worker_threads'
import { EstServerError } from '../errors.ts'
import type { FreezeQuery, FrozenSelection } from './selection.ts'
import { certificatesSince, freezeSelection, withoutCertificate } from './sqlite-selection.ts'

interface Scans {
  freeze: { query: FreezeQuery; answer: FrozenSelection }
  certificatesSince: {
    query: { fleet: string; devices: Uint8Array; issuedThrough: number }
    answer: { certificates: Uint8Array; issuedThrough: number }
  }
  withoutCertificate: { query: { devices: Uint8Array; now: number }; answer: number }
}

const scans: { [S in keyof Scans]: (db: DatabaseSync, query: Scans[S]['query']) => Scans[S]['answer'] } = {
  freeze: freezeSelection,
  certificatesSince,
  withoutCertificate,
}

interface Asked<S extends keyof Scans> {
  path: string
  scan: S
  query: Scans[S]['query']
}

// Beside this file in the sources; in the package this file is part of dist/index.js or of a chunk next to it.
const threadFile = new URL(import.meta.url.endsWith('.ts') ? './sqlite-scan.ts' : './store/sqlite-scan.js', import.meta.url)

/** Rejects with `store_failed`. */
export function scanSqlite<S extends keyof Scans>(path: string, scan: S, query: Scans[S]['query']): Promise<Scans[S]['answer']> {
  return new Promise((done, failed) => {
    // Mostly typed arrays; 128 MB hold the keys and the certificates of four million devices.
    const thread = new Worker(threadFile, {
      workerData: { path, scan, query } satisfies Asked<S>,
      resourceLimits: { maxOldGenerationSizeMb: 128 },
    })
    thread.once('message', (message: { answer: Scans[S]['answer'] } | { failed: string }) => {
      if ('answer' in message) done(message.answer)
      else failed(new EstServerError('store_failed', `scan: ${message.failed}`))
    })
    thread.once('error', error => failed(new EstServerError('store_failed', `scan: ${(error as Error).message}`, error)))
    thread.once('exit', () => failed(new EstServerError('store_failed', 'scan: the thread ended')))
  })
}

function answer({ path, scan, query }: Asked<keyof Scans>): void {
  const db = new DatabaseSync(path, { readOnly: true, timeout: 5000 })
  try {
    // 32 MiB: the pages of the inner look-ups; the outer rows are read once.
    db.exec('PRAGMA cache_size = -32768')
    // The table pairs each scan with its own query.
    const read = scans[scan] as (db: DatabaseSync, query: unknown) => unknown
    parentPort?.postMessage({ answer: read(db, query) })
  } catch (error) {
    parentPort?.postMessage({ failed: (error as Error).message })
  } finally {
    db.close()
  }
}

if (parentPort && (workerData as Partial<Asked<'freeze'>> | null)?.scan) answer(workerData as Asked<keyof Scans>)
