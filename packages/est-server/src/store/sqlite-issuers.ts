// Issuers in SQLite: the reads and writes of issuers.ts.

import type { DatabaseSync } from 'node:sqlite'
import type { IssuerStanding, IssuersChange } from './issuers.ts'
import { prepare } from './sqlite-rows.ts'
import type { AuditEntry } from './store.ts'

const standingsOf = (db: DatabaseSync) => {
  const all = prepare<IssuerStanding>(db, 'SELECT key_id AS keyId, state, since FROM issuers ORDER BY since, key_id')
  return (): IssuerStanding[] => all.all().map(row => ({ ...row }))
}

export function issuerReads(db: DatabaseSync) {
  const devices = prepare<{ rows: number; devices: number; last: number | null }>(
    db,
    `SELECT count(*) AS rows, max(d.key) AS last, coalesce(sum(i.issuer = ? AND i.not_after > ?), 0) AS devices
     FROM (SELECT key, latest FROM devices WHERE key > ? ORDER BY key LIMIT ?) d LEFT JOIN issuances i ON i.key = d.latest`,
  )
  return {
    issuerStandings: standingsOf(db),
    issuerDevices(q: { issuer: Uint8Array; now: number; after: number; rows: number }) {
      const page = devices.get(q.issuer, q.now, q.after, q.rows)!
      return { devices: page.devices, next: page.rows === q.rows ? page.last : null }
    },
  }
}

export interface IssuerWrites {
  recordIssuers(change: IssuersChange): 'recorded' | 'conflict' | 'used'
}

export function issuerWrites(db: DatabaseSync, audit: (entry: AuditEntry) => void) {
  const standings = standingsOf(db)
  const used = prepare(db, 'SELECT 1 FROM issuances WHERE issuer = ? LIMIT 1')
  const clear = prepare(db, 'DELETE FROM issuers')
  const insert = prepare(db, 'INSERT INTO issuers (key_id, state, since) VALUES (?, ?, ?)')
  const text = (all: IssuerStanding[]) =>
    all.map(({ keyId, state, since }) => `${Buffer.from(keyId).toString('hex')} ${state} ${since}`).join()
  // Read once a transaction: every intent of a batch asks.
  let signing: Uint8Array | null | undefined
  return {
    /** Whether the issuer's intents are taken. */
    maySign(issuer: Uint8Array): boolean {
      if (signing === undefined) {
        const all = standings()
        signing = all.find(({ state }) => state === 'signing')?.keyId ?? (all.length > 0 ? new Uint8Array() : null)
      }
      return signing === null || Buffer.compare(signing, issuer) === 0
    },
    /** To be called when a transaction ends, either way. */
    forget() {
      signing = undefined
    },
    writes: {
      recordIssuers(change: IssuersChange) {
        if (text(standings()) !== text(change.expected)) return 'conflict'
        if (change.unused !== null && used.get(change.unused) !== undefined) return 'used'
        clear.run()
        for (const { keyId, state, since } of change.standings) insert.run(keyId, state, since)
        audit(change.audit)
        signing = undefined
        return 'recorded'
      },
    } satisfies IssuerWrites,
  }
}
